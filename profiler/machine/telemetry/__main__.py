"""The sampler: `python -m profiler.machine.telemetry FOLDER`, a process of its own, standard library and NVML's bindings only.

The first line of standard input is its job, a JSON object; standard output then has one line, what has been found. It samples until
standard input closes (the end of the cell, or its parent's death), once more then, and leaves SPOOL and MISSING in FOLDER.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from profiler.machine import proc
from profiler.machine.telemetry.amdsmi import AmdSmi
from profiler.machine.telemetry.cpu import Cpu
from profiler.machine.telemetry.exporter import Exporter
from profiler.machine.telemetry.nvml import Nvml
from profiler.machine.telemetry.rapl import Rapl
from profiler.machine.telemetry.source import Absent, Source, Watched

SPOOL, MISSING = "telemetry.spool", "telemetry.missing.json"
RESCAN_S = 10.0  # between looks for new processes: an engine starts its workers before it is ready


class Processes:
    """Whose process is whose, looked up every RESCAN_S."""

    def __init__(self, engine_pids: Sequence[int], parent: int) -> None:
        self._engine_pids, self._parent = engine_pids, parent
        self._watched, self._at = Watched(), 0.0

    def __call__(self) -> Watched:
        if self._at == 0.0 or time.monotonic() - self._at > RESCAN_S:
            known = set(self._watched.engine), set[int](), {self._parent, *self._watched.ours}
            engine, _, ours = proc.find(proc.PROC, self._engine_pids, (), *known)
            self._watched, self._at = Watched(frozenset(engine), frozenset(ours)), time.monotonic()
        return self._watched


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent ends the cell, and with it this process
    folder = Path(sys.argv[1])
    job: dict[str, Any] = json.loads(_first_line(0))
    keep_off(job["avoid_cpus"])
    sources, missing = open_sources(job)
    with (folder / SPOOL).open("w", encoding="utf-8", buffering=1 << 16) as spool:
        has_energy = record(sources, missing, spool)
        print(json.dumps({"energy": has_energy}), flush=True)  # noqa: T201 - this is the protocol
        for _ in ticks(job["period_s"], 0):
            record(sources, missing, spool)
        record(sources, missing, spool)
    for source in sources:
        missing[source.name] = dict(source.missing)
        source.close()
    (folder / MISSING).write_text(json.dumps(missing), encoding="utf-8")


def keep_off(cpus: list[int]) -> None:
    """Stay off the client's cores and give way to everybody: a late sample is stamped with its own time and does no harm."""
    os.nice(10)
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, os.sched_getaffinity(0) - set(cpus) or os.sched_getaffinity(0))


def open_sources(job: dict[str, Any]) -> tuple[list[Source], dict[str, dict[str, str]]]:
    """The sources that are here, and why the others are not: source -> {"": reason}."""
    watched = Processes(job["pids"], job["parent"])
    makers: dict[str, Callable[[], Source]] = {
        "rapl": Rapl,
        "nvml": lambda: Nvml(watched),
        "amdsmi": AmdSmi,
        "cpu": lambda: Cpu(watched),
    }
    if job["exporter"] is not None:
        makers["meter"] = lambda: Exporter(**job["exporter"])
    sources: list[Source] = []
    missing: dict[str, dict[str, str]] = {}
    for name, make in makers.items():
        try:
            sources.append(make())
        except Absent as why:
            missing[name] = {"": str(why)}
        except Exception as error:  # a driver's surprise must not take the other sources with it
            missing[name] = {"": f"{name}: {type(error).__name__}: {error}"}
    return sources, missing


def record(sources: list[Source], missing: dict[str, dict[str, str]], spool: IO[str]) -> bool:
    """One sample of every source; whether there was a reading of energy or power. A source that raises is dropped."""
    has_energy = False
    for source in list(sources):
        before = None
        t_ns = time.monotonic_ns()
        try:
            for device, metric, value in source.sample(t_ns):
                if device != before:
                    before, t_ns = device, time.monotonic_ns()
                spool.write(f"{t_ns}\t{source.name}\t{device}\t{metric}\t{value!r}\n")
                has_energy = has_energy or metric in ("energy_j", "power_w")
        except Exception as error:
            sources.remove(source)
            missing[source.name] = {"": f"{source.name}: {type(error).__name__}: {error}"}
    # Its own cost, the interpreter's start left out.
    spool.write(f"{time.monotonic_ns()}\tsampler\tsampler\tcpu_s\t{time.process_time()!r}\n")
    spool.flush()
    return has_energy


def ticks(period_s: float, lifeline: int) -> Iterator[None]:
    """Every `period_s` from now until `lifeline` closes; a tick that is missed is left out, not made up for."""
    due = time.monotonic() + period_s
    while True:
        ready, _, _ = select.select([lifeline], [], [], max(0.0, due - time.monotonic()))
        if ready and not os.read(lifeline, 4096):
            return
        now = time.monotonic()
        if now >= due:
            yield
            due += period_s * max(1, -int(-(now - due) // period_s))


def _first_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(fd, 1)
        if not byte:
            sys.exit(0)
        line += byte
    return line


if __name__ == "__main__":
    main()

"""Around a cell: the sampler runs, and leaves telemetry.parquet in the cell's folder. It never makes a cell fail."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.machine.telemetry import meter as outside
from profiler.machine.telemetry.__main__ import MISSING, SPOOL
from profiler.machine.telemetry.source import Absent
from profiler.spec import MeterSpec

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "telemetry.parquet"
IDLE_S = 2.0  # before the load, where power is measured at all: twenty updates of NVML's slowest power reading (100 ms)
READY_S, END_S = 20.0, 20.0  # the sampler is given up after these
MAX_STEP_S = 0.1  # of the wall clock against the monotonic one, for readings that are joined by wall clock


@contextlib.contextmanager
def recording(
    folder: Path, pids: Sequence[int], period_s: float, meter: MeterSpec | None = None, avoid_cpus: Sequence[int] = ()
) -> Iterator[None]:
    """Sample through the block; `folder` then has telemetry.parquet. `pids`: the engine's servers, () where they are not ours.

    The folder's name is the run's id. Where power can be read, the block begins after IDLE_S in which nobody sends: idle power is that
    of an engine that is ready, which is what a deployed replica draws while nobody asks.
    """
    began = _clocks()
    sampler, why = _start(folder, pids, period_s, meter, avoid_cpus)
    idle_ns = _idle(sampler, meter) if pids or meter is not None else None
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # a run without telemetry is a run; the reason is in its columns
            why = _stop(sampler) or why
            _convert(folder, period_s, idle_ns, meter, began, why)


def salvage(folder: Path, period_s: float, why: str) -> None:
    """telemetry.parquet of a cell whose recording was killed, from the sampler's spool, where there is one. Readings of meters that are joined by wall clock are not in it."""
    if (folder / SPOOL).is_file():
        _convert(folder, period_s, None, None, _clocks(), why)


def _start(
    folder: Path, pids: Sequence[int], period_s: float, meter: MeterSpec | None, avoid_cpus: Sequence[int]
) -> tuple[subprocess.Popen[bytes] | None, str | None]:
    job: dict[str, Any] = {
        "pids": list(pids),
        "parent": os.getpid(),
        "period_s": period_s,
        "avoid_cpus": list(avoid_cpus),
        "exporter": None,
    }
    if meter is not None and outside.is_exporter(meter):
        kind, scale = outside.unit(meter)
        job["exporter"] = {"url": meter.url, "metric": meter.metric, "kind": kind, "scale": scale, "labels": dict(meter.labels)}
    try:
        sampler = subprocess.Popen(
            [sys.executable, "-m", "profiler.machine.telemetry", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert sampler.stdin is not None
        sampler.stdin.write(json.dumps(job).encode() + b"\n")
        sampler.stdin.flush()
    except OSError as error:
        return None, f"the telemetry sampler did not start: {error}"
    return sampler, None


def _idle(sampler: subprocess.Popen[bytes] | None, meter: MeterSpec | None) -> tuple[int, int] | None:
    """Wait until the sampler has its first sample, and IDLE_S more if there is power to read; when that was, CLOCK_MONOTONIC ns."""
    has_energy = meter is not None
    if sampler is not None and sampler.stdout is not None and select.select([sampler.stdout], [], [], READY_S)[0]:
        with contextlib.suppress(ValueError):  # it died: an empty line
            has_energy |= bool(json.loads(sampler.stdout.readline())["energy"])
    if not has_energy:
        return None
    from_ns = time.monotonic_ns()
    time.sleep(IDLE_S)
    return from_ns, time.monotonic_ns()


def _stop(sampler: subprocess.Popen[bytes] | None) -> str | None:
    """Why there is no complete record, if so."""
    if sampler is None:
        return None
    with sampler:  # closes its pipes, of which standard input is its lifeline
        assert sampler.stdin is not None
        with contextlib.suppress(OSError):
            sampler.stdin.close()
        try:
            code = sampler.wait(END_S)
        except subprocess.TimeoutExpired:
            sampler.kill()
            return "the telemetry sampler hung (a driver that does not answer?)"
    return f"the telemetry sampler died ({code})" if code else None


def _convert(
    folder: Path, period_s: float, idle_ns: tuple[int, int] | None, meter: MeterSpec | None, began: tuple[float, float], why: str | None
) -> None:
    """The spool as telemetry.parquet; what is missing and why, the period and the idle time go into its metadata."""
    rows = list(_spooled(folder / SPOOL))
    missing: dict[str, dict[str, str]] = {}
    with contextlib.suppress(OSError, ValueError):
        missing = json.loads((folder / MISSING).read_text(encoding="utf-8"))
    if why is not None:
        missing["sampler"] = {"": why}
    if meter is not None and not outside.is_exporter(meter):
        try:
            rows += _joined(meter, began)
        except Absent as absent:
            missing["meter"] = {"": str(absent)}
    facts = {"period_s": period_s, "idle_ns": idle_ns, "missing": missing, "meter_scope": meter.scope if meter else None}
    _write(folder / NAME, folder.name, rows, facts)
    for name in (SPOOL, MISSING):
        (folder / name).unlink(missing_ok=True)


def _spooled(spool: Path) -> Iterator[tuple[int, str, str, str, float]]:
    try:
        lines = spool.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split("\t")
        if len(parts) == 5:  # a sampler that was killed leaves half a line
            yield int(parts[0]), parts[1], parts[2], parts[3], float(parts[4])


def _joined(meter: MeterSpec, began: tuple[float, float]) -> list[tuple[int, str, str, str, float]]:
    """The outside meter's readings on this machine's monotonic clock. Raises Absent."""
    monotonic_s, wall_s = began
    now = _clocks()
    step_s = (now[1] - now[0]) - (wall_s - monotonic_s)
    if abs(step_s) > MAX_STEP_S:
        raise Absent(f"meter: this machine's wall clock moved by {step_s:.3f} s during the run: its readings cannot be joined")
    offset_s = wall_s - monotonic_s
    # From well before: a meter that is read every half minute has its last reading before the run there.
    found = outside.read(meter, wall_s - 120.0, now[1])
    return [(int((t - offset_s) * 1e9), "meter", device, metric, value) for t, device, metric, value in sorted(found)]


def _clocks() -> tuple[float, float]:
    """(monotonic s, wall s) of now."""
    return time.monotonic(), time.time()


def arrow_schema() -> pa.Schema:
    """The columns of the store's table `telemetry`; this layer may not ask the store, a test compares the two."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [("run_id", text), ("t_ns", pa.int64()), ("source", text), ("device", text), ("metric", text), ("value", pa.float64())]
    )


def _write(path: Path, run_id: str, rows: Sequence[tuple[int, str, str, str, float]], facts: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema().with_metadata({"slm_profiler_telemetry": json.dumps(facts)})
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    table = pa.table([pa.array([run_id] * len(rows), pa.string()), *columns], schema=schema)
    pq.write_table(table, path, compression="zstd")

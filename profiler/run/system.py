"""What else ran on the machine while a cell was measured: a sampler in the parent process, outside the client that keeps the time.

Linux only (/proc, cgroups); elsewhere every figure is None with a reason. Once a second it reads the CPU time of the whole machine, of
the engine's processes and of our own; the figures of the window are interpolated between samples. What it costs itself is measured.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from profiler.machine import proc as processes
from profiler.units import NS_PER_S

PERIOD_S = 1.0
RESCAN = 10  # samples between looks for new processes: an engine starts its workers before it is ready
PROC, CGROUP = processes.PROC, Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class SystemUse:
    """Over the window. CPU figures are in cores: CPU time / window length. None where it could not be seen; `reasons` says why."""

    engine_cpu_cores: float | None
    ours_cpu_cores: float | None  # this program without the engine: client, parent, this sampler
    other_cpu_cores: float | None  # busy, and neither the engine nor we
    steal_cpu_cores: float | None  # taken by the hypervisor for other guests
    cores: int | None  # of the machine
    throttled_s: float | None  # that a cgroup's CPU quota held the engine or us up
    clock_resolution_s: float  # smallest step seen of the clock that stamps
    clock_source: str | None
    sampler_cpu_cores: float  # what all this cost
    samples: int
    reasons: dict[str, str]
    neighbour_cpu_cores: float | None = None  # of the backends that a co-run measures at the same time; None without any

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Sample:
    t_ns: int
    busy_s: float
    steal_s: float
    engine_s: float | None
    ours_s: float
    throttled_s: float | None
    beside_s: float = 0.0


class Sampler:
    """`with Sampler(pids) as sampler: ...` samples until the end of the block; then `over(open_ns, close_ns)`.

    `engine` is the server's process (several: its replicas), None or () for an endpoint that is not ours; `neighbours` are servers of
    ours beside it, which a co-run loads as well. `proc` and `cgroup` are for tests.
    """

    def __init__(
        self, engine: int | Sequence[int] | None, proc: Path = PROC, cgroup: Path = CGROUP, neighbours: Sequence[int] = ()
    ) -> None:
        self._leaders = frozenset((engine,) if isinstance(engine, int) else engine or ())
        self._beside_leaders, self._proc = frozenset(neighbours), proc
        self._samples: list[_Sample] = []
        self._cost_s = 0.0
        self._why: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-sampler", daemon=True)
        self._engine: set[int] = set()
        self._beside: set[int] = set()
        self._ours: set[int] = set()
        self._cpu_times = processes.CpuTimes(proc)
        self._throttle = _cpu_stats([os.getpid(), *self._leaders], proc, cgroup)
        self._clock_s = clock_resolution_s()

    def __enter__(self) -> Sampler:
        self._sample(0)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sample(0)

    def _run(self) -> None:
        number = 1
        while not self._stop.wait(PERIOD_S):
            self._sample(number % RESCAN)
            number += 1

    def _sample(self, number: int) -> None:
        if self._why is not None:
            return
        began = time.thread_time()
        try:
            if number == 0:
                known = (self._engine, self._beside, {os.getpid(), *self._ours})
                self._engine, self._beside, self._ours = processes.find(self._proc, self._leaders, self._beside_leaders, *known)
            busy, steal = processes.machine_s(self._proc / "stat")
            engine, beside = self._cpu_times.of(self._engine), self._cpu_times.of(self._beside)
            ours = self._cpu_times.of(self._ours - self._engine - self._beside)
            throttled = sum(map(_throttled_s, self._throttle)) if self._throttle else None
            owned = bool(self._leaders)
            self._samples.append(_Sample(time.monotonic_ns(), busy, steal, engine if owned else None, ours, throttled, beside))
        except (OSError, ValueError, IndexError) as error:
            self._why = f"/proc cannot be read here: {error}"
        self._cost_s += time.thread_time() - began

    def over(self, open_ns: int, close_ns: int) -> SystemUse:
        """The figures of [open, close), after the block."""
        window_s = (close_ns - open_ns) / NS_PER_S
        reasons: dict[str, str] = {}
        engine = ours = other = steal = throttled = beside = None
        if self._why is not None or len(self._samples) < 2 or window_s <= 0:
            reasons["cpu"] = self._why or "no window"
        else:
            a, b = self._at(open_ns), self._at(close_ns)
            busy, steal = (b.busy_s - a.busy_s) / window_s, (b.steal_s - a.steal_s) / window_s
            ours = (b.ours_s - a.ours_s) / window_s
            beside = (b.beside_s - a.beside_s) / window_s if self._beside_leaders else None
            if a.engine_s is not None and b.engine_s is not None:
                engine = (b.engine_s - a.engine_s) / window_s
                other = max(0.0, busy - engine - ours - (beside or 0.0))
            else:
                reasons["engine_cpu_cores"] = "the endpoint is not ours, its processes cannot be seen"
                reasons["other_cpu_cores"] = "an engine that is not ours cannot be told from other load"
            if a.throttled_s is not None and b.throttled_s is not None:
                throttled = b.throttled_s - a.throttled_s
            else:
                reasons["throttled_s"] = "no cgroup with a CPU controller is visible"
        span_s = (self._samples[-1].t_ns - self._samples[0].t_ns) / NS_PER_S if len(self._samples) > 1 else 0.0
        return SystemUse(
            engine_cpu_cores=engine,
            ours_cpu_cores=ours,
            other_cpu_cores=other,
            steal_cpu_cores=steal,
            cores=os.cpu_count(),
            throttled_s=throttled,
            clock_resolution_s=self._clock_s,
            clock_source=_text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
            sampler_cpu_cores=self._cost_s / span_s if span_s > 0 else 0.0,
            samples=len(self._samples),
            reasons=reasons,
            neighbour_cpu_cores=beside,
        )

    def _at(self, t_ns: int) -> _Sample:
        """Interpolated between the samples around `t_ns`; the nearest one beyond the ends."""
        later = next((k for k, sample in enumerate(self._samples) if sample.t_ns >= t_ns), len(self._samples) - 1)
        a, b = self._samples[max(0, later - 1)], self._samples[later]
        share = min(1.0, max(0.0, (t_ns - a.t_ns) / (b.t_ns - a.t_ns))) if b.t_ns > a.t_ns else 0.0

        def between(x: float | None, y: float | None) -> float | None:
            return None if x is None or y is None else x + share * (y - x)

        pairs = ((a.busy_s, b.busy_s), (a.steal_s, b.steal_s), (a.ours_s, b.ours_s), (a.beside_s, b.beside_s))
        busy, steal, ours, beside = (x + share * (y - x) for x, y in pairs)
        return _Sample(t_ns, busy, steal, between(a.engine_s, b.engine_s), ours, between(a.throttled_s, b.throttled_s), beside)


def clock_resolution_s(steps: int = 200) -> float:
    """The smallest step between two readings of CLOCK_MONOTONIC that differ, s: a read's own cost, or the tick of a coarse clock."""
    smallest = NS_PER_S
    for _ in range(steps):
        before = now = time.monotonic_ns()
        while now == before:
            now = time.monotonic_ns()
        smallest = min(smallest, now - before)
    return smallest / NS_PER_S


def _cpu_stats(pids: Sequence[int], proc: Path, cgroup: Path) -> list[Path]:
    """The cpu.stat of every cgroup above these processes that tells of throttling: a quota holds where it is set, up to the root."""
    found: dict[Path, None] = {}
    for pid in pids:
        for line in (_text(proc / str(pid) / "cgroup") or "").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                roots = [cgroup, cgroup / "unified"]
            elif "cpu" in controllers.split(","):
                roots = [cgroup / controllers, cgroup / "cpu"]
            else:
                continue
            for root in roots:
                folder = root / path.lstrip("/")
                while folder == root or root in folder.parents:
                    if "nr_throttled" in (_text(folder / "cpu.stat") or ""):
                        found[(folder / "cpu.stat").resolve()] = None
                    folder = folder.parent
    return list(found)


def _throttled_s(cpu_stat: Path) -> float:
    """`throttled_usec` of cgroup v2 or `throttled_time` (ns) of v1."""
    for line in cpu_stat.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(" ")
        if name == "throttled_usec":
            return int(value) / 1e6
        if name == "throttled_time":
            return int(value) / 1e9
    return 0.0


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None

"""CPU time, frequency and memory: of the machine, of each NUMA node, of the engine's process tree and of our own. From /proc and /sys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from profiler.machine import proc
from profiler.machine.telemetry.source import Absent, Reading, Watched

SLOW = 4  # frequencies and a node's memory are read at every fourth sample: a file per core


class Cpu:
    """Devices `machine`, `nodeN`, `engine`, `profiler`; `cpu_s` are running totals. Linux only; raises Absent elsewhere."""

    name = "cpu"

    def __init__(self, watched: Callable[[], Watched], root: Path = Path("/")) -> None:
        self._proc, self._watched = root / "proc", watched
        self.missing: dict[str, str] = {}
        if not (self._proc / "stat").is_file():
            raise Absent("CPU: no /proc/stat: Linux only")
        self._times = proc.CpuTimes(self._proc)
        nodes = sorted((root / "sys/devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:]))
        self._nodes = {path.name: (_cpus(path / "cpulist"), path / "meminfo") for path in nodes}
        listed = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._frequencies = {int(path.parent.parent.name[3:]): path for path in listed}
        if not self._frequencies:
            self.missing["frequency_mhz"] = "CPU: no cpufreq in /sys: usual in virtual machines"
        if not self._nodes:
            self.missing["node"] = "CPU: the kernel shows no NUMA nodes"
        self._count = 0

    def sample(self, t_ns: int) -> Iterable[Reading]:
        lines = self._proc.joinpath("stat").read_text(encoding="utf-8").split("\n")
        yield "machine", "cpu_s", proc.busy_s(lines[0])[0]
        if len(self._nodes) > 1:
            busy = {int(line[3 : line.index(" ")]): proc.busy_s(line)[0] for line in lines if line.startswith("cpu") and line[3].isdigit()}
            for node, (cpus, _) in self._nodes.items():
                yield node, "cpu_s", sum(busy.get(cpu, 0.0) for cpu in cpus)
        watched = self._watched()
        trees = {"engine": watched.engine, "profiler": watched.ours - watched.engine}
        for device, pids in trees.items():
            if pids:
                yield device, "cpu_s", self._times.of(pids)
                yield device, "resident_bytes", float(proc.resident_bytes(self._proc, pids))
        if self._count % SLOW == 0:
            yield from self._slow()
        self._count += 1

    def _slow(self) -> Iterable[Reading]:
        used = _memory(self._proc / "meminfo", "MemTotal", "MemAvailable")
        if used is not None:
            yield "machine", "memory_used_bytes", used
        now = {cpu: float(text) / 1e3 for cpu, path in self._frequencies.items() if (text := _read(path))}
        if now:
            yield "machine", "frequency_mhz", sum(now.values()) / len(now)
        for node, (cpus, meminfo) in self._nodes.items():
            own = [now[cpu] for cpu in cpus if cpu in now]
            if own and len(self._nodes) > 1:
                yield node, "frequency_mhz", sum(own) / len(own)
            used = _memory(meminfo, "MemTotal", "MemFree")
            if used is not None and len(self._nodes) > 1:
                yield node, "memory_used_bytes", used

    def close(self) -> None:
        pass


def _memory(path: Path, whole: str, free: str) -> float | None:
    """The difference of two lines of a meminfo, bytes. A node's lines begin with `Node 0 `."""
    found: dict[str, int] = {}
    for line in (_read(path) or "").splitlines():
        name, _, value = line.partition(":")
        if name.split()[-1:] and name.split()[-1] in (whole, free):
            found[name.split()[-1]] = int(value.split()[0]) * 1024
    return float(found[whole] - found[free]) if len(found) == 2 else None


def _cpus(cpulist: Path) -> list[int]:
    """`0-3,8` as numbers."""
    cpus: list[int] = []
    for part in (_read(cpulist) or "").split(","):
        first, _, last = part.partition("-")
        if first:
            cpus += range(int(first), int(last or first) + 1)
    return cpus


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None

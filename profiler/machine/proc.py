"""Reading /proc: whose process is whose, and what CPU time and memory they took. Standard library only, no psutil: it costs a tenth."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

PROC = Path("/proc")


def text(path: Path) -> str:
    """A file of /proc or /sys; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def line(path: Path) -> str | None:
    """The one line of such a file; None where it is empty or cannot be read."""
    return text(path).strip() or None


def stat(folder: Path) -> list[str] | None:
    """Fields of /proc/PID/stat behind the name: state, ppid, pgrp, session, ...; None when the process has ended."""
    try:
        return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def below(roots: set[int], parents: dict[int, int]) -> set[int]:
    """`roots` and all their descendants."""
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found


def find(
    proc: Path, engine: Collection[int], neighbours: Collection[int], of_engine: set[int], of_neighbours: set[int], of_ours: set[int]
) -> tuple[set[int], set[int], set[int]]:
    """Processes of the engine, of servers beside it (each the trees, groups and sessions of its leaders) and ours (the tree below `of_ours`).

    One pass over /proc. `of_engine`, `of_neighbours`: those known before. A worker whose parent has died keeps belonging to it.
    """
    parents: dict[int, int] = {}
    own, beside = set(of_engine), set(of_neighbours)
    for entry in proc.iterdir():
        if entry.name.isdigit() and (fields := stat(entry)) is not None:
            parents[int(entry.name)] = int(fields[1])
            belongs = {int(entry.name), int(fields[2]), int(fields[3])}
            if belongs.intersection(engine):
                own.add(int(entry.name))
            elif belongs.intersection(neighbours):
                beside.add(int(entry.name))
    return below(own, parents), below(beside, parents), below(of_ours, parents)


class CpuTimes:
    """CPU time of sets of processes, s. What a process took that has ended meanwhile still counts."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._last: dict[int, float] = {}

    def of(self, pids: Iterable[int]) -> float:
        tick = os.sysconf("SC_CLK_TCK")
        total = 0.0
        for pid in pids:
            fields = stat(self._proc / str(pid))
            if fields is not None:
                # Children that were waited for are in their parent's cutime; a living one is counted itself.
                self._last[pid] = sum(map(int, fields[11:15])) / tick
            total += self._last.get(pid, 0.0)
        return total


def resident_bytes(proc: Path, pids: Iterable[int]) -> int:
    """Resident memory; pages that several share count once for each (their proportional share would cost a walk of every page table)."""
    pages = 0
    for pid in pids:
        try:
            pages += int((proc / str(pid) / "statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


def busy_s(line: str) -> tuple[float, float]:
    """Busy and stolen CPU time since the machine's start, s, of a `cpu` line of /proc/stat (proc(5): user nice system idle iowait irq …)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def machine_s(proc_stat: Path) -> tuple[float, float]:
    """`busy_s` of the whole machine."""
    return busy_s(proc_stat.read_text(encoding="utf-8").split("\n", 1)[0])

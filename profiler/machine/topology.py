"""Cores, sockets and memory nodes, as Linux shows them under /sys. `root` lets tests show another machine."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Cpu:
    """One logical CPU. CPUs of the same `node`, `socket` and `core` are siblings: they share one core."""

    node: int
    socket: int
    core: int
    number: int


def topology(root: Path = Path("/"), allowed: Collection[int] | None = None) -> tuple[Cpu, ...]:
    """The CPUs that are online and `allowed` (None: those this process may use), by node, socket, core; () where nothing can be read.

    Without /sys/devices/system/node everything is on node 0; a CPU without a topology folder counts as a core of its own.
    """
    if allowed is None:
        allowed = os.sched_getaffinity(0) if root == Path("/") and hasattr(os, "sched_getaffinity") else None
    system = root / "sys/devices/system"
    nodes = {}
    for folder in system.glob("node/node[0-9]*"):
        for number in cpu_list(_text(folder / "cpulist")):
            nodes[number] = int(folder.name.removeprefix("node"))
    online = _text(system / "cpu/online")
    numbers = cpu_list(online) if online else sorted(int(p.name[3:]) for p in system.glob("cpu/cpu[0-9]*"))
    found = []
    for number in numbers:
        if allowed is not None and number not in allowed:
            continue
        where = system / f"cpu/cpu{number}/topology"
        core, socket = _text(where / "core_id"), _text(where / "physical_package_id")
        # Some virtual machines say -1 for what they do not know.
        found.append(Cpu(nodes.get(number, 0), max(0, int(socket or 0)), int(core) if core else number, number))
    return tuple(sorted(found))


def cpu_list(text: str) -> list[int]:
    """`0-3,8` as numbers (the kernel's list format). Raises ValueError."""
    numbers: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, dash, last = part.partition("-")
        numbers += range(int(first), int(last) + 1) if dash else [int(first)]
    return numbers


def as_list(numbers: Collection[int]) -> str:
    """The kernel's list format of some numbers: `0-3,8`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in parts)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""

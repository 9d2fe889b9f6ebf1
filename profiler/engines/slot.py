"""Where the server that this thread starts may run: its cores, its memory nodes, and whether it is still wanted.

A thread of the profiler sets it around `Engine.start`, and process.py keeps to it, so that every engine is placed the same way and none
of them knows. Affinity is a thread's own on Linux and inherited by what it starts; memory nodes need `numactl`.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from profiler.errors import EngineError
from profiler.records import Slot

_slot: ContextVar[Slot | None] = ContextVar("slot", default=None)
_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


@contextmanager
def within(slot: Slot, given_up: threading.Event | None = None) -> Iterator[None]:
    """Servers started in this thread meanwhile run in `slot`; their start ends with EngineError once `given_up` is set."""
    tokens = _slot.set(slot), _given_up.set(given_up)
    try:
        yield
    finally:
        _slot.reset(tokens[0])
        _given_up.reset(tokens[1])


def prefix() -> list[str]:
    """What goes before the server's command for its memory: `numactl --membind=N`, [] without nodes or without numactl."""
    slot, program = _slot.get(), shutil.which("numactl")
    nodes = slot.memory_nodes if slot is not None else ()
    return [program, f"--membind={','.join(map(str, nodes))}"] if nodes and program else []


@contextmanager
def pinned() -> Iterator[None]:
    """This thread, and with it what it starts meanwhile, on the slot's cores. Raises EngineError where they are not to be had."""
    slot = _slot.get()
    cpus = slot.cpus if slot is not None else ()
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise EngineError(f"the cores {list(cpus)} cannot be used: {error.strerror}", hint="see placement in the backend") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def check_wanted() -> None:
    """Raises EngineError once nobody waits for this server any more."""
    given_up = _given_up.get()
    if given_up is not None and given_up.is_set():
        raise EngineError("its start was given up")


def seen(pid: int | None) -> dict[str, Any]:
    """Where a process may run, as the kernel says: `cpus`, `memory_nodes` in its list format; {} for a process that is not ours."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    named = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {"cpus": named.get("Cpus_allowed_list"), "memory_nodes": named.get("Mems_allowed_list")}


def memory_reason(slot: Slot) -> str | None:
    """Why the memory of a slot is not bound; None where it is, or nobody asked."""
    return "numactl is not installed: memory is not bound" if slot.memory_nodes and not shutil.which("numactl") else None

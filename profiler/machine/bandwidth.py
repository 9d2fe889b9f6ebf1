"""Memory bandwidth, measured once per machine and kept: decoding reads all weights for each token, so it is the figure that ranks CPUs.

A triad in the manner of STREAM (McCalpin, https://www.cs.virginia.edu/stream/ref.html: arrays of at least four times the last-level cache, best
of several passes, bytes counted without the read that a write may cause). numpy needs two passes for it (a = s*c, a = a + b), so 40 bytes move
per element, not 24; the figure is the traffic, comparable between machines measured by this program, not with published STREAM results.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from profiler import environments

BYTES_PER_ELEMENT = 40
PASSES = 5
LEAST_BYTES, MOST_BYTES = 32 << 20, 256 << 20  # of one array over all threads: above small caches, and not a burden on a shared machine
METHOD = f"numpy triad in two passes, {BYTES_PER_ELEMENT} bytes per element, best of {PASSES}"


def kept(machine_id: str, cache_bytes: int | None = None) -> dict[str, Any]:
    """The machine's figure from the cache, or measured now (about a second). None values with a reason where it cannot be."""
    path = environments.cache_root() / "bandwidth" / f"{machine_id}.json"
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["method"] == METHOD and float(known["bytes_per_s"]) > 0:
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = measure(cache_bytes)
    if found["bytes_per_s"] is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(found), encoding="utf-8")
            part.replace(path)
        except OSError:
            pass  # it is measured again next time
    return found


def measure(cache_bytes: int | None = None, threads: int | None = None) -> dict[str, Any]:
    """{"bytes_per_s", "threads", "array_bytes", "method"}; numpy frees the GIL in these loops, so threads are enough."""
    import numpy

    threads = threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    wanted = min(max(4 * (cache_bytes or 0), LEAST_BYTES), MOST_BYTES)
    elements = wanted // 8 // threads
    facts = {"bytes_per_s": None, "threads": threads, "array_bytes": elements * 8 * threads, "method": METHOD}
    try:
        arrays = [tuple(numpy.full(elements, value) for value in (1.0, 2.0, 3.0)) for _ in range(threads)]
    except MemoryError:
        return facts | {"reason": "not enough memory for the probe"}

    def triad(trio: Any) -> None:
        a, b, c = trio
        numpy.multiply(c, 3.0, out=a)
        numpy.add(a, b, out=a)

    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(PASSES):
            began = time.perf_counter()
            list(pool.map(triad, arrays))
            best = max(best, elements * threads * BYTES_PER_ELEMENT / (time.perf_counter() - began))
    return facts | {"bytes_per_s": best}


def path_of(machine_id: str) -> Path:
    """Where a machine's figure is kept; removing the file makes the next sweep measure it again."""
    return environments.cache_root() / "bandwidth" / f"{machine_id}.json"

"""Bytes of a process's large allocations, counted by glibc: weights, and the copies that kernels make of them. For scripts that run in an engine's own
environment; imports nothing of profiler.

glibc maps each allocation above MALLOC_MMAP_THRESHOLD_ by itself and counts the bytes (mallinfo2's hblkhd); a graph's small objects, Python's and
the modules that a load imports are not among them.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

THRESHOLD = "16384"  # bytes
FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")  # of struct mallinfo2


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def restart_counting() -> None:
    """Starts this script again with the threshold set, as glibc reads it only at the start."""
    if os.environ.get("MALLOC_MMAP_THRESHOLD_") != THRESHOLD:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": THRESHOLD})


def large_bytes() -> int:
    gc.collect()
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = Mallinfo2
    return int(libc.mallinfo2().hblkhd)

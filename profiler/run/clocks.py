"""Clocks of the load client: timers that fire on time, kernel receive stamps, and what ties the two clocks together.

Kernel receive stamps (SO_TIMESTAMPNS) come in CLOCK_REALTIME; everything else is CLOCK_MONOTONIC. Paired samples convert one to the
other, and show a step of the wall clock. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import time
from itertools import pairwise

SO_TIMESTAMPNS = 35  # Linux asm-generic/socket.h; Python's socket module does not name it
STAMP = struct.Struct("@qq")  # struct timespec of the control message
STAMP_SPACE = socket.CMSG_SPACE(STAMP.size)

PORTABLE = "SLM_PROFILER_PORTABLE"  # set to 1: work as on machines without timerfd and receive stamps

# adjtime may slew the wall clock by this much; more between two samples is a step (kernel: MAXFREQ, 500 ppm).
_MAX_SLEW = 500e-6


def clock_offset_ns() -> tuple[int, int]:
    """(monotonic ns, realtime - monotonic ns), from the tightest of five bracketed samples."""
    best = None
    for _ in range(5):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, wall - (before + after) // 2)
    assert best is not None
    return best[1], best[2]


def clock_step_s(samples: list[tuple[int, int]]) -> float:
    """The largest change of the offset between two samples beyond what slewing explains, s."""
    steps = [abs(o1 - o0) - _MAX_SLEW * (t1 - t0) for (t0, o0), (t1, o1) in pairwise(samples)]
    # Sampling itself is uncertain by the time between two clock reads: below 50 µs nothing was proven.
    return max((s / 1e9 for s in steps if s > 50_000), default=0.0)


def enable_kernel_stamps(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what arrives. False where it does not, or where the portable way is wished for."""
    if portable():
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def portable() -> bool:
    """Whether to do without Linux's timerfd and receive stamps: by wish, or because there are none."""
    return os.environ.get(PORTABLE) == "1" or not sys.platform.startswith("linux")


class Timer:
    """A file descriptor that becomes readable at an absolute CLOCK_MONOTONIC time.

    `epoll` time-outs are whole milliseconds, up to 1.1 ms late; a timerfd is late by tens of microseconds. Python has it from 3.13 on.
    """

    _ABSOLUTE = 1  # TFD_TIMER_ABSTIME

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = (ctypes.c_int64 * 4)()

    def set(self, at_ns: int) -> None:
        """Fire at `at_ns`; at once when that is past."""
        at_ns = max(at_ns, 1)  # zero would disarm it
        self._spec[2], self._spec[3] = divmod(at_ns, 1_000_000_000)
        self._libc.timerfd_settime(self.fd, self._ABSOLUTE, self._spec, None)

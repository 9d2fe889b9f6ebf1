"""A run over time: requests in flight and output tokens/s in equal slices, from the start of the load to the end of the window.

Times are seconds from the window's opening, so warm-up is negative. All requests count, whoever is in the cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler.records import DriveResult, RequestRecord
from profiler.units import NS_PER_S

Floats = npt.NDArray[np.float64]
GIVEN_UP = ("timeout", "stalled", "cancelled")


def edges(drive: DriveResult, in_window: int) -> Floats:
    """Borders of `in_window` equal slices of the window and of as many whole ones as fit between the start of the load and it."""
    width = (drive.window_close_ns - drive.window_open_ns) / NS_PER_S / in_window
    before = int((drive.window_open_ns - drive.started_ns) / NS_PER_S / width) if width > 0 else 0
    return np.arange(-before, in_window + 1, dtype=np.float64) * width


def in_flight(requests: Sequence[RequestRecord], drive: DriveResult, at: Floats) -> Floats:
    """Mean requests in flight in each slice: intended, not yet answered. Those that still wait to be sent count."""
    came = _from_open([r.intended_ns for r in requests], drive)
    left = left_s(requests, drive)
    # The integral of the requests in flight up to t is the time since each came, less the time since each left.
    up_to = np.array([np.clip(t - came, 0, None).sum() - np.clip(t - left, 0, None).sum() for t in at])
    return np.diff(up_to) / np.diff(at)


def left_s(requests: Sequence[RequestRecord], drive: DriveResult) -> Floats:
    """When each request left the system. What hung until it was given up stayed to the end; what was refused never entered."""

    def left(r: RequestRecord) -> int:
        if r.done_ns is not None:
            return r.done_ns
        return drive.ended_ns if r.error_kind in (None, *GIVEN_UP) else r.intended_ns

    return _from_open([left(r) for r in requests], drive)


def output_tps(requests: Sequence[RequestRecord], drive: DriveResult, at: Floats) -> Floats:
    """Output tokens that arrived in each slice, per second."""
    sent = [r for r in requests if r.sent_ns is not None and r.arrival_offsets_us]
    if not sent:
        return np.zeros(len(at) - 1)
    base = _from_open([r.sent_ns for r in sent], drive)
    times = np.concatenate([start + np.asarray(r.arrival_offsets_us, dtype=np.float64) / 1e6 for start, r in zip(base, sent, strict=True)])
    tokens = np.concatenate([np.asarray(r.arrival_tokens, dtype=np.float64) for r in sent])
    return np.asarray(np.histogram(times, at, weights=tokens)[0] / np.diff(at), dtype=np.float64)


def _from_open(times_ns: Sequence[Any], drive: DriveResult) -> Floats:
    """Seconds from the window's opening: subtracted as integers, because a float holds nanoseconds of an uptime only for 100 days."""
    return np.asarray([(t - drive.window_open_ns) / NS_PER_S for t in times_ns], dtype=np.float64)

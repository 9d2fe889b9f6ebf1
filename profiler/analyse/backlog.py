"""Does the backlog of an open-loop run grow? Over capacity the queue grows with the run's length, and no percentile of a short run shows it.

Requests in flight (intended, not yet answered; those that still wait to be sent count) are averaged over time in ten equal parts of the
window. The backlog grows when a Mann-Kendall test finds an upward trend over the ten averages and the last three are clearly above the
first three. Averages over time are used because the requests in flight at neighbouring instants are nearly the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.records import DriveResult, RequestRecord

PARTS = 10
# Mann-Kendall S of ten values without a trend reaches 21 with probability 0.036 (exact), 19 with 0.054: one-sided 5 %.
CRITICAL_S = 21
# And the growth must matter: neighbouring averages are correlated, which makes small trends look surer than they are.
MIN_GROWTH_REQUESTS, MIN_GROWTH_SHARE = 1.0, 0.2

GIVEN_UP = ("timeout", "stalled", "cancelled")


@dataclass(frozen=True)
class Backlog:
    """Mean requests in flight in each tenth of the window, over its first and last three tenths, and whether they grow."""

    in_flight: tuple[float, ...]
    first: float
    last: float
    trend_s: int
    grows: bool


def backlog(requests: Sequence[RequestRecord], drive: DriveResult) -> Backlog | None:
    """The backlog in the window; None for a window without length."""
    length = (drive.window_close_ns - drive.window_open_ns) / PARTS
    if length <= 0:
        return None
    spans = [(r.intended_ns, _left_ns(r, drive)) for r in requests]
    edges = [drive.window_open_ns + part * length for part in range(PARTS + 1)]
    means = [sum(max(0.0, min(end, edges[part + 1]) - max(start, edges[part])) for start, end in spans) / length for part in range(PARTS)]
    s = mann_kendall_s(means)
    first, last = sum(means[:3]) / 3, sum(means[-3:]) / 3
    grows = s >= CRITICAL_S and last - first >= max(MIN_GROWTH_REQUESTS, MIN_GROWTH_SHARE * first)
    return Backlog(tuple(means), first, last, s, grows)


def _left_ns(request: RequestRecord, drive: DriveResult) -> int:
    """When the request left the system. What hung until it was given up stayed to the end; what was refused never entered."""
    if request.done_ns is not None:
        return request.done_ns
    return drive.ended_ns if request.error_kind in (None, *GIVEN_UP) else request.intended_ns


def mann_kendall_s(values: Sequence[float]) -> int:
    """Pairs that rise minus pairs that fall."""
    pairs = ((a, b) for i, a in enumerate(values) for b in values[i + 1 :])
    return sum((b > a) - (b < a) for a, b in pairs)

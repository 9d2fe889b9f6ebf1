"""Does the backlog of an open-loop run grow? Over capacity the queue grows with the run's length, and no percentile of a short run shows it.

The offered rate is known; so the question is whether requests leave as fast as they are offered. The shortfall (offered − left, per
second) is taken in ten equal parts of the window, and the backlog grows when its mean is above zero by a one-sided t test and requests in
flight did become more. A saturated engine answers at an even pace, so that the shortfall shows above the noise of the arrivals far sooner
than a trend of the requests in flight does: those at neighbouring instants are nearly the same ones, a queue below capacity wanders like
one above it, and a trend test on them (Mann-Kendall) called it growing in a third of the runs at 95 % of capacity. Departures of parts
that are longer than a request are nearly independent, and where they are not, a surplus follows a shortfall, which makes the test careful.
Simulated false alarms at 50 to 95 % of capacity and the power above it are in tests/analyse/test_backlog.py and docs/steady.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.analyse import series
from profiler.records import DriveResult, RequestRecord
from profiler.units import NS_PER_S

PARTS = 10
CONFIDENCE = 0.95  # that a load the engine can carry is not called growing
# A load that starts from an empty engine fills it up at first, so the test is set to half of the 5 % and what filling adds stays inside.
T_CRITICAL = 2.262  # Student's t, 9 degrees of freedom, 97.5 %


@dataclass(frozen=True)
class Backlog:
    """Mean requests in flight in each tenth of the window and over its first and last three; how fast they grow, requests/s."""

    in_flight: tuple[float, ...]
    first: float
    last: float
    growth: float
    growth_lo: float  # two-sided 95 % bounds of the growth
    growth_hi: float
    grows: bool


def backlog(requests: Sequence[RequestRecord], drive: DriveResult, rate: float) -> Backlog | None:
    """The backlog in the window under a constant mean rate of `rate` requests/s; None for a window without length."""
    length_s = (drive.window_close_ns - drive.window_open_ns) / NS_PER_S
    if length_s <= 0:
        return None
    at = np.linspace(0, length_s, PARTS + 1)
    in_flight = series.in_flight(requests, drive, at)
    came = np.array([(r.intended_ns - drive.window_open_ns) / NS_PER_S for r in requests])
    left = series.left_s(requests, drive)
    part_s = length_s / PARTS
    shortfall = rate - np.histogram(left, at)[0] / part_s
    growth = float(shortfall.mean())
    # Counts are whole: parts that happen to hold equally many still are uncertain by half a request.
    half = T_CRITICAL * max(float(shortfall.std(ddof=1)), 0.5 / part_s) / math.sqrt(PARTS)
    more = int(np.count_nonzero((came >= 0) & (came < length_s))) - int(np.count_nonzero((left >= 0) & (left < length_s)))
    first, last = float(in_flight[:3].mean()), float(in_flight[-3:].mean())
    grows = growth - half > 0 and more >= 1 and last > first
    return Backlog(tuple(float(x) for x in in_flight), first, last, growth, growth - half, growth + half, grows)


def is_constant(arrivals: str) -> bool:
    """Whether the mean rate stays the same. A trace, a ramp or a step changes its load by design, and nothing is judged by that."""
    return not arrivals.startswith(("trace", "ramp", "step"))

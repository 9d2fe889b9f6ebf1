"""Where simulated requests just keep a target: the highest load, or the longest steps, by replays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from profiler.analyse.qos import QosTarget
from profiler.analyse.replicas import Served

LEFT_OUT = 0.1  # of the requests, at the beginning: a fleet that starts empty is faster than one that runs
CLOSE = 0.01  # how near, relative, the edge is found: below the chance of a replay's arrivals
STEEPEST = 3.0  # probits from what is allowed beyond which a share says only on which side it lies
BARELY = 1e-6  # probits: where a share is all but what is allowed, the count says on which side it lies
INSIDE = 0.05  # of the bracket: no nearer to its ends is tried


def keeps(target: QosTarget, served: Sequence[Served]) -> bool:
    """Whether the simulated requests keep the target: the shares as they are, no bound."""
    return excess(target, served) <= 0


def excess(target: QosTarget, served: Sequence[Served]) -> float:
    """By how many probits the share that misses is above what is allowed, of the worst constraint; 0 and less keeps it.

    Of a queue that is nearly straight against the log of the load (profiler.analyse.crossing), so that few replays find where it crosses.
    """
    from scipy.special import ndtri

    counted = served[int(len(served) * LEFT_OUT) :]
    n, worst = len(counted), -STEEPEST
    for c in target.constraints:
        misses = sum(not c.met_by(r) for r in counted)
        z = float(ndtri((misses + 0.5) / (n + 1)) - ndtri(max(c.allowed_misses, 0.5 / (n + 1))))
        worst = max(worst, min(z, -BARELY) if misses <= c.allowed_misses * n else max(z, BARELY))
    return min(worst, STEEPEST)


def highest(excess_at: Callable[[float], float], start: float, least: float, most: float, stride: float) -> float:
    """The highest x from `least` to `most` that keeps the target, to CLOSE; `least` where that does not, `most` where that does.

    From `start` in steps of `stride` until it lies between two, then by false position in its Illinois form, which halves the weight of an end
    that stays (Dowell and Jarratt, BIT 11, 1971), on log x.
    """
    x, at_x = start, excess_at(start)
    kept = at_x <= 0
    while True:
        beyond = min(x * stride, most) if kept else max(x / stride, least)
        if beyond == x:
            return x
        at_beyond = excess_at(beyond)
        if (at_beyond <= 0) != kept:
            break
        x, at_x = beyond, at_beyond
    (a, at_a), (b, at_b) = sorted([(math.log(x), at_x), (math.log(beyond), at_beyond)])
    last = 0
    while b - a > CLOSE:
        margin = INSIDE * (b - a)
        x = min(max(b - at_b * (b - a) / (at_b - at_a), a + margin), b - margin)
        at_x = excess_at(math.exp(x))
        if at_x <= 0:
            a, at_a, at_b, last = x, at_x, at_b / 2 if last < 0 else at_b, -1
        else:
            b, at_b, at_a, last = x, at_x, at_a / 2 if last > 0 else at_a, 1
    return math.exp(a)

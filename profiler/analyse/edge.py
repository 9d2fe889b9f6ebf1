"""Where simulated requests just keep a target: the highest load, or the longest steps, by replays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from profiler.analyse.qos import QosTarget
from profiler.analyse.replicas import Served

LEFT_OUT = 0.1  # of the requests, at the beginning: a fleet that starts empty is faster than one that runs
CLOSE = 0.003  # how near, relative, the edge is found: well below the chance of a replay's arrivals
STEEPEST = 3.0  # probits from what is allowed beyond which a share says only on which side it lies
LEAST = 1e-6  # the same: the counts say on which side it lies, also where it is all but there
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
        worst = max(worst, min(z, -LEAST) if misses <= c.allowed_misses * n else max(z, LEAST))
    return min(worst, STEEPEST)


def highest(excess_at: Callable[[float], float], low: float, high: float) -> float:
    """The highest x that keeps the target, from above `low` to below `high`, to CLOSE; `low` where it does not, `high` where that does.

    The rule of false position in its Illinois form, which halves the weight of an end that stays (Dowell and Jarratt, BIT 11, 1971), on log x.
    """
    a, b, at_a, at_b = math.log(low), math.log(high), excess_at(low), excess_at(high)
    if at_a > 0 or at_b <= 0:
        return low if at_a > 0 else high
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

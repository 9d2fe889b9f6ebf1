"""How far N replicas behind one router go, predicted from what one of them carries. Class `predicted`: nothing was measured together.

One replica's step times, scaled until they carry the lower end of its λ* and no more (and so for the upper end), are replayed N times behind the
routing. N replicas carry more than N times λ*: a router that takes turns makes arrivals more even. How much more is the mean over SEEDS draws of
the arrivals, and the interval is wider by what they leave open. Replicas are taken for independent: cores, memory bandwidth and caches that they
share are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from profiler.analyse.capacity import Range, carrying, highest_rate, sample_of
from profiler.analyse.law import Law
from profiler.analyse.percentiles import ALPHA
from profiler.analyse.qos import QosTarget
from profiler.analyse.replicas import Routing

PER_REPLICA = 600  # requests of a replay for each replica, in each of SEEDS draws: one alone moves the limit of two by 5 % (one sigma)
SEEDS = 8
OPEN = 1.25  # where λ* has no upper end: how much more than its lower end is allowed for


@dataclass(frozen=True)
class FleetLimit:
    """λ* of `replicas` together lies in [`lower`, `upper`], requests/s. `shared`: what the prediction leaves out, in words."""

    replicas: int
    routing: Routing
    lower: float
    upper: float
    notes: tuple[str, ...]


def fleet_limit(
    one: Range, lengths: Sequence[tuple[int, int]], target: QosTarget, replicas: int, routing: Routing = "round-robin"
) -> FleetLimit | str:
    """From the λ* of one replica; a text says why there is none."""
    if one.law is None or not lengths:
        return f"λ* of {replicas} replicas: no step times could be fitted"
    notes = ["independent replicas: what they share of cores, memory bandwidth and caches is not predicted"]
    upper = one.upper
    if upper is None:
        upper = one.lower * OPEN
        notes.append(f"λ* of one has no upper end: {OPEN - 1:.0%} above its lower end was taken")
    low = _together(one.law, one.lower, lengths, target, replicas, routing)
    high = _together(one.law, upper, lengths, target, replicas, routing)
    if low is None or high is None:
        return f"λ* of {replicas} replicas: the replay keeps the target at no rate"
    return FleetLimit(replicas, routing, low[0], max(low[0], high[1]), tuple(notes))


def _together(
    law: Law, rate: float, lengths: Sequence[tuple[int, int]], target: QosTarget, replicas: int, routing: Routing
) -> tuple[float, float] | None:
    """What `replicas` carry, 1/s, where one of them carries `rate`: the mean over the draws, less and more what 95 % of such means lie apart."""
    from scipy.special import stdtrit

    logs = []
    for seed in range(1, SEEDS + 1):
        own = law.slower(carrying(law, rate, sample_of(lengths, PER_REPLICA), target, seed))
        carried = highest_rate(own, sample_of(lengths, PER_REPLICA * replicas), target, replicas, routing, seed)
        if carried <= 0:
            return None
        logs.append(math.log(carried))
    apart = float(stdtrit(SEEDS - 1, 1 - ALPHA / 2)) * stdev(logs) / math.sqrt(SEEDS)
    return math.exp(mean(logs) - apart), math.exp(mean(logs) + apart)

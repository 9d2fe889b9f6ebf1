"""How far N replicas behind one router go, predicted from what one of them carries. Class `predicted`: nothing was measured together.

One replica's step times, scaled until they carry the lower end of its λ* and no more (and so for the upper end), are replayed N times behind the
routing. N replicas carry more than N times λ*: a router that takes turns makes arrivals more even. They are taken for independent: cores, memory
bandwidth and caches that they share are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.analyse.capacity import SEED, Range, keeps, measured_range
from profiler.analyse.demand import Demand
from profiler.analyse.law import Law
from profiler.analyse.qos import QosTarget
from profiler.analyse.replicas import Routing, replay

PER_REPLICA = 600  # requests of a replay for each replica: as many as one replica's own limit is found with
HALVINGS = 9
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
    fast = measured_range(upper, None, one.law, lengths, target).law
    assert fast is not None
    low = highest(one.law, lengths, target, replicas, routing)
    high = highest(fast, lengths, target, replicas, routing)
    if low <= 0:
        return f"λ* of {replicas} replicas: the replay keeps the target at no rate"
    return FleetLimit(replicas, routing, low, max(low, high), tuple(notes))


def highest(law: Law, lengths: Sequence[tuple[int, int]], target: QosTarget, replicas: int, routing: Routing) -> float:
    """The highest Poisson rate that `replicas` of `law` carry within the target, 1/s; 0 when they keep it at no rate."""
    n = PER_REPLICA * replicas
    sample = [lengths[k % len(lengths)] for k in range(n)]
    isl, osl = (sum(pair[i] for pair in sample) / n for i in (0, 1))
    unit = Demand("", rate=1.0).arrivals(n, SEED)

    def kept(rate: float) -> bool:
        return keeps(target, replay([t / rate for t in unit], sample, law, replicas, routing, SEED))

    high = replicas * law.throughput(isl, osl)
    low = high * 1e-3
    if not kept(low):
        return 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low

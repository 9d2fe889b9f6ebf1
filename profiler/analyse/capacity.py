"""How many replicas a demand needs: its arrivals replayed over N replicas whose steps are those of the lower bound of λ*.

Never demand / throughput alone: arrivals come in bursts, a router does not see everything, and a queue has a tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.analyse.demand import Demand
from profiler.analyse.edge import LEFT_OUT, excess, highest, keeps
from profiler.analyse.law import Law
from profiler.analyse.limit import Provenance
from profiler.analyse.qos import QosTarget
from profiler.analyse.replicas import Routing, Served, replay

# Of a replay, and at least PER_REPLICA for each replica. The chance of 600 arrivals moves the limit of one by 3 % (one sigma).
REQUESTS = 600
PER_REPLICA = 60
USUAL = 0.7  # of the throughput of full slots: where λ* often lies
LEAST = 1e-3  # of the throughput of full slots: whoever does not keep the target there keeps it at no rate
MOST = 300  # replicas that are replayed
SEED = 1
FURTHEST = 5.0  # how many times longer or shorter steps may be made to carry what was measured
SLOWEST = 4.0  # times: a law slowed by more no longer has to do with what was fitted
UNKNOWN_ERROR = 0.25  # of a law that was fitted to fewer than three runs, where none can be left out


@dataclass(frozen=True)
class Range:
    """λ* of one replica, 1/s: between `lower` and `upper` (None: open). `law` keeps the target up to `lower` and no further."""

    lower: float
    upper: float | None
    provenance: Provenance
    law: Law | None
    note: str


@dataclass(frozen=True)
class Capacity:
    """`replicas` keep the target at the demand's peak (without `spares`); `fewest` would if λ* were at its upper end.

    `hours`: in each hour of the day, where replicas come and go with the demand; `mean_replicas` over them. Latencies are those of the replay.
    """

    replicas: int
    fewest: int
    spares: int
    mean_replicas: float
    ttft_p95_s: float | None
    tpot_p95_s: float | None
    idle_share: float
    waits: float | None  # Erlang C: share of requests that would wait, taking each replica for one server
    ready_s: float | None
    provenance: Provenance
    notes: tuple[str, ...]
    hours: tuple[int, ...] = ()  # empty: the same all day


def erlang_c(servers: int, load: float) -> float:
    """Share of arrivals that wait in M/M/c at `load` = arrival rate x mean service time (Erlang, 1917); 1 at or above `servers`."""
    if load >= servers:
        return 1.0
    blocked = 1.0  # Erlang B by its recursion, which does not overflow
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def predicted_limit(law: Law, lengths: Sequence[tuple[int, int]], target: QosTarget) -> float:
    """The highest Poisson rate that one replica of `law` carries within the target, 1/s; 0 when it keeps it at no rate."""
    return highest_rate(law, sample_of(lengths, REQUESTS), target)


def highest_rate(
    law: Law, lengths: Sequence[tuple[int, int]], target: QosTarget, replicas: int = 1, routing: Routing = "round-robin", seed: int = SEED
) -> float:
    """Of so many replicas, by a replay of as many requests as there are `lengths`."""
    isl, osl = (sum(pair[i] for pair in lengths) / len(lengths) for i in (0, 1))
    unit = Demand("", rate=1.0).arrivals(len(lengths), seed)
    most = replicas * law.throughput(isl, osl)
    least = most * LEAST

    def excess_at(rate: float) -> float:
        return excess(target, replay([t / rate for t in unit], lengths, law, replicas, routing, seed))

    return highest(excess_at, most * USUAL, least, most, 1.5) if excess_at(least) <= 0 else 0.0


def predicted_range(law: Law, lengths: Sequence[tuple[int, int]], target: QosTarget, fails_at: float | None = None) -> Range | None:
    """λ* by the law, with its steps longer and shorter by its error. None when it carries no rate. A measured failure bounds it.

    None, too, where the law carries the rate that was measured to fail however much it is slowed: it does not know what failed there.
    """
    error = law.error if law.error is not None else UNKNOWN_ERROR
    note = f"by the fitted step times, ± {error:.0%}"
    factor = 1 + error
    lower = predicted_limit(law.slower(factor), lengths, target)
    while fails_at is not None and lower >= fails_at and factor < SLOWEST:
        factor *= 1.15
        lower = predicted_limit(law.slower(factor), lengths, target)
        note = f"by the fitted step times, slowed {factor:.2f} times until they fail where the measured run did ({fails_at:g}/s)"
    if lower <= 0 or (fails_at is not None and lower >= fails_at):
        return None
    upper = predicted_limit(law.slower(1 / (1 + error)), lengths, target)
    upper = min(upper, fails_at) if fails_at is not None else upper
    return Range(lower, max(upper, lower), "predicted", law.slower(factor), note)


def measured_range(lower: float, upper: float | None, law: Law | None, lengths: Sequence[tuple[int, int]], target: QosTarget) -> Range:
    """λ* as measured; the law is slowed (or hastened) until it just keeps the target at the measured lower bound."""
    if law is None:
        return Range(lower, upper, "measured", None, "too few answers to fit step times: replicas by λ* alone")
    factor = carrying(law, lower, sample_of(lengths, REQUESTS), target)
    note = f"fitted steps × {factor:.2f} carry what was measured"
    return Range(lower, upper, "measured", law.slower(factor), note)


def carrying(law: Law, rate: float, lengths: Sequence[tuple[int, int]], target: QosTarget, seed: int = SEED) -> float:
    """How many times as long the steps of `law` may be for one replica to keep the target at `rate`, from 1 / FURTHEST to FURTHEST."""
    arrivals = [t / rate for t in Demand("", rate=1.0).arrivals(len(lengths), seed)]
    return highest(lambda factor: excess(target, replay(arrivals, lengths, law.slower(factor), 1)), 1.0, 1 / FURTHEST, FURTHEST, 1.3)


def capacity(
    demand: Demand,
    limit: Range,
    lengths: Sequence[tuple[int, int]],
    target: QosTarget,
    routing: Routing = "round-robin",
    spares: int = 0,
    ready_s: float | None = None,
    autoscale: bool = False,
    saturation: float | None = None,
) -> Capacity | str:
    """Replicas for a demand whose rate is known; a text says why there is no answer. `saturation`: requests/s of one saturated replica."""
    assert demand.rate is not None
    least = math.ceil(demand.rate * demand.peak / limit.lower - 1e-9)
    if least > MOST:
        return f"at least {least:,} replicas (peak / λ*): beyond the {MOST} that are replayed; plan it as several fleets"
    notes = []
    replicas, served = _fewest(demand, limit, lengths, target, routing, max(1, least))
    if replicas is None:
        return f"even {_most(max(1, least))} replicas do not keep the target for these arrivals and {routing} routing"
    if served is None:
        notes.append("not replayed: no step times could be fitted")
    if replicas > least:
        notes.append(f"the replay asks for {replicas - least} more than peak / λ*")
    hours = _over_the_day(demand, limit, lengths, target, routing, replicas) if autoscale else ()
    mean = sum(hours) / len(hours) if hours else float(replicas)
    if autoscale:
        notes.append(_cold_start(demand, ready_s))
    fewest = max(1, math.ceil(demand.rate * demand.peak / limit.upper - 1e-9)) if limit.upper else replicas
    idle = max(0.0, 1 - demand.rate / (mean * limit.lower))
    waits = erlang_c(replicas, demand.rate * demand.peak / saturation) if saturation else None
    ttft, tpot = (_p95([getattr(r, name) for r in served or ()]) for name in ("ttft_sched_s", "tpot_s"))
    return Capacity(
        replicas,
        min(fewest, replicas),
        spares,
        mean,
        ttft,
        tpot,
        idle,
        waits,
        ready_s,
        limit.provenance,
        (*notes, f"{routing} routing"),
        hours,
    )


def _fewest(
    demand: Demand, limit: Range, lengths: Sequence[tuple[int, int]], target: QosTarget, routing: Routing, least: int
) -> tuple[int | None, list[Served] | None]:
    if limit.law is None:
        return least, None
    for replicas in range(least, _most(least) + 1):
        n = max(REQUESTS, PER_REPLICA * replicas)
        sample = list(demand.trace_lengths) or sample_of(lengths, n)
        served = replay(demand.arrivals(n, SEED), sample, limit.law, replicas, routing, SEED)
        if keeps(target, served):
            return replicas, served
    return None, None


def _most(least: int) -> int:
    """Replicas that are tried, from `least` on."""
    return min(MOST, 4 * least + 8)


def _over_the_day(
    demand: Demand, limit: Range, lengths: Sequence[tuple[int, int]], target: QosTarget, routing: Routing, most: int
) -> tuple[int, ...]:
    """Replicas in each hour, with what it and the next one need: scaling up ahead of the rise."""
    assert demand.rate is not None
    if not demand.shape:
        return ()
    by_rate: dict[float, int] = {}
    for factor in set(demand.shape):
        hour = replace(demand, rate=max(demand.rate * factor, 1e-9), shape=())
        least = max(1, math.ceil((hour.rate or 0) / limit.lower - 1e-9))
        by_rate[factor] = _fewest(hour, limit, lengths, target, routing, least)[0] or most
    hours = [by_rate[factor] for factor in demand.shape]
    return tuple(max(now, hours[(h + 1) % len(hours)]) for h, now in enumerate(hours))


def _cold_start(demand: Demand, ready_s: float | None) -> str:
    if not demand.shape:
        return "autoscaling changes nothing: the demand has no daily shape"
    if ready_s is None:
        return "autoscaling: the time to ready was not measured; each hour holds what the next one needs"
    return f"autoscaling: a replica is ready after {ready_s:.1f} s; each hour holds what the next one needs"


def sample_of(lengths: Sequence[tuple[int, int]], n: int) -> list[tuple[int, int]]:
    return [lengths[k % len(lengths)] for k in range(n)]


def _p95(values: Sequence[float | None]) -> float | None:
    known = sorted(v for v in values[int(len(values) * LEFT_OUT) :] if v is not None)
    return known[max(0, math.ceil(0.95 * len(known)) - 1)] if known else None

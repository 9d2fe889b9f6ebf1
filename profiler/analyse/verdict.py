"""Does this load keep a QoS target? FITS, FAILS or UNDECIDED, with the bound that proves it and what would decide it.

Each constraint says that at most a share s of the requests may miss. With k misses among the n requests of the cohort it FITS when
the exact (Clopper-Pearson) upper bound of the miss share is at most s, and FAILS when the lower bound is above s. All constraints
must FIT, each at 95 % (intersection-union: no correction needed); any one that FAILS decides, so the m of them share the 5 % (m-th
part each). What n does not allow is UNDECIDED.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from profiler.analyse.backlog import Backlog, backlog, is_constant
from profiler.analyse.bounds import EXACT, Bounds
from profiler.analyse.floors import score
from profiler.analyse.percentiles import ALPHA, needed_for_fail, needed_for_fit, order_statistic
from profiler.analyse.qos import FLOORS, METRICS, Constraint, QosTarget, answered
from profiler.records import DriveResult, LoadKind, RequestRecord, Result, Validity
from profiler.units import format_duration


@dataclass(frozen=True)
class ConstraintVerdict:
    """One constraint. Shares are of the cohort; `observed_s` (a percentile, None where it is +∞) only for kind "percentile"."""

    text: str
    kind: str
    result: Result
    n: int
    misses: int
    allowed_share: float
    miss_share: float | None
    miss_lo: float  # at 1 - ALPHA / number of constraints (and looks): what a FAILS rests on
    miss_hi: float  # at 1 - ALPHA (/ looks): what a FITS rests on
    limit_s: float | None = None
    observed_s: float | None = None
    observed_lo_s: float | None = None
    observed_hi_s: float | None = None
    margin: float | None = None  # 1 - observed / limit: 0.2 means 20 % below the limit
    independent: float | None = None  # how many independent requests tell as much as the n: neighbours share queue and batch
    needed_n: int | None = None  # requests that would decide it if the misses went on at their rate
    decide: str = ""  # what would decide it, empty when decided
    observed: float | None = None  # of a floor or a makespan: tokens/s, requests/s, s
    unit: str | None = None
    score: float | None = None  # 1 and more keeps it; its bounds
    score_lo: float | None = None
    score_hi: float | None = None


@dataclass(frozen=True)
class Verdict:
    """`result` holds for `load` as stated, at `confidence`, conditional on one engine start unless `starts` says more."""

    result: Result
    reason: str
    load: str
    qos: str
    constraints: tuple[ConstraintVerdict, ...]
    confidence: float
    starts: int
    notes: tuple[str, ...]
    backlog: Backlog | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as run.json keeps it."""
        return asdict(self) | {"constraints": [asdict(c) for c in self.constraints], "notes": list(self.notes)}


def judge(
    target: QosTarget,
    requests: Sequence[RequestRecord],
    load_kind: LoadKind,
    load: float,
    drive: DriveResult,
    validity: Validity = "valid",
    arrivals: str = "poisson",
    bounds: Bounds = EXACT,
) -> Verdict:
    """The verdict of one run (one engine start) on its cohort: the requests of `requests` with in_window.

    An open-loop FITS also needs a backlog that does not grow, where the load is constant (`arrivals` as in LoadPlan). A suspect run proves
    no FITS, an invalid one proves nothing.
    """
    cohort = [request for request in requests if request.in_window]
    constraints = constraint_verdicts(target, cohort, bounds, (requests, drive))
    queue = backlog(requests, drive, load) if load_kind == "rate" and is_constant(arrivals) else None
    result, reason = _overall(constraints, queue, validity)
    notes = ["conditional on one engine start: each start counts as one, and starts differ more than requests do"]
    notes.append(
        "requests are resampled in blocks, as they come in bursts" if bounds.blocks else "requests of the run are taken as independent"
    )
    notes += together_words(target, cohort)
    if bounds.looks > 1:
        notes.append(
            f"the run might have ended at any of {bounds.looks} looks: each bound spends {bounds.level():.0%}, all of them {ALPHA:.0%}"
        )
    if queue is not None and not queue.grows and load > 0:
        notes.append(
            f"a backlog growing by up to {max(0.0, queue.growth_hi) / load:.0%} of the offered rate is not ruled out by this window"
        )
    if load_kind == "rate" and not is_constant(arrivals):
        notes.append("the load changes by design: judged whole, not by a backlog")
    if load_kind == "concurrency":
        notes.append(f"holds for {_users(load)} in lockstep: a closed loop has no queue and cannot prove a fit at a Poisson rate")
    return Verdict(result, reason, load_statement(load_kind, load, arrivals), str(target), constraints, 1 - ALPHA, 1, tuple(notes), queue)


def constraint_verdicts(
    target: QosTarget, cohort: Sequence[RequestRecord], bounds: Bounds, run: tuple[Sequence[RequestRecord], DriveResult] | None = None
) -> tuple[ConstraintVerdict, ...]:
    """Each constraint on its own, in the target's order. `run`: all its requests and its window; without them a floor is UNDECIDED."""
    of = len(target.constraints)
    return tuple(_constraint(c, cohort, of, bounds) if c.floor is None else _floor(c, cohort, of, bounds, run) for c in target.constraints)


def together_words(target: QosTarget, cohort: Sequence[RequestRecord]) -> list[str]:
    """Attainment both ways, where they can differ: each limit of its own, and all of them by the same request. The target's own way decides."""
    limits = list(dict.fromkeys(limit for c in target.constraints for limit in c.limits))
    if len(limits) < 2 or not cohort:
        return []
    n = len(cohort)
    each = ", ".join(f"{limit} {sum(answered(r) and limit.kept_by(r) for r in cohort) / n:.1%}" for limit in limits)
    joint = sum(answered(r) and all(limit.kept_by(r) for limit in limits) for r in cohort) / n
    kinds = {c.kind for c in target.constraints if c.limits}
    decides = (
        "each limit of its own"
        if kinds == {"percentile"}
        else "all of them by the same request"
        if kinds == {"joint"}
        else "as each is written"
    )
    return [f"kept by: {each}; all of them by the same request {joint:.1%}. The target asks it of {decides}"]


def _floor(
    constraint: Constraint,
    cohort: Sequence[RequestRecord],
    of: int,
    bounds: Bounds,
    run: tuple[Sequence[RequestRecord], DriveResult] | None,
) -> ConstraintVerdict:
    assert constraint.floor is not None
    unit = FLOORS.get(constraint.floor.metric, "s")
    if run is None:
        return ConstraintVerdict(
            str(constraint), constraint.kind, "UNDECIDED", len(cohort), 0, 0.0, None, 0.0, 1.0, decide="the run's end", unit=unit
        )
    level = bounds.level()
    found = score(constraint.floor, *run, level / of, level)
    result: Result = "UNDECIDED"
    if found.lo is not None and found.lo >= 1:
        result = "FITS"
    elif found.hi is not None and found.hi < 1:
        result = "FAILS"
    decide = "" if result != "UNDECIDED" else found.reason or "a longer window: it lies within the bounds of the rate"
    short = result == "FAILS"
    return ConstraintVerdict(
        str(constraint), constraint.kind, result, len(cohort), len(cohort) if short else 0, 0.0, 1.0 if short else 0.0,
        1.0 if short else 0.0, 0.0 if result == "FITS" else 1.0, decide=decide, observed=found.observed, unit=unit,
        score=found.score, score_lo=found.lo, score_hi=found.hi, margin=found.score - 1 if found.score is not None else None,
    )  # fmt: skip


def load_statement(load_kind: LoadKind, load: float, arrivals: str = "poisson") -> str:
    """`8 concurrent users, closed loop` or `2 requests/s, open loop (Poisson)`."""
    how = arrivals.replace("poisson", "Poisson")
    return f"{load:g} concurrent users, closed loop" if load_kind == "concurrency" else f"{load:g} requests/s, open loop ({how})"


def _constraint(constraint: Constraint, cohort: Sequence[RequestRecord], of: int, bounds: Bounds) -> ConstraintVerdict:
    n, allowed = len(cohort), constraint.allowed_misses
    missed = [not constraint.met_by(request) for request in cohort]
    misses = sum(missed)
    lower, upper = bounds.share(missed, ALPHA / of, ALPHA)
    result: Result = "UNDECIDED"
    if n and (upper < allowed if constraint.strict else upper <= allowed):
        result = "FITS"
    elif n and lower > allowed:
        result = "FAILS"
    needed, decide = (None, "") if result != "UNDECIDED" else _what_decides(misses, n, allowed, of, bounds)
    return ConstraintVerdict(
        text=str(constraint),
        kind=constraint.kind,
        result=result,
        n=n,
        misses=misses,
        allowed_share=allowed,
        miss_share=misses / n if n else None,
        miss_lo=lower,
        miss_hi=upper,
        independent=_independent(constraint, cohort, missed) if n else None,
        needed_n=needed,
        decide=decide,
        **_observed(constraint, cohort, of, bounds),
    )


def _independent(constraint: Constraint, cohort: Sequence[RequestRecord], missed: Sequence[bool]) -> float:
    """Of the latencies rather than of the misses: they show what a queue remembers where nothing has missed yet."""
    from profiler.analyse.bootstrap import memory

    series: list[list[float]] = [[float(miss) for miss in missed]]
    for limit in constraint.limits:
        values = (limit.value(r) if answered(r) else math.inf for r in cohort)
        series.append([math.inf if value is None else value for value in values])
    return min(memory(values).independent for values in series)


def _observed(constraint: Constraint, cohort: Sequence[RequestRecord], of: int, bounds: Bounds) -> dict[str, Any]:
    """The percentile that a limit is put on, with the bounds that match those of the shares."""
    if constraint.kind != "percentile":
        return {}
    limit = constraint.limits[0]
    vacuous = METRICS[limit.metric][2]
    values = [(limit.value(r) if answered(r) else math.inf) for r in cohort]
    known = [math.inf if value is None else value for value in values if value is not None or not vacuous]
    observed = order_statistic(known, constraint.share)
    lo, hi = bounds.quantile(known, constraint.share, ALPHA / of, ALPHA)
    margin = 1 - observed / limit.limit_s if observed is not None and math.isfinite(observed) else None
    return {
        "limit_s": limit.limit_s,
        "observed_s": _finite(observed),
        "observed_lo_s": _finite(lo),
        "observed_hi_s": _finite(hi),
        "margin": margin,
    }


def _what_decides(misses: int, n: int, allowed: float, of: int, bounds: Bounds) -> tuple[int | None, str]:
    """How many requests in all, and in words, if misses go on at their present rate."""
    share = misses / n if n else 0.0
    alpha = bounds.level()
    needed = needed_for_fit(allowed, share, n + 1, alpha) if share < allowed else needed_for_fail(allowed, share, n + 1, alpha / of)
    if needed is None:
        return None, f"{_percent(share)} of requests miss where {_percent(allowed)} may: too close to the limit for any affordable number"
    towards = "FITS" if share < allowed else "FAILS"
    while_ = "none misses" if misses == 0 else f"{_percent(share)} go on to miss"
    return needed, f"about {needed - n} more requests ({needed} in all) prove {towards} if {while_}"


def _overall(constraints: Sequence[ConstraintVerdict], queue: Backlog | None, validity: Validity) -> tuple[Result, str]:
    if validity == "invalid":
        return "UNDECIDED", "the run is invalid and not ranked"
    failing = [c for c in constraints if c.result == "FAILS"]
    if failing:
        caveat = " (the run is suspect: see its validity)" if validity == "suspect" else ""
        return "FAILS", "; ".join(_failure(c) for c in failing) + caveat
    open_ = [c for c in constraints if c.result == "UNDECIDED"]
    if open_:
        return "UNDECIDED", "; ".join(f"{c.text}: {c.decide}" for c in open_)
    if queue is not None and queue.grows:
        first, last = f"{queue.first:.1f}", f"{queue.last:.1f}"
        return (
            "UNDECIDED",
            f"limits are kept, but the backlog grows: {first} requests in flight early in the window, {last} late; a longer run decides",
        )
    if validity == "suspect":
        return "UNDECIDED", "limits are kept, but a suspect run never proves FITS"
    n = constraints[0].n if constraints else 0
    return (
        "FITS",
        f"every limit is kept with {1 - ALPHA:.0%} confidence (n {n}, {max((c.misses for c in constraints), default=0)} misses at most)",
    )


def _failure(c: ConstraintVerdict) -> str:
    if c.score is not None:
        seen = f"{format_duration(c.observed)}" if c.unit == "s" else f"{c.observed or 0:.4g} {c.unit}"
        return f"{c.text}: {seen if c.observed is not None else 'the job did not end'}, {c.score:.0%} of what is asked (at most {c.score_hi or 0:.0%})"
    seen = f"{format_duration(c.observed_s)}, " if c.observed_s is not None else ""
    return f"{c.text}: {seen}{c.misses} of {c.n} miss where {_percent(c.allowed_share)} may (proven above {_percent(c.miss_lo)})"


def _users(load: float) -> str:
    return f"{load:g} user{'' if load == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

"""The rules by which a run may end early: its percentiles are known well enough, its QoS target is decided, or both were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from profiler.analyse import qos
from profiler.analyse.bounds import EXACT, Bounds
from profiler.analyse.latency import latency_of
from profiler.analyse.percentiles import ALPHA, needed_for_fit, order_statistic, share_lower, share_upper
from profiler.analyse.verdict import constraint_verdicts
from profiler.plan import Cell
from profiler.records import PLAIN, RequestRecord
from profiler.run.enough import LOOKS, Rule

# What has to be precise: column's metric, how a request has it, whether a request without it is left out.
_METRICS: tuple[tuple[str, Callable[[RequestRecord], float | None], bool], ...] = (
    ("ttft_sched", lambda r: r.ttft_sched_s, False),
    ("tpot", lambda r: r.tpot_s, True),
)
_PERCENTILES = (0.5, 0.95)
SCREEN_ALPHA, SCREEN_CLEAN = 0.2, 24
AT_LOOKS = Bounds(looks=LOOKS)


def rule_of(cell: Cell) -> Rule | None:
    """The cell's rule; None for a fixed cohort, and for a load that must be measured whole (a trace replay, a ramp)."""
    spec = cell.sweep
    if spec.until == "screened" and cell.qos:
        screened = qos.parse(cell.qos)
        return Rule(spec.requests, lambda cohort: PLAIN if plain(screened, cohort) else None)
    target = qos.parse(cell.qos) if cell.qos and spec.until == "decided" else None
    if (target is None and spec.precision is None) or not may_end_early(cell):
        return None
    first = spec.requests
    if target is not None:
        # Before this many not even a cohort without a miss decides: a look would only cost.
        strictest = min((c.allowed_misses for c in target.constraints if c.floor is None), default=None)
        if strictest is None:
            return None  # a floor alone is about the whole run
        first = max(first, needed_for_fit(strictest, alpha=AT_LOOKS.level()) or first)

    def decide(cohort: Sequence[RequestRecord]) -> str | None:
        reasons = []
        if target is not None:
            if not decided(target, cohort):
                return None
            reasons.append("target decided")
        if spec.precision is not None:
            if not precise(cohort, spec.precision):
                return None
            reasons.append("precise enough")
        return " and ".join(reasons)

    return Rule(first, decide)


def plain(target: qos.QosTarget, cohort: Sequence[RequestRecord]) -> bool:
    """Whether a probe points one way: a constraint fails at SCREEN_ALPHA, or none has missed in as many requests as would seldom be luck.

    Proves nothing and is not used to: it only says where a search looks next.
    """
    verdicts = constraint_verdicts(target, cohort, Bounds())
    if any(share_lower(c.misses, c.n, SCREEN_ALPHA) > c.allowed_share for c in verdicts):
        return True
    return all((c.misses == 0 and c.n >= SCREEN_CLEAN) or share_upper(c.misses, c.n, SCREEN_ALPHA) <= c.allowed_share for c in verdicts)


def may_end_early(cell: Cell) -> bool:
    from profiler.analyse.backlog import is_constant

    return is_constant(cell.arrivals)


def bounds_of(cell: Cell) -> Bounds:
    """How the bounds of the cell's runs are made, known before it runs: looks are paid for whether they were needed or not."""
    if cell.arrivals.startswith("trace"):
        return Bounds(blocks=True)
    return AT_LOOKS if rule_of(cell) is not None else EXACT


def decided(target: qos.QosTarget, cohort: Sequence[RequestRecord], bounds: Bounds = AT_LOOKS) -> bool:
    """Whether every constraint FITS, or one FAILS: then the target does."""
    results = [constraint.result for constraint in constraint_verdicts(target, cohort, bounds)]
    return "FAILS" in results or "UNDECIDED" not in results


def precise(cohort: Sequence[RequestRecord], precision: float, bounds: Bounds = AT_LOOKS) -> bool:
    """Whether p50 and p95 of TTFT and TPOT are each known within ± `precision` of their value (half of the 95 % interval)."""
    for _, read, vacuous in _METRICS:
        values = [value for r in cohort if (value := latency_of(r, read, vacuous)) is not None]
        for p in _PERCENTILES:
            middle = order_statistic(values, p)
            lo, hi = bounds.quantile(values, p, ALPHA / 2, ALPHA / 2)
            # Not `>`: among failed requests every figure is +inf, and inf - inf is not narrow.
            if values and (middle is None or lo is None or hi is None or not (hi - lo) / 2 <= precision * middle):
                return False
    return True

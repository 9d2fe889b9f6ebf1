"""Runs that may end early: the looks together keep their error, the rules decide what they say, the sizes are known beforehand."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from profiler import plan
from profiler.analyse.bounds import EXACT, Bounds
from profiler.analyse.enough import AT_LOOKS, bounds_of, decided, precise, rule_of
from profiler.analyse.percentiles import order_statistic
from profiler.analyse.qos import parse
from profiler.analyse.verdict import constraint_verdicts
from profiler.errors import SpecError
from profiler.plan import Cell
from profiler.records import RequestRecord
from profiler.run.enough import LOOKS, Rule
from profiler.spec import SweepSpec, validate_spec

MakeRecord = Callable[..., RequestRecord]


def cell(kind: str = "concurrency", **keys: Any) -> Cell:
    spec = {"backends": ["null"], "isl": 8, "osl": 8, "qos": "ttft_p95<=500ms", "concurrency": [2], "rates": [5.0]} | keys
    return next(c for c in plan.make(validate_spec(spec, SweepSpec, "test")).cells if c.load_kind == kind)


def looks_of(first: int) -> tuple[int, ...]:
    rule = Rule(first, lambda _: None)
    return (*rule.sizes, rule.most)


def error_shares(make_record: MakeRecord, miss_share: float, bounds: Bounds, wrong: str, runs: int = 300) -> float:
    """How often a run at `miss_share` is called `wrong` at one of its looks."""
    draw = random.Random(4)
    target, fast, slow = parse("ttft_p95<=500ms"), make_record(1), make_record(2, ttft_ms=900)
    errors = 0
    for _ in range(runs):
        cohort = [slow if draw.random() < miss_share else fast for _ in range(looks_of(90)[-1])]
        for size in looks_of(90):
            (constraint,) = constraint_verdicts(target, cohort[:size], bounds)
            if constraint.result != "UNDECIDED":
                errors += constraint.result == wrong
                break
    return errors / runs


@pytest.mark.parametrize("wrong", ["FITS", "FAILS"])
def test_all_looks_together_err_at_most_once_in_twenty(make_record: MakeRecord, wrong: str) -> None:
    # 5 % miss where just under 5 % may: FITS is wrong. And where 5 % may, FAILS is.
    assert error_shares(make_record, 0.05, AT_LOOKS, wrong) <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_looking_often_at_the_level_of_one_look_would_err_more(make_record: MakeRecord) -> None:
    once = error_shares(make_record, 0.05, EXACT, "FITS")
    assert once > error_shares(make_record, 0.05, AT_LOOKS, "FITS") and once > 0.06


def test_the_interval_of_a_run_that_stopped_when_it_was_narrow_holds(make_record: MakeRecord) -> None:
    """Stopping on a narrow interval favours intervals that are too narrow; the looks pay for it."""
    draw = random.Random(9)
    missed = stopped = 0
    for _ in range(150):
        cohort = [make_record(i, ttft_sched_s=draw.lognormvariate(0, 0.4), tpot_s=0.01) for i in range(60 * 16)]
        size = next((n for n in looks_of(60) if precise(cohort[:n], 0.12)), None)
        if size is not None:
            stopped += 1
            lo, hi = AT_LOOKS.quantile([r.ttft_sched_s or 0.0 for r in cohort[:size]], 0.5, 0.025, 0.025)
            missed += lo is None or hi is None or not lo <= 1.0 <= hi  # the median of the distribution is 1
    assert stopped > 140 and missed <= 0.05 * stopped + 3 * (0.05 * 0.95 * stopped) ** 0.5


def test_precise_is_what_it_says(make_record: MakeRecord) -> None:
    draw = random.Random(2)
    cohort = [make_record(i, ttft_sched_s=draw.uniform(0.9, 1.1), tpot_s=draw.uniform(0.009, 0.011)) for i in range(400)]
    values = [r.ttft_sched_s or 0.0 for r in cohort]
    widths = []
    for p in (0.5, 0.95):
        lo, hi = AT_LOOKS.quantile(values, p, 0.025, 0.025)
        assert lo is not None and hi is not None
        widths.append((hi - lo) / 2 / (order_statistic(values, p) or 1))
    tpot = [(r.tpot_s or 0.0) * 100 for r in cohort]
    for p in (0.5, 0.95):
        lo, hi = AT_LOOKS.quantile(tpot, p, 0.025, 0.025)
        assert lo is not None and hi is not None
        widths.append((hi - lo) / 2 / (order_statistic(tpot, p) or 1))
    assert precise(cohort, max(widths) * 1.001) and not precise(cohort, max(widths) * 0.999)
    assert not precise(cohort[:60], 0.9)  # no upper bound of a p95 yet
    broken = [make_record(i, error_kind="reset", done_ns=None) for i in range(40)]
    assert not precise(cohort + broken, 0.9)  # the p95 is +inf, and so not known
    single = [make_record(i, ttft_sched_s=1.0, tpot_s=None) for i in range(400)]
    assert precise(single, 0.01)  # answers of one token have no TPOT to be known


def test_decided_needs_all_or_one_failure(make_record: MakeRecord) -> None:
    target = parse("ttft_p95<=500ms, tpot_p95<=10ms")
    fast, slow, chatty = make_record(1, tpot_s=0.005), make_record(2, ttft_ms=900, tpot_s=0.005), make_record(3)
    assert not decided(target, [fast] * 89) and decided(target, [fast] * 90)
    assert decided(target, [chatty] * 20)  # TPOT fails, whatever TTFT does
    assert not decided(target, [fast] * 85 + [slow] * 5)


def test_rules_of_a_cell() -> None:
    assert rule_of(cell()) is None and bounds_of(cell()) == EXACT
    assert rule_of(cell(until="decided", qos=None)) is None  # nothing to decide
    rule = rule_of(cell(until="decided"))
    assert rule is not None and rule.first == 90  # the first n at which no miss proves a p95 at 1 %
    assert rule.sizes == (90, 180, 360, 720) and rule.most == 1440 and len(rule.sizes) == LOOKS - 1
    assert bounds_of(cell(until="decided")).method == "order-statistic-binomial-95-of-5-looks"
    assert (both := rule_of(cell("rate", precision="5%", requests=200, until="decided"))) is not None and both.first == 200
    only = rule_of(cell(precision=0.05))
    assert only is not None and only.first == 60


def test_the_rule_says_why(make_record: MakeRecord) -> None:
    fine = [make_record(i, ttft_sched_s=1 + i / 1e4, tpot_s=0.01) for i in range(180)]
    rule = rule_of(cell(precision="10%"))
    assert rule is not None and rule.decide(fine) == "precise enough" and rule.decide(fine[:50]) is None
    both = rule_of(cell(precision="10%", until="decided", qos="ttft_p95<=2s"))
    assert both is not None and both.decide(fine) == "target decided and precise enough"


def test_what_ends_a_run_is_part_of_its_cell() -> None:
    ids = {
        cell().cell_id,
        cell(precision=0.1).cell_id,
        cell(until="decided").cell_id,
        cell(until="decided", qos="ttft_p95<=1s").cell_id,
    }
    assert len(ids) == 4
    assert cell(qos="ttft_p95<=1s").cell_id == cell().cell_id == cell(until="requests").cell_id
    assert cell(precision="10%").cell_id == cell(precision=0.1).cell_id


@pytest.mark.parametrize("precision", ["0%", "100%", "ten%", 1.5, -1])
def test_a_precision_that_is_none(precision: object) -> None:
    with pytest.raises(SpecError, match="precision"):
        cell(precision=precision)


def test_runs_of_one_start_have_prompts_of_their_own() -> None:
    spec = validate_spec({"backends": ["null"], "isl": 8, "osl": 8, "concurrency": [1, 2], "runs_per_start": 3}, SweepSpec, "test")
    made = plan.make(spec)
    (start,) = made.starts
    assert sorted(c.run for c in start.cells) == [0, 0, 1, 1, 2, 2]
    assert len({c.cell_id for c in start.cells}) == 2 and len({c.prompt_seed for c in start.cells}) == 6

"""Comparison of arms: against SciPy's Welch test, order statistics drawn by hand, and what must hold whatever the figures are."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from profiler.analyse import compare_effect as effects
from profiler.analyse.compare import EXIT_CODES, compare
from profiler.analyse.compare_arms import Arm, ArmRun
from profiler.errors import StoreError, UsageError

MACHINE = {"machine_id": "m1", "cpu_model": "A CPU"}
WORKLOAD = {"name": "chat", "version": 1, "lengths": {"kind": "fixed", "isl": 8, "osl": 8}}


def run(start: str, values: Any, *, failed: int = 0, row: dict[str, Any] | None = None, **provenance: Any) -> ArmRun:
    """A run whose TPOT and TTFT are `values`, s."""
    seen = np.array([*values, *[math.inf] * failed], dtype=float)
    columns = {
        "run_id": f"run-{start}", "start_id": start, "repeat": 0, "status": "done", "validity": "valid", "validity_reasons": [],
        "provenance_class": "measured", "model": "m", "backend": "b", "variant": "bf16", "workload": "chat", "load_kind": "concurrency", "load": 4.0,
        "arrivals": "closed", "engine_version": "1", "comparison_id": "c1", "device_source": "observed", "model_hash": "h",
        "n_cohort": len(seen), "n_errors": failed, "n_requests": len(seen) - failed, "output_tps": 1 / float(np.median(seen)) if not failed else 1.0,
    }  # fmt: skip
    facts = {"machine": MACHINE, "workload": WORKLOAD, "sweep": {"seed": 1, "endpoint_kind": "completions"}, **provenance}
    return ArmRun(columns | (row or {}), facts, {"tpot": seen, "ttft": seen})


def arm(name: str, centres: Any, *, n: int = 50, noise: float = 0.01, seed: int = 0, **more: Any) -> Arm:
    """One run per start, whose requests scatter around its centre."""
    draw = np.random.default_rng(seed)
    return Arm(name, tuple(run(f"{name}{k}", c * np.exp(draw.normal(0, noise, n)), **more) for k, c in enumerate(centres)))


figures = st.lists(st.floats(0.01, 100), min_size=2, max_size=12)


def starts(values: list[float]) -> list[effects.StartFigure]:
    return [effects.StartFigure(value, 10) for value in values]


@given(figures, figures, st.floats(0.5, 2))
@settings(deadline=None)
def test_the_decision_is_scipys_welch_test_on_logs(a: list[float], b: list[float], limit: float) -> None:
    assume(np.var(np.log(a)) > 1e-6 and np.var(np.log(b)) > 1e-6)
    found = effects.log_effect(starts(a), starts(b), limit, 0.05)
    shifted = np.log(b) - math.log(limit)
    assert found.p_above == pytest.approx(stats.ttest_ind(shifted, np.log(a), equal_var=False, alternative="greater").pvalue, abs=1e-9)
    assert found.p_below == pytest.approx(stats.ttest_ind(shifted, np.log(a), equal_var=False, alternative="less").pvalue, abs=1e-9)
    interval = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval(0.9)
    assert (found.lo, found.hi) == pytest.approx((math.exp(interval.low), math.exp(interval.high)), rel=1e-6)


@given(figures, figures)
@settings(deadline=None)
def test_swapping_the_arms_inverts_the_ratio_and_its_bounds(a: list[float], b: list[float]) -> None:
    assume(a != b)
    there, back = (effects.log_effect(starts(x), starts(y), 1.0, 0.05) for x, y in ((a, b), (b, a)))
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.lo == pytest.approx(1 / back.hi) and there.hi == pytest.approx(1 / back.lo)
    assert there.resampled_lo == pytest.approx(1 / back.resampled_hi)  # type: ignore[operator]
    assert there.p_above == pytest.approx(back.p_below, abs=1e-9)


@given(figures, figures, st.floats(0.1, 10))
@settings(deadline=None)
def test_the_unit_does_not_matter(a: list[float], b: list[float], factor: float) -> None:
    one, other = (effects.log_effect(starts([x * f for x in a]), starts([x * f for x in b]), 1.05, 0.05) for f in (1.0, factor))
    assert (one.ratio, one.p_above) == pytest.approx((other.ratio, other.p_above), rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_holm_is_between_the_p_value_and_bonferronis(p: list[float]) -> None:
    adjusted = effects.holm(p)
    assert all(x <= y <= min(1, len(p) * x) + 1e-12 for x, y in zip(p, adjusted, strict=True))
    order = sorted(range(len(p)), key=lambda k: p[k])
    assert all(adjusted[i] <= adjusted[j] for i, j in itertools.pairwise(order))
    # The step-down procedure itself, as it is defined: reject in order of p until one is above alpha / (m - i).
    for alpha in (0.01, 0.05, 0.2):
        rejected = 0
        while rejected < len(p) and p[order[rejected]] <= alpha / (len(p) - rejected):
            rejected += 1
        assert sum(x <= alpha for x in adjusted) == pytest.approx(rejected, abs=sum(abs(x - alpha) < 1e-12 for x in adjusted))


def test_a_start_varies_by_its_requests_as_brute_force_resampling_says() -> None:
    draw = np.random.default_rng(5)
    values = draw.lognormal(0, 0.3, 200)
    found = effects.percentile_figure(values, 90)
    again = np.sort(draw.choice(values, (4000, 200)), axis=1)[:, math.ceil(0.9 * 200) - 1]
    assert found.value == np.sort(values)[179]
    assert found.log_variance == pytest.approx(np.log(again).var(), rel=0.25)
    mean = effects.mean_figure(values)
    assert mean.log_variance == pytest.approx(np.log(draw.choice(values, (4000, 200)).mean(axis=1)).var(), rel=0.25)


def test_starts_that_agree_by_chance_are_not_trusted_beyond_their_requests() -> None:
    draw = np.random.default_rng(2)
    noisy = [effects.StartFigure(1.0, 20, np.exp(draw.normal(0, 0.1, effects.POINTS))) for _ in range(3)]
    found = effects.log_effect(noisy, noisy, 1.05, 0.05)
    assert found.deviations[0] == pytest.approx(0.1, rel=0.3) and found.hi > 1.1


def test_the_detectable_effect_is_detected_in_80_percent_of_cases() -> None:
    """The oracle draws arms with that effect planted and asks SciPy's test."""
    k, sd, limit = 8, 0.03, 1.05
    known = effects.Effect(1, 1, 1, None, None, 1, 1, sd * math.sqrt(2 / k), 2 * (k - 1), (sd, sd), (0, 0))
    planted = effects.detectable(known, limit, ">", 0.05)
    draw = np.random.default_rng(11)
    a, b = draw.normal(0, sd, (4000, k)), draw.normal(math.log(planted), sd, (4000, k))
    seen = np.mean(stats.ttest_ind(b - math.log(limit), a, axis=1, equal_var=False, alternative="greater").pvalue <= 0.05)
    assert 0.77 < seen < 0.83
    # And as many starts as it is said to need for that effect are these.
    same = effects.Effect(planted * 1.0001, 1, 1, None, None, 1, 1, known.spread, known.freedom, (sd, sd), (0, 0))
    assert effects.starts_needed(same, limit, 0.05, 0.05) == k


def test_three_outcomes() -> None:
    base, same, slow = (
        arm(name, c, seed=k)
        for k, (name, c) in enumerate((("a", [1, 1.01, 0.99, 1]), ("b", [1.01, 1, 1, 0.99]), ("c", [1.2, 1.21, 1.2, 1.19])))
    )
    worse = compare(base, slow, ["tpot_p50 > +5%"])
    assert worse.outcome == "regression" and worse.exit_code == 4 and worse.compared[0].ratio == pytest.approx(1.2, rel=0.02)
    assert 1.05 < worse.compared[0].lo < 1.2 < worse.compared[0].hi  # type: ignore[operator]
    fine = compare(base, same, ["tpot_p50 > +5%", "ttft_p50 > +5%", "output_tps < -5%", "tpot_mean > +5%"])
    assert fine.outcome == "within" and fine.exit_code == 0 and len(fine.of("within")) == 4
    near = compare(base, same, ["tpot_p50 > 0"])
    assert near.outcome == "inconclusive" and near.exit_code == 5 and near.compared[0].reason
    assert compare(slow, base, ["output_tps < -5%"]).outcome == "within"
    assert compare(base, slow, ["output_tps < -5%"]).outcome == "regression"
    assert sorted(EXIT_CODES.values()) == [0, 4, 5]


def test_many_rules_need_more_than_one() -> None:
    """What is proven alone is not where twenty cells were looked at: Holm."""
    draw = np.random.default_rng(8)
    base, new = arm("a", np.exp(draw.normal(0, 0.03, 5))), arm("b", 1.03 * np.exp(draw.normal(0, 0.03, 5)), seed=3)
    alone = compare(base, new, ["tpot_p50 > 0"]).compared[0]
    assert alone.p_regression is not None and 0.0005 < alone.p_regression <= 0.05 and alone.outcome == "regression"
    loads = range(1, 21)
    many = [
        Arm(side.label, tuple(run(f"{r.start}-{load}", r.values["tpot"] if load == 1 else calm, row={"load": float(load)}) for load in loads for r in side.runs))
        for side, calm in ((base, np.full(50, 1.0)), (new, np.full(50, 0.9)))
    ]  # fmt: skip
    row = compare(many[0], many[1], ["tpot_p50 > 0"]).compared[0]
    assert row.p_regression_holm == pytest.approx(min(1, 20 * alone.p_regression), rel=1e-6)
    assert row.detectable is not None and alone.detectable is not None and row.detectable > alone.detectable
    assert row.outcome == ("regression" if 20 * alone.p_regression <= 0.05 else "inconclusive")


def test_one_start_proves_nothing() -> None:
    found = compare(arm("a", [1.0]), arm("b", [9.0, 9.0, 9.0]), ["tpot_p50 > +5%"])
    assert (
        found.outcome == "inconclusive"
        and "one start" in found.compared[0].reason
        and found.compared[0].ratio == pytest.approx(9, rel=0.02)
    )


def test_failed_requests_are_no_ratio_but_a_plain_order_when_every_start_has_them() -> None:
    base = arm("a", [1.0] * 5)
    broken = arm("b", [1.0] * 5, failed=60)
    found = compare(base, broken, ["tpot_p95 > +5%", "error_rate > +1pp"])
    assert [one.outcome for one in found.compared] == ["regression", "regression"]
    assert found.compared[0].p_regression == pytest.approx(1 / math.comb(10, 5))
    few = compare(base, Arm("c", (*broken.runs[:1], *arm("d", [1.0] * 4).runs)), ["tpot_p95 > +5%"])
    assert few.outcome == "inconclusive" and "among failed requests in 0 of 5 starts of base, 1 of 5 of new" in few.compared[0].reason


def test_no_error_on_either_side_proves_as_much_as_the_requests_allow() -> None:
    small, large = (compare(arm("a", [1.0] * 4, n=n), arm("b", [1.0] * 4, n=n), ["error_rate > +0.5pp"]) for n in (50, 2000))
    assert small.outcome == "inconclusive" and large.outcome == "within"


def test_imported_figures_are_point_estimates_never_proof() -> None:
    mean = {
        "provenance_class": "imported",
        "tpot_mean_s": 0.1,
        "start_id": None,
        "validity": "suspect",
        "validity_reasons": ["no requests"],
    }
    there = Arm("a", tuple(run(f"i{k}", [1.0], row=mean) for k in range(3)))
    here = Arm("b", tuple(run(f"j{k}", [1.0], row=mean | {"tpot_mean_s": 0.2}) for k in range(3)))
    bare = [Arm(a.label, tuple(ArmRun(r.row, {}, {}) for r in a.runs)) for a in (there, here)]
    found = compare(bare[0], bare[1], ["tpot_mean > +5%", "tpot_p99 > +5%", "icl_p99 > +5%"])
    assert found.outcome == "inconclusive"
    by_mean, by_percentile, none = found.compared
    assert by_mean.ratio == pytest.approx(2) and by_mean.lo is None and "point estimate" in by_mean.reason
    assert by_percentile.ratio == pytest.approx(2) and "of the means" in by_percentile.reason
    assert none.ratio is None and "neither" in none.reason


def test_what_differs_is_said_and_what_measures_another_thing_is_refused() -> None:
    base = arm("a", [1, 1.01, 0.99])
    other = {**WORKLOAD, "lengths": {"kind": "fixed", "isl": 9, "osl": 8}}
    with pytest.raises(StoreError, match="workload differs under one name: lengths"):
        compare(base, arm("b", [1, 1.01, 0.99], workload=other))
    allowed = compare(base, arm("b", [1, 1.01, 0.99], workload=other), ["tpot_p50 > +9%"], allow_differing=True)
    assert allowed.outcome == "within" and "compared all the same" in allowed.changed[0]
    moved = compare(
        base,
        arm("b", [1, 1.01, 0.99], machine={"machine_id": "m2", "cpu_model": "B CPU"}, row={"comparison_id": "c2", "engine_version": "2"}),
    )
    assert "the machines differ" in moved.changed[0] and "A CPU | B CPU" in moved.changed[0] and "engine version: 1 → 2" in moved.changed
    prompts = [arm(name, [1, 1.01, 0.99], prompts={"sha256": name}) for name in ("x", "y")]
    with pytest.raises(StoreError, match="another tokenizer"):
        compare(*prompts)
    chat = arm("b", [1, 1.01, 0.99], sweep={"seed": 1, "endpoint_kind": "chat"})
    with pytest.raises(StoreError, match="endpoint differs"):
        compare(base, chat)


def test_only_matched_cells_and_the_others_are_listed() -> None:
    base, more = arm("a", [1, 1.01, 0.99]), arm("x", [1, 1.01, 0.99], row={"load": 8.0})
    new, less = arm("b", [1, 1.01, 0.99]), arm("y", [1, 1.01, 0.99], row={"workload": "rag"})
    found = compare(Arm("a", base.runs + more.runs), Arm("b", new.runs + less.runs), ["tpot_p50 > +9%"])
    assert found.outcome == "within" and found.only_base == ("m · b · chat · 8 users",) and found.only_new == ("m · b · rag · 4 users",)
    with pytest.raises(StoreError, match=r"no cell in common: load 4\.0 and 8\.0"):
        compare(base, more)


def test_a_cell_that_new_could_not_measure_is_never_within() -> None:
    lost = arm("b", [1, 1.01, 0.99], row={"status": "failed", "status_reason": "the engine died", "validity": "invalid"})
    found = compare(arm("a", [1, 1.01, 0.99]), lost, ["tpot_p50 > +9%"])
    assert (
        found.outcome == "inconclusive"
        and found.compared[0].reason == "new could not be measured: the engine died"
        and found.set_aside == 3
    )


def test_disturbed_runs_are_set_aside_unless_asked_for() -> None:
    suspect = arm("b", [1, 1.01, 0.99], row={"validity": "suspect", "validity_reasons": ["other programs used 1.5 of 2 cores"]})
    found = compare(arm("a", [1, 1.01, 0.99]), suspect, ["tpot_p50 > +9%"])
    assert found.outcome == "inconclusive" and "--with-suspect" in found.compared[0].reason
    assert compare(arm("a", [1, 1.01, 0.99]), suspect, ["tpot_p50 > +9%"], with_suspect=True).outcome == "within"


def test_a_side_of_two_engine_versions_is_not_pooled() -> None:
    mixed = Arm("a", arm("a", [1, 1.01]).runs + arm("c", [1, 1.01], row={"engine_version": "2"}).runs)
    with pytest.raises(StoreError, match="2 values of engine_version: 1, 2"):
        compare(mixed, arm("b", [1, 1.01]))


def test_bad_questions() -> None:
    a, b = arm("a", [1, 1.01]), arm("b", [1, 1.01])
    with pytest.raises(UsageError, match="confidence"):
        compare(a, b, confidence=1.0)
    with pytest.raises(UsageError, match="no rule"):
        compare(a, b, [])
    with pytest.raises(StoreError, match="on both sides"):
        compare(a, a)

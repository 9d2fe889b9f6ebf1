"""Verdicts about quality: bounds against oracles that share no code, properties, and error rates."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from profiler.analyse import quality

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200)).filter(lambda c: sum(c) > 0)
WINDOWS = st.lists(st.tuples(st.floats(1, 500), st.integers(1, 255)), min_size=8, max_size=40)


def brute_score(lost: int, gained: int, n: int, delta: float) -> float:
    """The score statistic with the restricted likelihood maximised by a numerical search."""
    low = max(0.0, -delta)
    high = (1 - delta) / 2

    def negative(q: float) -> float:
        likelihood = 0.0
        for count, p in ((lost, q), (gained, q + delta), (n - lost - gained, 1 - 2 * q - delta)):
            if count:
                likelihood += count * math.log(max(p, 1e-300))
        return -likelihood

    q = optimize.minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return float((gained - lost - n * delta) / math.sqrt(n * (2 * q + delta - delta**2)))


@pytest.mark.parametrize(("lost", "gained", "n"), [(5, 1, 100), (1, 5, 100), (12, 3, 40), (7, 7, 24), (1, 0, 44)])
def test_tango_bounds_are_where_the_score_test_begins_to_reject(lost: int, gained: int, n: int) -> None:
    lo, hi = quality.tango(lost, gained, n)
    assert brute_score(lost, gained, n, lo) == pytest.approx(1.6449, abs=2e-3)
    assert brute_score(lost, gained, n, hi) == pytest.approx(-1.6449, abs=2e-3)


def test_tango_without_discordant_pairs() -> None:
    z2 = 1.6448536**2
    assert quality.tango(0, 0, 24) == pytest.approx((-z2 / (24 + z2), z2 / (24 + z2)))


@given(COUNTS)
def test_tango_mirrors_and_contains(counts: tuple[int, int, int]) -> None:
    lost, gained, rest = counts
    n = lost + gained + rest
    lo, hi = quality.tango(lost, gained, n)
    assert -1 <= lo <= (gained - lost) / n <= hi <= 1
    assert quality.tango(gained, lost, n) == pytest.approx((-hi, -lo), abs=1e-9)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_binomial_sum(lost: int, gained: int) -> None:
    n, least = lost + gained, min(lost, gained)
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(least + 1))
    assert quality.mcnemar(lost, gained) == pytest.approx(float(min(Fraction(1), 2 * tail)))


@given(WINDOWS)
def test_an_identical_copy_has_no_drift_and_passes_any_margin(windows: list[tuple[float, int]]) -> None:
    found = quality.drift(windows, windows)
    assert (found.delta_lo, found.delta_nll, found.delta_hi) == (0, 0, 0)
    assert quality.drift_verdict(found, 1e-6).result == "NON-INFERIOR"


@given(WINDOWS, st.floats(-0.2, 0.2))
@settings(max_examples=30)
def test_a_constant_drift_per_token_is_found_exactly(windows: list[tuple[float, int]], delta: float) -> None:
    found = quality.drift(windows, [(nll + delta * count, count) for nll, count in windows])
    assert found.delta_nll == pytest.approx(delta, abs=1e-9)
    assert found.ratio == pytest.approx(math.exp(delta))
    assert found.delta_lo == pytest.approx(delta, abs=1e-6) and found.delta_hi == pytest.approx(delta, abs=1e-6)


def test_the_same_seed_gives_the_same_bounds() -> None:
    made = np.random.default_rng(3)
    reference = [(float(x), 127) for x in made.normal(400, 40, 16)]
    variant = [(nll + float(made.normal(2, 3)), count) for nll, count in reference]
    assert quality.drift(reference, variant) == quality.drift(reference, variant)


def test_few_windows_prove_nothing_and_say_how_many_would_do() -> None:
    verdict = quality.drift_verdict(quality.drift([(100.0, 50)] * 7, [(100.0, 50)] * 7), 0.01)
    assert verdict.result == "UNDECIDED" and verdict.n == 7 and "8 windows" in str(verdict.decide)


@pytest.mark.parametrize("other", [[(1.0, 5)], [(1.0, 5), (1.0, 6)]])
def test_other_windows_are_refused(other: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match="same"):
        quality.drift([(1.0, 5), (1.0, 5)], other)


def test_what_would_decide_it_decides_it() -> None:
    found = quality.paired([True] * 30, [True] * 29 + [False])
    verdict = quality.task_verdict(found, 0.1)
    assert verdict.result == "UNDECIDED"
    need = quality.examples_needed(found, 0.1)
    assert need is not None and f"{need} examples" in str(verdict.decide)
    more = need - need % 30 + 30
    again = quality.paired([True] * more, [True] * (more - more // 30) + [False] * (more // 30))
    assert quality.task_verdict(again, 0.1).result == "NON-INFERIOR"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.floats(0.01, 0.5))
@settings(max_examples=60, deadline=None)
def test_a_verdict_follows_its_bounds(pairs: list[tuple[bool, bool]], margin: float) -> None:
    found = quality.paired([a for a, _ in pairs], [b for _, b in pairs])
    assert found.both + found.lost + found.gained + found.neither == found.n == len(pairs)
    verdict = quality.task_verdict(found, margin)
    assert (verdict.result == "NON-INFERIOR") == (found.difference_lo >= -margin)
    assert (verdict.result == "INFERIOR") == (found.difference_hi < -margin)
    assert (verdict.decide is None) == (verdict.result != "UNDECIDED")


@pytest.mark.parametrize("margin", [0, 1, -0.1])
def test_a_margin_is_a_share(margin: float) -> None:
    with pytest.raises(ValueError, match="share"):
        quality.task_verdict(quality.paired([True], [True]), margin)


def test_joined() -> None:
    good = quality.task_verdict(quality.paired([True] * 100, [True] * 100), 0.1)
    bad = quality.task_verdict(quality.paired([True] * 100, [False] * 100), 0.1)
    open_ = quality.task_verdict(quality.paired([True] * 10, [True] * 10), 0.1)
    assert quality.together([good, good]) == "NON-INFERIOR"
    assert quality.together([good, bad, open_]) == "INFERIOR"
    assert quality.together([good, open_]) == "UNDECIDED"


@pytest.mark.parametrize(
    ("drift", "non_inferior", "inferior"),
    [(0.0, (200, 200), (0, 0)), (0.02, (0, 20), (0, 20)), (0.08, (0, 0), (180, 200))],
    ids=["identical", "at the margin", "damaged"],
)
def test_error_rates_over_200_simulated_evaluations(drift: float, non_inferior: tuple[int, int], inferior: tuple[int, int]) -> None:
    """At the margin each answer is wrong and may come in 5 %: 10 of 200 expected, more than 20 with a probability under 0.001."""
    made = np.random.default_rng(11)
    seen = {"NON-INFERIOR": 0, "INFERIOR": 0, "UNDECIDED": 0}
    for _ in range(200):
        difficulty = made.normal(3.5, 0.4, 14)  # nats per token, the same for both
        # Noised weights: worse on average, on each window by another amount; skewed, as damage is.
        damage = math.log1p(drift) * made.gamma(2.0, 0.5, 14)
        reference = [(127 * float(x), 127) for x in difficulty]
        variant = [(nll + 127 * float(x), n) for (nll, n), x in zip(reference, damage, strict=True)]
        seen[quality.drift_verdict(quality.drift(reference, variant), 0.02).result] += 1
    assert non_inferior[0] <= seen["NON-INFERIOR"] <= non_inferior[1], seen
    assert inferior[0] <= seen["INFERIOR"] <= inferior[1], seen

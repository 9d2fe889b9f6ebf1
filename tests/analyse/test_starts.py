"""Bounds over engine starts and the looks that share their error, against models of our own that share no code with them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from profiler.analyse.starts import LOOKS, StartShare, boundary, level, share_bounds

ALLOWED = 0.05
Draw = Callable[[np.random.Generator, int], np.ndarray]


def probit_normal(tau: float) -> Draw:
    """Long-run share ALLOWED exactly: E Phi(z) = Phi(mu / sqrt(1 + tau^2))."""
    mu = stats.norm.ppf(ALLOWED) * math.sqrt(1 + tau**2)
    return lambda draw, count: stats.norm.cdf(draw.normal(mu, tau, count))


def beta(a: float) -> Draw:
    return lambda draw, count: draw.beta(a, a * (1 - ALLOWED) / ALLOWED, count)


def counted(draw: np.random.Generator, shares: np.ndarray, n: int = 400) -> list[StartShare]:
    return [StartShare(int(draw.binomial(n, share)), n, float(n)) for share in shares]


@pytest.mark.parametrize("family", [probit_normal(0.2), probit_normal(0.7), beta(0.5), beta(3.0)])
@pytest.mark.parametrize("count", [3, 8, 64])
def test_a_truth_on_the_limit_is_called_either_way_as_seldom_as_stated(family: Draw, count: int) -> None:
    """5 % of 400 is 20; 36 is the 99.97 % limit (24 tests look)."""
    draw = np.random.default_rng(count)
    bounds = [share_bounds(counted(draw, family(draw, count)), 0.05, 0.05) for _ in range(400)]
    assert sum(lower > ALLOWED for lower, _ in bounds) <= 36
    assert sum(upper < ALLOWED for _, upper in bounds) <= 36


@pytest.mark.parametrize("family", [probit_normal(0.4), beta(1.0)])
def test_looking_nine_times_errs_no_more_often_than_once(family: Draw) -> None:
    draw = np.random.default_rng(9)
    wrong = [0, 0]
    for _ in range(300):
        starts = counted(draw, family(draw, LOOKS[-1]))
        bounds = [share_bounds(starts[:k], *2 * (level(k, LOOKS, 0.05),)) for k in LOOKS]
        wrong[0] += any(lower > ALLOWED for lower, _ in bounds)
        wrong[1] += any(upper < ALLOWED for _, upper in bounds)
    assert max(wrong) <= 29  # 5 % of 300 is 15; 29 is the 99.97 % limit


def test_a_bad_start_that_is_rare_is_not_ruled_out_by_a_few_good_ones() -> None:
    """One start in twenty misses everything: on the limit. A t test over eight starts would nearly always say that it fits."""
    few = [StartShare(k, 300, 20.0) for k in (0, 1, 0, 0, 2, 0, 0, 1)]
    mean, spread = np.mean([s.misses / s.n for s in few]), np.std([s.misses / s.n for s in few], ddof=1)
    assert mean + stats.t.ppf(0.95, 7) * spread / math.sqrt(8) < 0.01
    assert share_bounds(few, 0.05, 0.05)[1] > 3 * (mean + stats.t.ppf(0.95, 7) * spread / math.sqrt(8))


@pytest.mark.parametrize("looks", [LOOKS, (3, 5, 8), (3, 5, 8, 12, 16, 24), (5, 6, 7)])
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_all_looks_together_err_as_often_as_stated(looks: tuple[int, ...], alpha: float) -> None:
    """Oracle: t statistics of normal samples as they grow. Neither more often (by 4 sigmas) nor much less: that would be careless of starts."""
    draw = np.random.default_rng(len(looks))
    trials = 20_000
    values = draw.standard_normal((trials, looks[-1]))
    stopped = np.zeros(trials, dtype=bool)
    for number, at in boundary(looks, alpha).items():
        so_far = values[:, :number]
        stopped |= so_far.mean(axis=1) / so_far.std(axis=1, ddof=1) * math.sqrt(number) > stats.t.isf(at, number - 1)
    sigma = math.sqrt(alpha * (1 - alpha) / trials)
    assert alpha * 0.8 - 4 * sigma < stopped.mean() < alpha * 1.02 + 4 * sigma


@given(st.sets(st.integers(3, 100), min_size=1, max_size=6), st.floats(0.005, 0.1))
def test_levels_lie_between_a_single_look_and_the_union_bound(numbers: set[int], alpha: float) -> None:
    looks = tuple(sorted(numbers))
    levels = boundary(looks, alpha)
    assert tuple(levels) == looks
    assert max(levels.values()) <= alpha * (1 + 1e-9)
    assert sum(levels.values()) >= 0.9 * alpha * (1 - 1e-6)
    assert level(looks[-1] + 7, looks, alpha) == levels[looks[-1]]


@given(st.lists(st.integers(0, 200), min_size=2, max_size=12), st.integers(1, 50), st.floats(0.001, 0.2))
def test_more_misses_in_every_start_lower_no_bound(misses: list[int], more: int, alpha: float) -> None:
    before = share_bounds([StartShare(k, 300, 120.0) for k in misses], alpha, alpha)
    after = share_bounds([StartShare(k + more, 300, 120.0) for k in misses], alpha, alpha)
    assert after[0] >= before[0] - 1e-9 and after[1] >= before[1] - 1e-9

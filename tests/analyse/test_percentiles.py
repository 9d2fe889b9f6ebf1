"""Oracle: binomial sums in exact fractions, written out here."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from profiler.analyse import percentiles


def at_most(k: int, n: int, p: Fraction) -> Fraction:
    """P(Binomial(n, p) <= k)."""
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


PS = st.sampled_from(["0.5", "0.9", "0.95", "0.99"])
VALUES = st.lists(st.floats(0, 1e3) | st.just(math.inf), min_size=1, max_size=60)


@given(VALUES, st.sampled_from(["0.01", "0.07", "0.5", "0.9", "0.95", "0.99", "0.999", "1"]))
def test_order_statistic_is_the_smallest_value_with_that_share_at_or_below(values: list[float], p: str) -> None:
    found = percentiles.order_statistic(values, float(p))
    enough = [v for v in values if Fraction(sum(1 for w in values if w <= v), len(values)) >= Fraction(p)]
    assert found == min(enough)


def test_no_values_no_percentile() -> None:
    assert percentiles.order_statistic([], 0.5) is None
    assert percentiles.quantile_bounds([], 0.5, 0.025, 0.025) == (None, None)


def test_rank_reads_the_decimal_that_was_written() -> None:
    assert percentiles.rank(100, 0.07) == 7  # 0.07 * 100 is 7.000000000000001
    assert percentiles.rank(1000, 0.999) == 999


@given(st.integers(1, 80), PS, st.sampled_from(["0.05", "0.025", "0.01"]))
@example(1, "0.95", "0.05")  # P(none below) is exactly alpha
def test_quantile_ranks_are_the_tightest_that_are_right(n: int, p: str, alpha: str) -> None:
    exact, a = Fraction(p), Fraction(alpha)
    lo, hi = percentiles.quantile_ranks(n, float(p), float(alpha), float(alpha))
    right_lo = [rank for rank in range(1, n + 1) if at_most(rank - 1, n, exact) <= a]
    right_hi = [rank for rank in range(1, n + 1) if 1 - at_most(rank - 1, n, exact) <= a]
    assert lo == (max(right_lo) if right_lo else None)
    assert hi == (min(right_hi) if right_hi else None)


@pytest.mark.parametrize(("p", "needed"), [(0.95, 59), (0.99, 299), (0.90, 29), (0.999, 2995)])
def test_how_many_requests_without_a_miss(p: float, needed: int) -> None:
    allowed = float(1 - Fraction(repr(p)))
    assert percentiles.needed_for_fit(allowed) == needed
    assert percentiles.share_upper(0, needed) <= allowed < percentiles.share_upper(0, needed - 1)
    assert percentiles.quantile_ranks(needed, p, 0.05, 0.05)[1] == needed
    assert percentiles.quantile_ranks(needed - 1, p, 0.05, 0.05)[1] is None


@given(st.data())
def test_clopper_pearson_bounds_are_where_the_tail_is_alpha(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 120))
    k = data.draw(st.integers(0, n))
    alpha = data.draw(st.sampled_from([0.05, 0.025, 0.01]))
    lower, upper = percentiles.share_lower(k, n, alpha), percentiles.share_upper(k, n, alpha)
    assert 0 <= lower <= k / n <= upper <= 1
    if k < n:
        assert float(at_most(k, n, Fraction(upper))) == pytest.approx(alpha, rel=1e-6)
    if k > 0:
        assert float(1 - at_most(k - 1, n, Fraction(lower))) == pytest.approx(alpha, rel=1e-6)


@given(VALUES, PS, st.floats(0, 1e3))
def test_bound_of_percentile_and_bound_of_share_say_the_same(values: list[float], p: str, limit: float) -> None:
    """The upper bound of the p-quantile keeps a limit exactly when the upper bound of the share above it is at most 1 - p."""
    misses = sum(1 for v in values if v > limit)
    allowed = float(1 - Fraction(p))
    _, hi = percentiles.quantile_bounds(values, float(p), 0.05, 0.05)
    assert (hi is not None and hi <= limit) == (percentiles.share_upper(misses, len(values)) <= allowed)


@given(st.integers(1, 200), st.sampled_from([0.0, 0.01, 0.02, 0.03]))
def test_needed_for_fit_is_enough_and_not_before_where_asked(at_least: int, share: float) -> None:
    needed = percentiles.needed_for_fit(0.05, share, at_least)
    assert needed is not None and needed >= at_least
    assert percentiles.share_upper(round(share * needed), needed) <= 0.05


def test_needed_is_none_where_no_number_would_do() -> None:
    assert percentiles.needed_for_fit(0.05, 0.05) is None
    assert percentiles.needed_for_fit(0.05, 0.0499999) is None
    assert percentiles.needed_for_fail(0.05, 0.05) is None
    assert percentiles.needed_for_fail(0.05, 1.0) == 2  # one miss of one has probability 0.05 at a share of 0.05
    found = percentiles.needed_for_fail(0.05, 0.10)
    assert found is not None
    assert percentiles.share_lower(round(0.1 * found), found) > 0.05

"""Percentiles as order statistics, and exact binomial bounds: no interpolation, no assumption on the distribution.

Bounds take requests as independent. Those of one run are not quite: docs/qos.md says what that means for a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

ALPHA = 0.05  # one error in twenty, as everywhere in this program


def rank(n: int, p: float) -> int:
    """1-based index of the p-quantile (0 < p <= 1) of n sorted values: the smallest k with k/n >= p.

    `p` is read as the decimal it is written as, because 0.07 * 100 is a little more than 7 in binary.
    """
    return max(1, math.ceil(Fraction(repr(p)) * n))


def order_statistic(values: Sequence[float], p: float) -> float | None:
    """The p-quantile of the empirical distribution; `values` may hold +inf (failed requests). None without values."""
    return sorted(values)[rank(len(values), p) - 1] if values else None


def quantile_ranks(n: int, p: float, alpha_lo: float, alpha_hi: float) -> tuple[int | None, int | None]:
    """1-based ranks of the order statistics that bound the true p-quantile from below and above.

    Each bound is wrong with at most its own probability, whatever the distribution: the number of values at or below the quantile is
    Binomial(n, p). None where n is too small for such a bound. For a two-sided 95 % interval give 0.025 twice.
    """
    if n == 0:
        return None, None
    from scipy.special import bdtr, bdtrc

    # A probability that is exactly alpha (one value, p 0.95, alpha 0.05) must not be lost in the last bit of a float.
    alpha_lo, alpha_hi = alpha_lo * (1 + 1e-12), alpha_hi * (1 + 1e-12)
    # Below: P(X_(l) > q) = P(B <= l - 1), so the largest l with that <= alpha. Above: P(X_(u) < q) <= P(B >= u), the smallest u.
    below = _first(lambda k: bool(bdtr(k, n, p) > alpha_lo), n)  # the first l - 1 that is too large
    above = _first(lambda k: bool(bdtrc(k, n, p) <= alpha_hi), n)  # the first u - 1 that is enough
    return below or None, above + 1 if above < n else None


def quantile_bounds(values: Sequence[float], p: float, alpha_lo: float, alpha_hi: float) -> tuple[float | None, float | None]:
    """The order statistics at `quantile_ranks`; +inf where the bound lies among failed requests."""
    lo, hi = quantile_ranks(len(values), p, alpha_lo, alpha_hi)
    ordered = sorted(values)
    return ordered[lo - 1] if lo else None, ordered[hi - 1] if hi else None


def share_upper(misses: float, n: float, alpha: float = ALPHA) -> float:
    """Clopper-Pearson upper bound of a share: above it, so few misses would be seen with probability at most alpha.

    `n` need not be whole: correlated requests count as fewer independent ones.
    """
    if n == 0 or misses >= n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(misses + 1, n - misses, 1 - alpha))


def share_lower(misses: float, n: float, alpha: float = ALPHA) -> float:
    """Clopper-Pearson lower bound of a share: below it, so many misses would be seen with probability at most alpha."""
    if n == 0 or misses <= 0:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(misses, n - misses + 1, alpha))


def needed_for_fit(allowed: float, miss_share: float = 0.0, at_least: int = 1, alpha: float = ALPHA) -> int | None:
    """How many requests prove "at most `allowed` miss" if `miss_share` of them do: 59 for p95 without a miss, 299 for p99.

    Looks from `at_least` up. None when more than MOST_REQUESTS would be needed, or when no number would do.
    """
    if miss_share >= allowed:
        return None
    return _enough(lambda n: share_upper(round(miss_share * n), n, alpha) <= allowed, at_least)


def needed_for_fail(allowed: float, miss_share: float, at_least: int = 1, alpha: float = ALPHA) -> int | None:
    """How many requests prove "more than `allowed` miss" if `miss_share` of them do; None as in `needed_for_fit`."""
    if miss_share <= allowed:
        return None
    return _enough(lambda n: share_lower(round(miss_share * n), n, alpha) > allowed, at_least)


MOST_REQUESTS = 1_000_000


def _enough(holds: Callable[[int], bool], at_least: int) -> int | None:
    """About the smallest n >= `at_least` for which `holds`: exact where it is monotone, which rounding of misses only nearly is."""
    step = 1
    while not holds(at_least + step - 1):
        step *= 2
        if step > MOST_REQUESTS:
            return None
    below = step // 2  # holds not at at_least + below - 1 (or below is 0)
    return at_least + below + _first(lambda k: holds(at_least + below + k), step - 1 - below)


def _first(holds: Callable[[int], bool], n: int) -> int:
    """The smallest k in 0..n-1 for which the monotone `holds(k)` is true, else n."""
    lo, hi = 0, n
    while lo < hi:
        middle = (lo + hi) // 2
        lo, hi = (lo, middle) if holds(middle) else (middle + 1, hi)
    return lo

"""What several engine starts say together of the long-run share of misses, over starts as they come.

Starts differ: a start a few percent slower than another misses far more, near capacity several times as much, so the shares of the starts
are few, skewed and decide everything. Their mean is tested, which is right on average whatever their distribution; a t test of it alone would
be wrong, because the rare bad start that raises the mean is the one that was not seen, and where it was not seen the spread looks small too. So
the mean is compared with a share `a` on the scale (1 - (mean / a)^k) / k, where its spread grows with it (a Box-Cox scale of the mean; for
skewness in a t test see Hall, J. R. Statist. Soc. B 54, 1992). k is the smaller the more the starts differ, because no share exceeds 1: shares
of nothing or all are only as skewed as a binomial. An upper bound also assumes a spread between starts that was not seen. Neither
bound is tighter than Clopper-Pearson on the independent requests of all starts (bootstrap.memory), and the spread is never taken as less than
those make it. Constants and error rates: docs/verdicts.md, bench/verdicts.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from profiler.analyse.percentiles import share_lower, share_upper

DECIDING = 3  # fewer starts than this only screen
LOOKS = (3, 5, 8, 12, 16, 24, 32, 48, 64)  # numbers of starts after which a cell may be found decided, where starts are added until it is
SPEND = 1.5  # of the error alpha, looks up to the part t of all starts spend alpha t^1.5 (Kim and DeMets, Biometrika 74, 1987)
STEEP, STEEP_LEAST, STEEP_AT = 2.0, 0.25, 2.5  # k of an upper bound: STEEP_AT - cv / 2, within these; cv of the shares over starts
# The cv of the shares over starts that is assumed though not seen: so many times the root of how many requests tell as much as one; it fades
# as starts come, and is down to 0.7 of itself after so many.
UNSEEN, UNSEEN_STARTS = 0.3, 12
FLAT = 0.5  # k of a lower bound: a bad start that was seen raises mean and spread alike
GRID, REACH = 601, 8.0  # of the scale that a boundary is found on
STUDENT = 0.9  # of each level: Student's statistics are less alike from look to look than normal ones, and err 1.05 to 1.12 times as often (simulated)


@dataclass(frozen=True)
class StartShare:
    """One start's cohort under one constraint. `independent`: how many independent requests tell as much as the n."""

    misses: int
    n: int
    independent: float


def share_bounds(starts: Sequence[StartShare], alpha_lo: float, alpha_hi: float) -> tuple[float, float]:
    """One-sided bounds of the long-run share of misses over starts, each at its own level; (0, 1) for fewer than two starts."""
    if len(starts) < 2 or any(start.n == 0 for start in starts):
        return 0.0, 1.0
    count = len(starts)
    shares = np.array([start.misses / start.n for start in starts])
    independent = np.array([start.independent for start in starts])
    mean, worth, missed = float(shares.mean()), float(independent.sum()), float(shares @ independent)
    variance, each = float(shares.var(ddof=1)), worth / count
    seen = (mean * worth + 0.5) / (worth + 1)  # none that missed is not never
    spread = math.sqrt(max(variance, seen * (1 - seen) / each) / count)
    # A queue remembers the longer, and its misses hang the more on how fast a start is, the nearer it is to capacity: with utilisation u as
    # 1 / (1 - u)^2 and 1 / (1 - u). So a memory that was seen tells of bad starts that were not.
    unseen = UNSEEN * math.sqrt(max(1.0, sum(start.n for start in starts) / worth) * UNSEEN_STARTS / (UNSEEN_STARTS + count))
    student = _student(alpha_hi, count)
    return (
        min(_lower(mean, _student(alpha_lo, count) * spread), share_lower(missed, worth, alpha_lo)),
        max(
            _upper(seen, spread * math.sqrt(count) / seen, student * spread),
            _upper_unseen(mean, unseen, each, student**2 / count),
            share_upper(missed, worth, alpha_hi),
        ),
    )


def starts_needed(starts: Sequence[StartShare], allowed: float, alpha_lo: float, alpha_hi: float, most: int = 200) -> int | None:
    """How many starts in all would decide, if further ones were like those seen; None when `most` would not."""
    if len(starts) < 2:
        return None
    count = len(starts)
    while count < most:
        count = min(most, max(count + 1, int(count * 1.25)))
        again = [starts[k % len(starts)] for k in range(count)]
        lower, upper = share_bounds(again, alpha_lo, alpha_hi)
        if upper <= allowed or lower > allowed:
            return count
    return None


def level(starts: int, looks: Sequence[int], alpha: float) -> float:
    """The level of a look after so many starts, where one looks after each number of `looks` and may err with probability `alpha` in all."""
    levels = boundary(tuple(looks), alpha)
    return levels[max((number for number in looks if number <= starts), default=min(looks))]


@lru_cache(maxsize=64)
def boundary(looks: tuple[int, ...], alpha: float) -> dict[int, float]:
    """The level of each look, so that all of them together err with probability `alpha`, no more of it spent by each than SPEND says.

    Looks share their starts, so what one finds the next is likely to find too: the statistics after n and m starts are correlated by
    sqrt(n / m). Their joint distribution by recursion over the looks (Armitage, McPherson and Rowe, J. R. Statist. Soc. A 132, 1969),
    for normal statistics; levels, not limits, carry it over to Student's t, with STUDENT for what is lost by that.
    """
    from scipy.special import ndtr

    grid = np.linspace(-REACH, REACH, GRID)
    alive = np.zeros(GRID)  # probability of each value of the sum so far, of those whom no look has stopped
    alive[GRID // 2] = 1.0
    found: dict[int, float] = {}
    before = spent = 0.0
    for number in looks:
        part = number / looks[-1]
        due, step = alpha * part**SPEND - spent, math.sqrt(part - before)
        low, high = 0.0, REACH
        for _ in range(50):
            limit = (low + high) / 2
            beyond = float(alive @ ndtr((grid - limit * math.sqrt(part)) / step))
            low, high = (limit, high) if beyond > due else (low, limit)
        found[number] = float(ndtr(-high)) * (STUDENT if len(looks) > 1 else 1.0)
        kernel = np.exp(-(((grid[:, None] - grid[None, :]) / step) ** 2) / 2)
        alive = np.where(grid < high * math.sqrt(part), (kernel / kernel.sum(axis=0)) @ alive, 0.0)
        before, spent = part, spent + due
    return found


def _upper(mean: float, cv: float, error: float) -> float:
    """The largest share that the mean does not contradict. Never smaller for a smaller mean with the same error: from where it would turn
    up again on, because the spread at a larger share is judged by a mean that is nearly nothing, it stays."""
    k = min(max(STEEP_AT - cv / 2, STEEP_LEAST), STEEP)
    if mean <= (1 + k) * error:
        return float(min(1.0, (1 + k) ** (1 + 1 / k) * error))
    return float(min(1.0, mean * (1 - k * error / mean) ** (-1 / k)))


def _upper_unseen(mean: float, cv: float, each: float, error2: float) -> float:
    """The largest share a with (a - mean)^2 <= error2 x (a (1 - a) / each + (cv a)^2): the spread at `a` by counting and between starts."""
    square = 1 - error2 * (cv**2 - 1 / each)
    half = mean + error2 / each / 2
    if square <= 0:
        return 1.0
    return min(1.0, (half + math.sqrt(max(0.0, half**2 - square * mean**2))) / square)


def _lower(mean: float, error: float) -> float:
    return mean * (1 + FLAT * error / mean) ** (-1 / FLAT) if mean > 0 else 0.0


@lru_cache(maxsize=4096)
def _student(alpha: float, starts: int) -> float:
    from scipy.special import stdtrit

    return float(-stdtrit(starts - 1, alpha))

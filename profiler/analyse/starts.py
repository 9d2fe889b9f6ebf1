"""What several engine starts say together of the long-run share of misses, over starts as they come.

Starts differ: a start a few percent slower than another misses far more, near capacity several times as much, so the shares of the starts
are few, skewed and decide everything. They are taken as normal on the probit scale: z_i = probit((misses + 1/2) / (n + 1)) of start i, with n
the number of independent requests its own are worth (bootstrap.memory). If z ~ N(mu, tau^2), the long-run share is Phi(mu / sqrt(1 + tau^2)).
Bounds of it are those of the generalised pivotal quantity, as for the mean of a lognormal (Weerahandi, J. Am. Stat. Assoc. 88, 1993;
Krishnamoorthy and Mathew, J. Stat. Planning and Inference 115, 2003), and never tighter than Clopper-Pearson on the independent requests of
all starts together. docs/verdicts.md has the simulated error rates; bench/verdicts.py makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from profiler.analyse.percentiles import share_lower, share_upper
from profiler.analyse.series import Floats

DECIDING = 3  # fewer starts than this only screen
# Numbers of starts after which a cell may be found decided, and the part of the error that each look spends: by the union bound all of them
# together err no more often than stated. Late looks get most of it, as they have most to say.
SPENDING = {3: 0.04, 5: 0.08, 8: 0.13, 12: 0.20, 16: 0.25, 24: 0.30}
DRAWS = 40_000
SEED = 20261124  # any fixed number would do: the same starts give the same bounds


def spent(starts: int) -> float:
    """The part of the error that may be spent on a look after so many starts, where one looks at each number of SPENDING."""
    return SPENDING[max((number for number in SPENDING if number <= starts), default=DECIDING)]


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
    from scipy.special import ndtr, ndtri

    independent = np.array([start.independent for start in starts])
    misses = np.array([start.misses / start.n for start in starts]) * independent
    z = ndtri((misses + 0.5) / (independent + 1))
    normal, chi_square = _pivots(len(starts))
    tau2 = float(z.var(ddof=1)) * (len(starts) - 1) / chi_square
    shares = ndtr((float(z.mean()) - normal * np.sqrt(tau2 / len(starts))) / np.sqrt(1 + tau2))
    worth, missed = float(independent.sum()), float(misses.sum())
    return (
        min(float(np.quantile(shares, alpha_lo)), share_lower(missed, worth, alpha_lo)),
        max(float(np.quantile(shares, 1 - alpha_hi)), share_upper(missed, worth, alpha_hi)),
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


@lru_cache(maxsize=256)
def _pivots(starts: int) -> tuple[Floats, Floats]:
    draw = np.random.default_rng([SEED, starts])
    return draw.standard_normal(DRAWS), draw.chisquare(starts - 1, DRAWS)

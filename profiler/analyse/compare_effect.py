"""The effect between two arms of engine starts: ratio, bounds, p values, what could have been seen, how many starts would decide.

A start counts as one. Its figure (a percentile of its requests, their mean, a rate) is taken on the log scale, where a factor between starts
is a shift and a ratio of arms a difference of means. Decisions rest on Welch's t (Biometrika 34, 1947) over these figures, with Satterthwaite's
degrees of freedom. They do not rest on the bootstrap of starts and requests, which is wrong on both sides (docs/compare.md has simulated
rates, bench/compare_coverage.py makes them): where starts make the spread, a few of them are too few to draw from, and its bounds err two to three
times as often as stated; where requests make it they are counted twice, as a start's figure varies by its requests already, and the bounds are
too wide. The variance between starts is never taken as smaller than the requests alone make it (Maritz and Jarrett, J. Am. Stat. Assoc. 73,
1978, for percentiles), as a few starts may agree by chance.

The bootstrap is shown beside it (starts with replacement, then requests within them; Davison and Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from profiler.analyse.bootstrap import memory
from profiler.analyse.percentiles import rank
from profiler.analyse.series import Floats

POINTS = 64  # equally likely values that stand for the bootstrap distribution of one start's figure
RESAMPLES = 4000
SEED = 20261124  # any fixed number would do: the same runs give the same interval
POWER = 0.8
MOST_STARTS = 200


@dataclass(frozen=True)
class StartFigure:
    """What one start says. `resampled`: POINTS equally likely values of the same figure had other requests of this start been seen."""

    value: float
    requests: int
    resampled: Floats | None = None

    @property
    def log_variance(self) -> float:
        """Variance of log(value) by the requests alone; 0 where they were not kept."""
        if self.resampled is None or not (np.isfinite(self.resampled) & (self.resampled > 0)).all():
            return 0.0
        return float(np.log(self.resampled).var())


@dataclass(frozen=True)
class Effect:
    """`ratio` is new / base of the arms' geometric means (of shares: their difference). `lo`, `hi`: each alone holds with the confidence.

    Two starts per arm may say so little that a ratio has no bound: `lo` is then 0 and `hi` infinite.
    `spread` is the standard error on the scale of the test (log of the ratio, or the difference), `freedom` its degrees of freedom.
    """

    ratio: float
    lo: float
    hi: float
    resampled_lo: float | None
    resampled_hi: float | None
    p_above: float  # of the null "at or below the limit"
    p_below: float  # of the null "at or above the limit"
    spread: float
    freedom: float
    deviations: tuple[float, float]  # of one start, base and new, on the scale of the test
    within: tuple[float, float]  # of them, what the requests of a start make
    scale: Literal["log", "difference"] = "log"


def percentile_figure(values: Floats, percent: float) -> StartFigure:
    """The percentile of a start's requests (+∞ among failed ones), in the order they were sent.

    The k-th of n resampled values is the sorted value at floor(n·U) with U ~ Beta(k, n − k + 1): the bootstrap distribution of an order statistic
    needs no resampling. Neighbours that resemble one another count as the fewer independent requests they are worth.
    """
    from scipy.special import betaincinv

    n = len(values)
    ordered = np.sort(values)
    k = rank(n, round(percent / 100, 9))
    worth = memory(values.tolist()).independent
    a = k / n * worth
    u = betaincinv(a, worth + 1 - a, (np.arange(POINTS) + 0.5) / POINTS)
    return StartFigure(float(ordered[k - 1]), n, ordered[np.minimum((n * u).astype(np.int64), n - 1)])


def mean_figure(values: Floats) -> StartFigure:
    """The mean of a start's requests; a failed request makes it +∞."""
    from scipy.special import ndtri

    n, mean = len(values), float(values.mean())
    if n < 2 or not math.isfinite(mean):
        return StartFigure(mean, n)
    error = float(values.std(ddof=1)) / math.sqrt(max(memory(values.tolist()).independent, 2.0))
    return StartFigure(mean, n, np.maximum(mean + error * ndtri((np.arange(POINTS) + 0.5) / POINTS), mean * 1e-9))


def log_effect(base: Sequence[StartFigure], new: Sequence[StartFigure], limit: float, alpha: float) -> Effect:
    """Of two arms of at least two starts each, all figures finite and above 0."""
    arms = [np.log([start.value for start in arm]) for arm in (base, new)]
    within = [float(np.mean([start.log_variance for start in arm])) for arm in (base, new)]
    d = float(arms[1].mean() - arms[0].mean())
    variances = [max(float(x.var(ddof=1)), w) for x, w in zip(arms, within, strict=True)]
    spread, freedom = _welch(variances, [len(x) for x in arms])
    lo, hi, above, below = _test(d, math.log(limit), spread, freedom, alpha)
    q_lo, q_hi = _bootstrap(base, new, alpha)
    deviations = (math.sqrt(variances[0]), math.sqrt(variances[1]))
    roots = (math.sqrt(within[0]), math.sqrt(within[1]))
    return Effect(math.exp(d), _exp(lo), _exp(hi), q_lo, q_hi, above, below, spread, freedom, deviations, roots)


def share_effect(base: Sequence[tuple[int, int]], new: Sequence[tuple[int, int]], limit: float, alpha: float) -> Effect:
    """Difference of error rates. Arms are (errors, requests) of at least two starts each.

    Welch's t over the starts' shares, with a variance that is never below that of the requests as independent draws, one error and one answer
    added to each arm (Agresti and Caffo, The American Statistician 54, 2000): without an error on either side all starts agree, which proves little.
    """
    shares = [np.array([errors / n for errors, n in arm]) for arm in (base, new)]
    d = float(shares[1].mean() - shares[0].mean())
    within = []
    for arm in (base, new):
        errors, n = sum(e for e, _ in arm) + 1, sum(n for _, n in arm) + 2
        within.append(errors / n * (1 - errors / n) / n * len(arm))  # of one start, so that the arm's mean has the pooled variance
    variances = [max(float(x.var(ddof=1)), w) for x, w in zip(shares, within, strict=True)]
    spread, freedom = _welch(variances, [len(x) for x in shares])
    lo, hi, above, below = _test(d, limit, spread, freedom, alpha)
    deviations, roots = ((math.sqrt(x[0]), math.sqrt(x[1])) for x in (variances, within))
    return Effect(d, lo, hi, None, None, above, below, spread, freedom, deviations, roots, "difference")


def detectable(effect: Effect, limit: float, side: Literal[">", "<"], alpha: float) -> float:
    """The true effect (ratio, or difference) beyond the limit that starts like these prove in 80 % of cases at level `alpha`.

    Infinite (of a fall: 0) where no change is large enough.
    """
    if effect.spread == 0:
        return limit
    reach = effect.spread * _noncentrality(effect.freedom, alpha) * (1 if side == ">" else -1)
    return limit + reach if effect.scale == "difference" else limit * _exp(reach)


def starts_needed(effect: Effect, limit: float, alpha_above: float, alpha_below: float) -> int | None:
    """Starts per arm that decide in 80 % of cases if the effect and the spreads are those seen; None when 200 would not."""
    distance = math.log(effect.ratio / limit) if effect.scale == "log" else effect.ratio - limit
    alpha = alpha_above if distance > 0 else alpha_below
    variance = effect.deviations[0] ** 2 + effect.deviations[1] ** 2
    if distance == 0:
        return None
    k = 2
    while k <= MOST_STARTS:
        if abs(distance) >= math.sqrt(variance / k) * _noncentrality(2 * (k - 1), alpha):
            return k
        k += max(1, k // 20)
    return None


def separated(base: Sequence[float], new: Sequence[float]) -> float | None:
    """p value where every start of `new` is +∞ and none of `base` is: of all ways to deal the starts to the arms this is the worst one."""
    if base and new and all(map(math.isfinite, base)) and not any(map(math.isfinite, new)):
        return 1 / math.comb(len(base) + len(new), len(new))
    return None


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values: at most `alpha` of families have one that is wrongly at or below it (Holm, Scand. J. Statistics 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for place, k in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[k]))
        adjusted[k] = highest
    return adjusted


def _welch(variances: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom."""
    parts = [v / n for v, n in zip(variances, sizes, strict=True)]
    total = sum(parts)
    if total == 0:
        return 0.0, float(sum(sizes) - 2)
    return math.sqrt(total), total**2 / sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True))


def _test(d: float, limit: float, spread: float, freedom: float, alpha: float) -> tuple[float, float, float, float]:
    """Lower and upper bound of the difference, and the p values for above and for below the limit."""
    from scipy.special import stdtr, stdtrit

    if spread == 0:
        return d, d, float(d <= limit), float(d >= limit)
    half, t = float(stdtrit(freedom, 1 - alpha)) * spread, (d - limit) / spread
    return d - half, d + half, float(stdtr(freedom, -t)), float(stdtr(freedom, t))


def _noncentrality(freedom: float, alpha: float) -> float:
    """How many standard errors beyond the limit a true effect lies that a one-sided t test proves in 80 % of cases (noncentral t)."""
    from scipy.special import chdtri, nctdtr, stdtrit

    critical = float(stdtrit(freedom, 1 - alpha))
    if critical > 1e4:  # only the spread's own error counts there, a chi square; SciPy's nctdtr is NaN from 1e5 on
        return critical * math.sqrt(float(chdtri(freedom, 1 - POWER)) / freedom)
    low, high = 0.0, 2 * critical + 10
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if nctdtr(freedom, middle, critical) > 1 - POWER else (low, middle)
    return high


def _exp(x: float) -> float:
    """e^x; infinite beyond what a float holds. At one degree of freedom the critical t of a small level is in the thousands."""
    return math.exp(x) if x < 700 else math.inf


def _bootstrap(base: Sequence[StartFigure], new: Sequence[StartFigure], alpha: float) -> tuple[float | None, float | None]:
    """Percentile interval of the ratio; None where resampled figures fall among failed requests."""
    swapped = [start.value for start in new] < [start.value for start in base]  # the same draws whichever arm is called the base
    difference = _resampled(new, not swapped) - _resampled(base, swapped)
    if not np.isfinite(difference).all():
        return None, None
    lo, hi = np.quantile(difference, [alpha, 1 - alpha])
    return math.exp(lo), math.exp(hi)


def _resampled(arm: Sequence[StartFigure], second: bool) -> Floats:
    """Means of log figures: starts with replacement, then each one's figure from its requests."""
    draw = np.random.default_rng([SEED, int(second), len(arm)])
    points = np.log([start.resampled if start.resampled is not None else np.full(POINTS, start.value) for start in arm])
    points[~np.isfinite(points)] = np.nan
    which = draw.integers(0, len(arm), size=(RESAMPLES, len(arm)))
    means: Floats = points[which, draw.integers(0, POINTS, size=which.shape)].mean(axis=1)
    return means

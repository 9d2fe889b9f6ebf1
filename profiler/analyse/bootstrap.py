"""Intervals of a trace replay by moving-block bootstrap: its requests come in bursts and are not exchangeable, so ranks alone do not bound.

Blocks of consecutive requests are drawn with replacement until the cohort's length is reached (Künsch, Annals of Statistics 17, 1989). The
block length is the automatic one of Politis and White (Econometric Reviews 23, 2004; corrected by Patton, Politis and White, 28, 2009) for
the circular bootstrap, found on the ranks of the values, so that failed requests (+∞) count and no moment need exist. Seeded: the
same run gives the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from profiler.analyse.percentiles import quantile_ranks, rank, share_lower, share_upper
from profiler.analyse.series import Floats

METHOD = "moving-block-bootstrap-95"
RESAMPLES = 1000
CHUNK = 100  # resamples at a time: flat memory for traces of any length
SEED = 20261124  # any fixed number would do


@dataclass(frozen=True)
class Memory:
    """How far values in a row resemble one another: the block length, and how many independent ones have a mean as uncertain."""

    block: int
    independent: float


def memory(values: Sequence[float]) -> Memory:
    """Politis and White's block length for the ranks of `values` in the order of the requests; 1 for values without correlation."""
    n = len(values)
    if n < 10:
        return Memory(max(1, n // 2), min(n, 2))
    _, which, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2)[which]  # equal values share the middle of their ranks
    ranks -= ranks.mean()
    most = math.ceil(min(3 * math.sqrt(n), n / 3))
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    lags = min(most + run, n - 1)
    covariance = np.array([float(ranks[k:] @ ranks[: n - k]) / n for k in range(lags + 1)])
    if covariance[0] < 1e-9:
        return Memory(1, n)
    limit = 2 * math.sqrt(math.log10(n) / n)
    small = np.abs(covariance[1:] / covariance[0]) < limit
    # The last lag before `run` of them in a row are within noise.
    ends = [k for k in range(len(small) - run + 1) if small[k : k + run].all()]
    bandwidth = min(2 * ends[0], lags) if ends else lags
    if bandwidth == 0:
        return Memory(1, n)
    k = np.arange(1, bandwidth + 1)
    window = np.clip(2 * (1 - k / bandwidth), 0, 1)  # flat-top lag window: 1 up to half of the bandwidth, then down to 0
    spectrum = float(covariance[0] + 2 * (window * covariance[k]).sum())
    slope = float(2 * (window * k * covariance[k]).sum())
    if spectrum <= 0:
        return Memory(most, n)
    block = math.ceil((2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * n ** (1 / 3))
    return Memory(int(np.clip(block, 1, most)), float(np.clip(n * covariance[0] / spectrum, 1, n)))


def resampled(values: Sequence[float], length: int) -> Iterator[Floats]:
    """Resamples in chunks, one row each, as long as `values`."""
    n = len(values)
    drawn = np.random.default_rng([SEED, n, length])
    data = np.asarray(values, dtype=np.float64)
    for _ in range(RESAMPLES // CHUNK):
        starts = drawn.integers(0, n - length + 1, size=(CHUNK, math.ceil(n / length)))
        yield data[(starts[:, :, None] + np.arange(length)).reshape(CHUNK, -1)[:, :n]]


def quantile_bounds(values: Sequence[float], p: float, alpha_lo: float, alpha_hi: float) -> tuple[float | None, float | None]:
    """Percentile interval of the p-quantile of `values` (in the order of the requests; +inf for failed ones).

    Never tighter than exact ranks of as many independent requests as these are worth: a resample has no value beyond the largest seen, and the
    upper bound of a p95 of 120 requests was too low in 11 % of simulated runs instead of 2.5 %. None where those give no bound.
    """
    n = len(values)
    if n == 0:
        return None, None
    found = memory(values)
    worth = int(found.independent)
    lo_rank, hi_rank = quantile_ranks(worth, p, alpha_lo, alpha_hi)
    kth = rank(n, p) - 1
    samples = np.concatenate([np.partition(rows, kth, axis=1)[:, kth] for rows in resampled(values, found.block)])
    ordered = np.sort(np.asarray(values, dtype=np.float64))

    def at(rank_of_worth: int) -> float:
        return float(ordered[math.ceil(rank_of_worth * n / worth) - 1])

    lo = min(float(np.quantile(samples, alpha_lo, method="inverted_cdf")), at(lo_rank)) if lo_rank else None
    hi = max(float(np.quantile(samples, 1 - alpha_hi, method="inverted_cdf")), at(hi_rank)) if hi_rank else None
    return lo, hi


def share_bounds(misses: Sequence[bool], alpha_lo: float, alpha_hi: float) -> tuple[float, float]:
    """Bounds of the share of True. Never tighter than Clopper-Pearson on as many independent requests as these are worth: without a miss
    every resample has none, which proves nothing.
    """
    n = len(misses)
    if n == 0:
        return 0.0, 1.0
    values = [float(miss) for miss in misses]
    found = memory(values)
    shares = np.concatenate([rows.mean(axis=1) for rows in resampled(values, found.block)])
    lo, hi = (float(np.quantile(shares, q, method="inverted_cdf")) for q in (alpha_lo, 1 - alpha_hi))
    seen = sum(values) / n * found.independent
    return min(lo, share_lower(seen, found.independent, alpha_lo)), max(hi, share_upper(seen, found.independent, alpha_hi))

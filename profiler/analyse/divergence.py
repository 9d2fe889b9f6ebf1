"""How far a variant's next-token distributions are from the reference's: KL divergence and top-1 agreement from the most probable tokens of both.

Of each place only two lists are known, the k most probable tokens of either model. KL is therefore of the coarser distributions over the tokens
that are in both lists, one by one, and one bucket for all others. Joining outcomes never adds divergence (the data-processing inequality; for
a partition it is the log sum inequality: Cover and Thomas, Elements of Information Theory, 2nd edition, theorem 2.7.1), so it is a lower bound
of the KL over the whole vocabulary. Pure functions of arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.analyse.quality import Drift, over_windows

Top = tuple[NDArray[np.int32], NDArray[np.float32]]  # ids and log-probabilities (nats), both [places, k], best first
FLOOR = 1e-7  # of a bucket's probability: below it there is rounding only, 1 minus a sum in 32-bit floats
PIECE = 4096  # places at a time: k * k comparisons of each are in memory
EDGES = (1, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # tokens before the scored one, where a part of the window begins


@dataclass(frozen=True)
class Estimate:
    """A mean over tokens; one-sided 95 % bounds by bootstrap over windows, None with fewer windows than `quality.MIN_WINDOWS`."""

    value: float
    lo: float | None
    hi: float | None
    windows: int
    tokens: int


@dataclass(frozen=True)
class PerToken:
    """Order statistics over the tokens: a mean may be many small changes or a few large ones. Nats."""

    p50: float
    p90: float
    p99: float
    largest: float


@dataclass(frozen=True)
class PositionDrift:
    """One part of the windows: the tokens that have `first` to `last` tokens before them."""

    first: int
    last: int
    drift: Drift
    kl: Estimate | None
    top1: Estimate | None


def kl_per_place(reference: Top, variant: Top) -> NDArray[np.float64]:
    """KL(reference || variant) of each place, nats: over the tokens that both lists hold, and the rest. Raises ValueError if not paired."""
    if len(reference[0]) != len(variant[0]):
        raise ValueError("KL needs the same places of both")
    (ids, log_p), (other_ids, other_log_q) = reference, variant
    pieces = [slice(k, k + PIECE) for k in range(0, len(ids), PIECE)]
    return np.concatenate([_kl(ids[at], log_p[at].astype(np.float64), other_ids[at], other_log_q[at].astype(np.float64)) for at in pieces])


def _kl(
    ids: NDArray[np.int32], log_p: NDArray[np.float64], other_ids: NDArray[np.int32], other_log_q: NDArray[np.float64]
) -> NDArray[np.float64]:
    same = ids[:, :, None] == other_ids[:, None, :]
    shared = same.any(axis=2)
    log_q = np.where(same, other_log_q[:, None, :], 0.0).sum(axis=2)  # a token is in a list once
    p = np.where(shared, np.exp(log_p), 0.0)
    rest_p = np.maximum(FLOOR, 1.0 - p.sum(axis=1))
    rest_q = np.maximum(FLOOR, 1.0 - np.where(shared, np.exp(log_q), 0.0).sum(axis=1))
    found: NDArray[np.float64] = (p * np.where(shared, log_p - log_q, 0.0)).sum(axis=1) + rest_p * np.log(rest_p / rest_q)
    found[found < 0] = 0.0  # by rounding only
    return found


def top1_per_place(reference: Top, variant: Top) -> NDArray[np.float64]:
    """1 where both find the same token most probable, else 0."""
    return np.asarray(reference[0][:, 0] == variant[0][:, 0], dtype=np.float64)


def estimate(values: NDArray[np.float64], tokens: Sequence[int]) -> Estimate:
    """`values`: one per scored token, windows one after the other; `tokens`: how many each window has. Raises ValueError if they do not fit."""
    if sum(tokens) != len(values) or not len(values):
        raise ValueError("one value per scored token")
    sums = np.array([window.sum() for window in np.split(values, np.cumsum(tokens)[:-1])], dtype=np.float64)
    mean, lo, hi = over_windows(sums, np.array(tokens, dtype=np.float64))
    return Estimate(mean, lo, hi, len(tokens), len(values))


def per_token(values: NDArray[np.float64]) -> PerToken:
    ordered = np.sort(values)
    p50, p90, p99 = (float(ordered[max(0, math.ceil(q * len(ordered)) - 1)]) for q in (0.5, 0.9, 0.99))
    return PerToken(p50, p90, p99, float(ordered[-1]))


def parts(longest: int) -> list[tuple[int, int]]:
    """(first, last) tokens before the scored one, of windows that score `longest` tokens."""
    edges = [edge for edge in EDGES if edge <= longest]
    return [(a, b - 1) for a, b in zip(edges, [*edges[1:], longest + 1], strict=True)]

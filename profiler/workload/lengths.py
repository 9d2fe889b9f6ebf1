"""How many tokens go in and come out of each request: pure functions of a spec and a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import pairwise
from statistics import NormalDist

from profiler.errors import SpecError
from profiler.spec import FixedLengths, Lengths

_NORMAL = NormalDist()


def draw(lengths: Lengths, n: int, seed: int) -> list[tuple[int, int]]:
    """`n` pairs (input tokens, output tokens). The first k of a longer draw are the draw of k.

    Quantile tables are inverted (inverse transform), log-linear between the published points. Input and output lengths are tied by a
    Gaussian copula with the stated rank correlation (Spearman's rho; r = 2 sin(pi rho / 6), Kruskal 1958).
    """
    if isinstance(lengths, FixedLengths):
        return [(lengths.isl, lengths.osl)] * n
    isl, osl = table(lengths.isl, "lengths.isl"), table(lengths.osl, "lengths.osl")
    r = 2 * math.sin(math.pi * lengths.correlation / 6)
    source = random.Random(seed)
    pairs = []
    for _ in range(n):
        x, y = source.gauss(0, 1), source.gauss(0, 1)
        u, v = _NORMAL.cdf(x), _NORMAL.cdf(r * x + math.sqrt(1 - r * r) * y)
        pairs.append((quantile(isl, u), quantile(osl, v)))
    return pairs


def quantile(points: list[tuple[float, int]], u: float) -> int:
    """The length at probability `u` in [0, 1], log-linear between `points` (sorted by probability)."""
    for (p0, low), (p1, high) in pairwise(points):
        if u <= p1:
            share = (u - p0) / (p1 - p0)
            return max(1, round(math.exp(math.log(low) + share * (math.log(high) - math.log(low)))))
    return points[-1][1]


def table(points: Mapping[str, int], key: str) -> list[tuple[float, int]]:
    """Parse `{"0": 3, "0.5": 1020, "1": 14050}`. Raises SpecError unless it spans 0 to 1 and rises."""
    try:
        rows = sorted((float(p), int(tokens)) for p, tokens in points.items())
    except ValueError:
        raise SpecError(f"{key}: quantiles must be numbers from 0 to 1", hint='such as {"0" = 3, "0.5" = 1020, "1" = 14050}') from None
    tokens = [t for _, t in rows]
    if not rows or rows[0][0] != 0 or rows[-1][0] != 1 or tokens != sorted(tokens) or tokens[0] < 1:
        raise SpecError(f"{key}: the quantiles must run from 0 to 1 and never fall, and be at least 1", hint="give the points 0 and 1")
    return rows

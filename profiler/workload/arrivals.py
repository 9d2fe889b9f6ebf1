"""When requests are sent in an open loop: pure functions of a rate, a length and a seed."""

from __future__ import annotations

import math
import random

from profiler.units import NS_PER_S


def poisson_offsets_ns(rate: float, duration_s: float, seed: int) -> tuple[int, ...]:
    """Send times of a Poisson process in [0, `duration_s`), ns from the start.

    Gaps are independent and exponential with mean 1/`rate` s: users who know nothing of one another. Raises ValueError unless
    `rate` is above 0 and finite.
    """
    _check(rate)
    draw = random.Random(seed)
    offsets = []
    t_s = draw.expovariate(rate)
    while t_s < duration_s:
        offsets.append(int(t_s * NS_PER_S))
        t_s += draw.expovariate(rate)
    return tuple(offsets)


def constant_offsets_ns(rate: float, duration_s: float) -> tuple[int, ...]:
    """Equally spaced send times in [0, `duration_s`), ns from the start; the first at 0. Raises ValueError as above."""
    _check(rate)
    count = math.ceil(duration_s * rate)
    return tuple(t for i in range(count) if (t := int(i * NS_PER_S / rate)) < duration_s * NS_PER_S)


def _check(rate: float) -> None:
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"a request rate must be above 0 and finite, not {rate}")

"""Which input moves the answer most: one at a time to its low and high end, the others as they are (a tornado)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from profiler.analyse.offers import Offer

SWING = 0.2  # of what nobody gave an interval for


@dataclass(frozen=True)
class Bar:
    """Cost per 1,000 requests with the input at its low and its high end; None where there is no answer."""

    name: str
    low_input: str
    high_input: str
    low: float | None
    high: float | None

    @property
    def swing(self) -> float:
        return abs((self.high or 0.0) - (self.low or 0.0))


def tornado(offer: Offer, rate: float, limit: tuple[float, float | None], of: Callable[[Offer, float, float], float | None]) -> list[Bar]:
    """`of(offer, rate, λ*)` is the cost per 1,000 requests; `limit` the ends of λ*. The widest bar first."""
    lower, upper = limit
    bars = [
        Bar("demand", f"{rate / 2:g}/s", f"{rate * 2:g}/s", of(offer, rate / 2, lower), of(offer, rate * 2, lower)),
        Bar("λ*", f"{lower:.3g}/s", f"{upper or lower * 1.2:.3g}/s", of(offer, rate, lower), of(offer, rate, upper or lower * 1.2)),
    ]
    for key in ("price_per_hour", "purchase", "years", "power_w", "pue", "tariff_per_kwh", "support_per_year"):
        value = getattr(offer, key)
        if value is None or (key == "price_per_hour") != (offer.basis == "rented"):
            continue
        ends = value * (1 - SWING), value * (1 + SWING)
        if key == "pue":
            ends = max(1.0, ends[0]), ends[1]  # a data centre cannot use less than its machines
        results = [of(replace(offer, **{key: end}), rate, lower) for end in ends]
        bars.append(Bar(key, f"{ends[0]:g}", f"{ends[1]:g}", *results))
    return sorted(bars, key=lambda bar: bar.swing, reverse=True)

"""What a fleet costs: whole offers, three bases, per month and per 1,000 requests; what of it is idle, spare, or left over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from profiler.analyse.demand import SECONDS_PER_MONTH
from profiler.analyse.limit import Provenance
from profiler.analyse.offers import ApiPrice, Offer

HOURS_PER_MONTH = SECONDS_PER_MONTH / 3600
Relation = Literal["=", "<=", ">="]


@dataclass(frozen=True)
class Monthly:
    """One offer for one month. `missing` parts are unknown: then `total` is a lower bound; None when nothing is known."""

    total: float | None
    parts: tuple[tuple[str, float], ...]
    missing: tuple[str, ...]

    @property
    def kept(self) -> float:
        """What an offer costs whether it runs or not: purchase and support."""
        return sum(value for name, value in self.parts if name in ("purchase", "support"))


@dataclass(frozen=True)
class Saturation:
    """Requests/s of one replica that is asked for more than it can do. `proven`: a plateau was measured; otherwise it is at least this."""

    rate: float
    proven: bool
    reason: str


@dataclass(frozen=True)
class Point:
    """Cost at one rate. `relation`: the figures are exact, upper (`<=`) or lower (`>=`) bounds."""

    at: Literal["demand", "limit", "saturation"]
    rate: float
    per_month: float
    per_1k_requests: float
    per_1m_tokens: float | None
    relation: Relation
    per_1k_lo: float | None = None  # over the interval of λ*
    per_1k_hi: float | None = None


@dataclass(frozen=True)
class Cost:
    """`used` + `idle` + `spare` + `left_over` = the month at the demand. `left_over`: devices of whole offers that nobody uses.

    `offers`: those bought, of the hour that needs the most; of what is rented or already paid their mean over the day.
    """

    offer: Offer
    monthly: Monthly
    replicas_per_offer: int
    offers: int | float
    points: tuple[Point, ...]
    used: float
    idle: float
    spare: float
    left_over: float
    qos_price: float | None  # cost per request at λ* / at saturation
    qos_price_relation: Relation
    provenance: Provenance
    input_per_1m: float | None
    output_per_1m: float | None
    notes: tuple[str, ...]

    @property
    def offers_words(self) -> str:
        """Whole offers, or their mean over the day where replicas come and go."""
        return f"{self.offers:g}" if float(self.offers).is_integer() else f"{self.offers:.1f} on average"

    @property
    def partial(self) -> bool:
        """Whether a part of the price is not known, so that the figures are too low by it."""
        return bool(self.monthly.missing)

    def at(self, name: str) -> Point | None:
        return next((point for point in self.points if point.at == name), None)


def monthly(offer: Offer, power_w: float | None = None) -> Monthly:
    """One offer for a month, by its basis. `power_w`: measured at the wall, where the offer itself says none."""
    power = offer.power_w if offer.power_w is not None else power_w
    parts: list[tuple[str, float]] = []
    missing: list[str] = []
    if offer.basis == "rented":
        parts.append(("rent", (offer.price_per_hour or 0.0) * HOURS_PER_MONTH))
        return Monthly(parts[0][1], tuple(parts), ())
    if offer.basis == "owned":
        parts.append(("purchase", (offer.purchase or 0.0) / ((offer.years or 1.0) * 12)))
        if offer.support_per_year is None:
            missing.append("support_per_year")
        else:
            parts.append(("support", offer.support_per_year / 12))
    absent = [name for name, v in (("power_w", power), ("pue", offer.pue), ("tariff_per_kwh", offer.tariff_per_kwh)) if v is None]
    if power is not None and offer.pue is not None and offer.tariff_per_kwh is not None:
        parts.append(("power", power / 1000 * offer.pue * HOURS_PER_MONTH * offer.tariff_per_kwh))
    missing += absent
    return Monthly(sum(value for _, value in parts) if parts else None, tuple(parts), tuple(missing))


def order(cost: Cost) -> tuple[bool, float]:
    """For the cheapest first, and what is wholly known before what lacks a part of its price."""
    return cost.partial, cost.points[0].per_1k_requests


def cost(
    offer: Offer,
    rate: float,
    replicas: float | Sequence[float],
    spares: int,
    limit_lower: float,
    limit_upper: float | None,
    saturation: Saturation | None,
    tokens_per_request: float | None,
    replicas_per_offer: int = 1,
    provenance: Provenance = "measured",
    power_w: float | None = None,
    fewest: float | Sequence[float] | None = None,
    prefill_share: float | None = None,
    isl_osl: tuple[float, float] | None = None,
    floor: bool = False,
) -> Cost | str:
    """The cost of `replicas` (+ spares) at `rate`; a text says why there is none. `fewest`: replicas at the upper end of λ*.

    `replicas` in a sequence: of each hour of a day. Each hour has whole offers; those that are bought are bought for the one that needs the most.

    `floor`: λ* is at most `limit_lower`, so that the costs at the demand and at λ* are lower bounds.
    """
    month = monthly(offer, power_w)
    if month.total is None:
        return f"{offer.name} ({offer.basis}): not costed: no {', '.join(month.missing)}"
    k, total, kept = replicas_per_offer, month.total, month.kept
    hours = tuple(replicas) if isinstance(replicas, Sequence) else (replicas,)
    most, mean = max(hours), sum(hours) / len(hours)
    peak, average = _whole(hours, spares, k)
    per_month = peak * kept + average * (total - kept)
    share = total / k
    used = min(rate / limit_lower, mean) * share
    relation: Relation = ">=" if month.missing or floor else "="
    points = [_point("demand", rate, per_month, tokens_per_request, relation)]
    few = hours if fewest is None else tuple(fewest) if isinstance(fewest, Sequence) else (fewest,)
    few_peak, few_average = _whole(few, spares, k)
    cheapest = few_peak * kept + few_average * (total - kept)
    points[0] = replace(points[0], per_1k_lo=_per_1k(min(cheapest, per_month), rate), per_1k_hi=points[0].per_1k_requests)
    at_limit = _point("limit", limit_lower, share, tokens_per_request, relation)
    lo = _per_1k(share, limit_upper) if limit_upper else None
    points.append(replace(at_limit, per_1k_lo=lo, per_1k_hi=at_limit.per_1k_requests))
    qos_price, price_relation = None, "="
    if saturation is not None:
        best = max(saturation.rate, limit_lower)
        proven = saturation.proven and saturation.rate >= limit_lower
        exact: Relation = ">=" if month.missing else "="
        points.append(_point("saturation", best, share, tokens_per_request, exact if proven else "<="))
        qos_price, price_relation = best / limit_lower, "=" if proven and not floor else ">="
    notes = [f"without {', '.join(month.missing)}"] if month.missing else []
    if k > 1:
        notes.append(f"{k} replicas in one offer: predicted until they were measured beside one another")
        provenance = "predicted"
    demanded = points[0]
    split: tuple[float | None, float | None] = (None, None)
    if prefill_share is not None and isl_osl is not None:
        split = split_by_direction(demanded.per_1k_requests / 1000, prefill_share, *isl_osl)
    return Cost(
        offer, month, k, peak if offer.basis == "owned" else average, tuple(points),
        used=used, idle=(most * kept + mean * (total - kept)) / k - used, spare=spares * share,
        left_over=((peak * k - most - spares) * kept + (average * k - mean - spares) * (total - kept)) / k,
        qos_price=qos_price, qos_price_relation=price_relation,  # type: ignore[arg-type]
        provenance=provenance, input_per_1m=split[0], output_per_1m=split[1], notes=tuple(notes),
    )  # fmt: skip


def _whole(hours: Sequence[float], spares: int, k: int) -> tuple[int, int | float]:
    """(offers of the hour that needs the most, their mean over the hours): whole ones in each."""
    offers = [math.ceil((n + spares) / k - 1e-9) for n in hours]
    mean = sum(offers) / len(offers)
    return max(offers), int(mean) if mean.is_integer() else mean


def split_by_direction(per_request: float, prefill_share: float, isl: float, osl: float) -> tuple[float, float]:
    """Cost per 1M input and output tokens by the engine's time for each, so that isl and osl of them make up the request."""
    return per_request * prefill_share / isl * 1e6, per_request * (1 - prefill_share) / osl * 1e6


def saturation_of(points: Sequence[tuple[float, float]]) -> Saturation | None:
    """From (users, requests/s) of a closed-loop ladder. A plateau: half as many users or fewer give 95 % of the highest rate."""
    if not points:
        return None
    best = max(rate for _, rate in points)
    flat = [(u, r) for u, r in points if r >= 0.95 * best]
    fewest, most = min(flat)[0], max(flat)[0]
    if most >= 2 * fewest:
        return Saturation(best, True, f"plateau: {fewest:g} to {most:g} users give the same rate within 5 %")
    return Saturation(best, False, f"no plateau up to {max(points)[0]:g} users: it may go higher; measure more users")


@dataclass(frozen=True)
class BreakEven:
    """Own against hosted, over requests per month. `from_requests` None: own costs more at every volume that it carries."""

    api: ApiPrice
    api_per_1k: float
    own_per_1k: float  # at λ*, of full replicas in whole offers
    from_requests: float | None
    share_of_limit: float | None  # of one offer's capacity at λ* (with the daily peak) where own begins to cost less
    again_from: float | None  # above this it is the hosted one again, until the second offer is filled enough
    text: str


def break_even(offer: Offer, month: float, carried_rps: float, isl: float, osl: float, api: ApiPrice, peak: float = 1.0) -> BreakEven:
    """`carried_rps`: of one whole offer at λ*; with a daily peak its mean is that / `peak`. Tokens are taken for the same."""
    per_request = (isl * api.input_per_million + osl * api.output_per_million) / 1e6
    most = carried_rps / peak * SECONDS_PER_MONTH
    own = month / most
    start = month / per_request if per_request > 0 else math.inf
    if start > most:
        text = (
            f"never: a full {offer.name} costs {own / per_request:.3g} times as much per request as {api.name}" if per_request else "never"
        )
        return BreakEven(api, per_request * 1e3, own * 1e3, None, None, None, text)
    again = most if 2 * start > most else None
    text = f"own costs less from {start:,.0f} requests a month ({start / most:.0%} of one offer's λ*)"
    if again is not None:
        text += f"; with a second offer from {2 * start:,.0f}, hosted between {most:,.0f} and that"
    return BreakEven(api, per_request * 1e3, own * 1e3, start, start / most, again, text)


def _point(at: Literal["demand", "limit", "saturation"], rate: float, per_month: float, tokens: float | None, relation: Relation) -> Point:
    per_1k = _per_1k(per_month, rate)
    return Point(at, rate, per_month, per_1k, per_1k / 1e3 / tokens * 1e6 if tokens else None, relation)


def _per_1k(per_month: float, rate: float) -> float:
    return per_month / (rate * SECONDS_PER_MONTH) * 1e3

"""The money of one candidate: every offer of its device at the demand, at λ* and at saturation; break-even; which input matters most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from profiler.analyse import capacity as sizing
from profiler.analyse import law as steps
from profiler.analyse.cost import BreakEven, Cost, Saturation, break_even, cost, order
from profiler.analyse.demand import Demand
from profiler.analyse.footprint import fitted as fit_into
from profiler.analyse.footprint import footprint, is_cpu
from profiler.analyse.limit import Row
from profiler.analyse.offers import Offer
from profiler.analyse.sensitivity import Bar, tornado

if TYPE_CHECKING:
    from profiler.analyse.fit import Question

SPLIT_ERROR = 0.25  # the law's largest error for which its time is split into input and output


def money(
    question: Question,
    row: Row,
    document: Mapping[str, Any],
    span: sizing.Range | None,
    saturation: Saturation | None,
    demand: Demand | None,
    sized: sizing.Capacity | None,
    fitted: steps.Law | None,
    isl: float | None,
    osl: float | None,
    missing: list[str],
    floor: bool = False,
    rows: Sequence[Row] = (),
) -> tuple[tuple[Cost, ...], tuple[Bar, ...], BreakEven | None]:
    """(costs, cheapest first; sensitivity of the cheapest; break-even). `floor`: λ* is at most what `span` says, so costs are at least this.

    `row` is the newest run; `rows`: all valid ones, of which the power is taken.
    """
    device = row["device"]
    if device is None:
        missing.append(f"not costed: {row['backend']} ran on a device that nobody declared; measure again with the device declared")
        return (), (), None
    if span is None:
        return (), (), None
    taken = footprint(row, document)
    offers = [*declared(question, row, taken.devices, missing), *question.prices.of_device(device)]
    if not offers:
        missing.append(
            f'not costed: no price for {device}; give --offer "{device}=PRICE {question.prices.currency}/h DATE" or a prices TOML (--prices)'
        )
        return (), (), None
    if demand is not None and sized is None:
        return (), (), None
    rate = demand.rate if demand is not None and demand.rate is not None else span.lower
    hours = (sized.hours or (sized.replicas,)) if sized is not None else (1,)
    share = _prefill_share(fitted, isl, osl)
    tokens = (isl or 0.0) + (osl or 0.0) or None
    if (
        row.get("device_source") == "declared"
        and row["provenance_class"] == "measured"
        and not row.get("device_count")
        and not is_cpu(device)
    ):
        missing.append(f"costs: how many {device} serve {row['backend']} was not declared (--device-count): taken for one")
    watts = power_w(rows or (row,), span.lower)

    def of(offer: Offer, at: float, limit: float, count: Sequence[int], few: Sequence[int]) -> Cost | str:
        whole, k = fit_into(offer, device, taken)
        lengths = (isl, osl) if isl and osl else None
        spares = sized.spares if sized else 0
        power = watts * k if watts is not None else None
        return cost(whole, at, count, spares, limit, span.upper, saturation, tokens, k, span.provenance, power, few, share, lengths, floor)

    fewest = [math.ceil(n * sized.fewest / sized.replicas - 1e-9) for n in hours] if sized is not None else [1]
    found = [(offer, of(offer, rate, span.lower, hours, fewest)) for offer in offers]
    made = sorted(((offer, c) for offer, c in found if isinstance(c, Cost)), key=lambda one: order(one[1]))
    missing += [text for _, text in found if isinstance(text, str)]
    if not made:
        return (), (), None
    offer, cheapest = next((one for one in made if one[0].basis != "paid"), made[0])
    factors = _factors(demand, len(hours))

    def per_1k(offer: Offer, at: float, limit: float) -> float | None:
        """Whole replicas by λ* alone, and what the replay asked for beyond them in proportion: in the middle it is what is printed."""
        scaled = [math.ceil(_least(at * f, limit) * n / _least(rate * f, span.lower) - 1e-9) for n, f in zip(hours, factors, strict=True)]
        result = of(offer, at, limit, scaled, scaled)
        return result.points[0].per_1k_requests if isinstance(result, Cost) else None

    bars = tornado(offer, rate, (span.lower, span.upper), per_1k)
    return tuple(c for _, c in made), tuple(bars), _even(question, row, cheapest, span, demand, isl, osl, missing)


def _even(
    question: Question,
    row: Row,
    cheapest: Cost,
    span: sizing.Range,
    demand: Demand | None,
    isl: float | None,
    osl: float | None,
    missing: list[str],
) -> BreakEven | None:
    """Against the hosted model that was named, else the cheapest of the same name."""
    if question.api is not None:
        api = question.prices.api(question.api)
    else:
        name = str(row["model"] or "").rpartition("/")[2].lower()
        same = [api for api in question.prices.apis if name.startswith(api.model)]
        if not same:
            missing.append(f"break-even: no hosted price of {row['model']}; give --api MODEL@PROVIDER or an [[api]] row in --prices")
            return None
        api = min(same, key=lambda a: a.input_per_million + a.output_per_million)
    if not isl or not osl or cheapest.monthly.total is None:
        return None
    carried = span.lower * cheapest.replicas_per_offer
    return break_even(cheapest.offer, cheapest.monthly.total, carried, isl, osl, api, demand.peak if demand else 1.0)


def declared(question: Question, row: Row, devices: int | None, missing: list[str]) -> list[Offer]:
    """The price that was declared with the run, of its whole endpoint, as an offer of its own."""
    price = row.get("price_usd_per_hour")
    if price is None:
        return []
    if question.prices.currency != "USD":
        missing.append(
            f"the declared price of {row['backend']} ({price:g} USD/h) is not in {question.prices.currency}: nothing is converted"
        )
        return []
    day = str(row.get("import_date") or row.get("started_at") or "")[:10]
    name, source = f"{row['backend']} as declared", "declared with the run"
    return [Offer(name, str(row["device"]), "rented", "USD", day, source, devices=devices or 1, price_per_hour=price)]


def _factors(demand: Demand | None, hours: int) -> list[float]:
    """The demand that each hour is held for, by the mean: its own or the next one's; of a fleet that stays the same the peak."""
    if demand is None:
        return [1.0] * hours
    if hours == 1:
        return [demand.peak]
    return [max(factor, demand.shape[(h + 1) % hours]) for h, factor in enumerate(demand.shape)]


def _least(rate: float, limit: float) -> int:
    return max(1, math.ceil(rate / limit - 1e-9))


def power_w(rows: Sequence[Row], rate: float) -> float | None:
    """Measured power of the whole machine in the window of the run nearest to `rate`; None where only a part of it was measured, or nothing.

    Of two as near the newer one.
    """
    known = [row for row in rows if row.get("energy_j") is not None and row.get("window_s") and row.get("energy_scope") in ("host", "wall")]
    near = min(reversed(known), key=lambda row: abs((row.get("request_rate") or math.inf) - rate), default=None)
    return near["energy_j"] / near["window_s"] if near is not None else None


def _prefill_share(fitted: steps.Law | None, isl: float | None, osl: float | None) -> float | None:
    """Share of a request's engine time that reads its prompt, where the fitted steps are known well enough to say so."""
    if fitted is None or not isl or not osl or fitted.error is None or fitted.error > SPLIT_ERROR or not fitted.prefill_s:
        return None
    running = max(1.0, fitted.highest_running)
    decode = osl * (fitted.base_s + fitted.running_s * running) / running
    return fitted.prefill_s * isl / (fitted.prefill_s * isl + decode)

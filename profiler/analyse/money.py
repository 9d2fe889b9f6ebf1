"""The money of one candidate: every offer of its device at the demand, at λ* and at saturation; break-even; which input matters most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from profiler.analyse import capacity as sizing
from profiler.analyse import law as steps
from profiler.analyse.cost import BreakEven, Cost, Saturation, break_even, cost
from profiler.analyse.demand import Demand
from profiler.analyse.limit import Row
from profiler.analyse.offers import Offer, device_id
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
) -> tuple[tuple[Cost, ...], tuple[Bar, ...], BreakEven | None]:
    """(costs, cheapest first; sensitivity of the cheapest; break-even). `floor`: λ* is at most what `span` says, so costs are at least this."""
    device = row["device"]
    if device is None:
        missing.append(f"not costed: {row['backend']} ran on a device that nobody declared; measure again with the device declared")
        return (), (), None
    if span is None:
        return (), (), None
    offers = question.prices.of_device(device)
    if not offers:
        missing.append(
            f'not costed: no price for {device}; give --offer "{device}=PRICE {question.prices.currency}/h DATE" or a prices TOML (--prices)'
        )
        return (), (), None
    if demand is not None and sized is None:
        return (), (), None
    rate = demand.rate if demand is not None and demand.rate is not None else span.lower
    replicas = sized.mean_replicas if sized is not None else 1.0
    fewest = sized.fewest if sized is not None else 1
    threads = (document.get("machine") or {}).get("threads")
    share = _prefill_share(fitted, isl, osl)
    tokens = (isl or 0.0) + (osl or 0.0) or None

    def of(offer: Offer, at: float, limit: float, count: float, few: float) -> Cost | str:
        k = replicas_per_offer(offer, device, threads)
        lengths = (isl, osl) if isl and osl else None
        spares = sized.spares if sized else 0
        power = power_w(row)
        return cost(offer, at, count, spares, limit, span.upper, saturation, tokens, k, span.provenance, power, few, share, lengths, floor)

    made = [of(offer, rate, span.lower, replicas, fewest) for offer in offers]
    costs = sorted((c for c in made if isinstance(c, Cost)), key=lambda c: c.points[0].per_1k_requests)
    missing += [text for text in made if isinstance(text, str)]
    if not costs:
        return (), (), None
    cheapest = next((c for c in costs if c.offer.basis != "paid"), costs[0])

    def per_1k(offer: Offer, at: float, limit: float) -> float | None:
        peak = demand.peak if demand is not None else 1.0
        count = max(1, -(-at * peak // limit)) * (replicas / max(1, -(-rate * peak // span.lower)))
        result = of(offer, at, limit, max(1, round(count)), max(1, round(count)))
        return result.points[0].per_1k_requests if isinstance(result, Cost) else None

    bars = tornado(cheapest.offer, rate, (span.lower, span.upper), per_1k)
    return tuple(costs), tuple(bars), _even(question, row, cheapest, span, demand, isl, osl, missing)


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


def replicas_per_offer(offer: Offer, device: str, threads: int | None) -> int:
    """How many of what was measured one offer holds: its accelerators, or of a CPU node its threads / those of the measured machine."""
    if not _is_cpu(device, offer):
        return max(1, offer.devices)
    if offer.vcpus is not None and threads:
        return max(1, offer.vcpus // threads)
    return 1  # a run of a CPU is of the whole node, all its sockets


def _is_cpu(device: str, offer: Offer) -> bool:
    known = device_id(device) or offer.device
    return not any(maker in known.lower() for maker in ("nvidia", "amd-mi", "gaudi", "arc"))


def power_w(row: Row) -> float | None:
    """Measured power of the whole node in the window; None where only a part of it was measured, or nothing."""
    energy, window = row.get("energy_j"), row.get("window_s")
    return energy / window if energy is not None and window and row.get("energy_scope") in ("host", "wall") else None


def _prefill_share(fitted: steps.Law | None, isl: float | None, osl: float | None) -> float | None:
    """Share of a request's engine time that reads its prompt, where the fitted steps are known well enough to say so."""
    if fitted is None or not isl or not osl or fitted.error is None or fitted.error > SPLIT_ERROR or not fitted.prefill_s:
        return None
    running = max(1.0, fitted.highest_running)
    decode = osl * (fitted.base_s + fitted.running_s * running) / running
    return fitted.prefill_s * isl / (fitted.prefill_s * isl + decode)

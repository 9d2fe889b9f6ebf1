"""Which (model x variant x device) for a demand: ranked by cost per request within one provenance class, the Pareto front, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.analyse.capacity import REQUESTS, SEED, UNKNOWN_ERROR
from profiler.analyse.fit import Answer, Candidate
from profiler.analyse.percentiles import order_statistic
from profiler.analyse.replicas import replay
from profiler.units import format_duration

CLASSES = ("measured", "imported", "predicted")


@dataclass(frozen=True)
class Ranking:
    """`by_class`: cheapest first, classes apart. `pareto`: no other is better in cost and latency at once (quality: none in the store)."""

    workload: str
    by_class: tuple[tuple[str, tuple[Candidate, ...]], ...]
    pareto: tuple[Candidate, ...]
    sentence: str
    change: str
    notes: tuple[str, ...]


def rankings(answer: Answer) -> list[Ranking]:
    return [_ranking(answer, workload) for workload in answer.workloads]


def _ranking(answer: Answer, workload: str) -> Ranking:
    own = answer.of(workload)
    ready = [c for c in own if c.cheapest is not None and (c.capacity is not None or answer.question.demand is None)]
    by_class = tuple((name, tuple(sorted((c for c in ready if c.provenance == name), key=_per_1k))) for name in CLASSES)
    by_class = tuple((name, found) for name, found in by_class if found)
    notes = []
    if len(by_class) > 1:
        notes.append(f"{' and '.join(name for name, _ in by_class)} rows stand side by side: each class is ranked by itself")
    notes.append("quality is not in the store: the front is of cost and latency alone")
    models = {c.row["model"] for c in own}
    if len(models) > 1:
        notes.append("models differ: their tokens are not the same thing, compare costs per request")
    return Ranking(
        workload, by_class, pareto(ready), _sentence(answer, workload, own, by_class), _change(answer, own, by_class), tuple(notes)
    )


def pareto(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Within each class, whom no other beats or equals in cost and TTFT p95 and beats in one of them."""

    def worse(a: Candidate, b: Candidate) -> bool:
        x, y = (_per_1k(a), _latency(a)), (_per_1k(b), _latency(b))
        return a.provenance == b.provenance and y[0] <= x[0] and y[1] <= x[1] and y != x

    return tuple(c for c in candidates if not any(worse(c, other) for other in candidates))


def _sentence(answer: Answer, workload: str, own: Sequence[Candidate], by_class: Sequence[tuple[str, tuple[Candidate, ...]]]) -> str:
    demand = answer.question.demand
    asked = f"{demand.text} of {workload}" if demand is not None else workload
    qos = str(answer.question.target)
    if by_class:
        name, found = by_class[0]
        best = found[0]
        money = best.cheapest
        assert money is not None
        point, currency = money.points[0], money.offer.currency
        count = f"{best.capacity.replicas} replica{'s' if best.capacity.replicas != 1 else ''} in " if best.capacity else ""
        begin = (
            f"By imported means alone, which have no bounds, the cheapest for {qos} at"
            if name == "imported"
            else f"Cheapest that keeps {qos} at"
        )
        unknown = best.estimate is not None and not best.estimate.checked
        doubt = " Whether it keeps the target was not published: it may need more." if unknown else ""
        least = "at least " if name == "imported" else ""
        return (
            f"{begin} {asked}: {best.name} on {best.row['device']}, {count}{money.offers_words} x {money.offer.name} "
            f"({money.offer.basis}): {least}{point.per_month:,.2f} {currency} a month, {point.per_1k_requests:.3g} {currency} per 1,000 requests ({name}).{doubt}"
        )
    sized = [c for c in own if c.capacity is not None]
    if sized:
        best = min(sized, key=lambda c: (c.capacity.replicas if c.capacity else 0, -(c.span.lower if c.span else 0)))
        assert best.capacity is not None
        n = best.capacity.replicas
        return f"Fewest replicas that keep {qos} at {asked}: {n} of {best.name} on {best.row['device']} ({best.provenance}); nothing is costed."
    if own and all(c.published is not None for c in own):
        return f"Nothing is proven to keep {qos} at {asked}: imported figures have no bounds."
    return f"Nothing keeps {qos} at {asked} by what the store holds."


def _change(answer: Answer, own: Sequence[Candidate], by_class: Sequence[tuple[str, tuple[Candidate, ...]]]) -> str:
    """The smallest change that would make something cheaper fit."""
    options: list[tuple[float, str]] = []
    best = by_class[0][1][0] if by_class else None
    if best is not None and best.capacity is not None and best.span is not None and best.demand is not None and best.demand.rate:
        fewer = best.capacity.replicas - 1
        if fewer >= 1:
            most = fewer * best.span.lower / best.demand.peak
            less = 1 - most / best.demand.rate
            if less > 0:
                text = f"{best.name}: one replica less would do for {most:.3g} requests/s ({less:.0%} less demand)"
                options.append((less, f"{text}, or with a λ* of {best.demand.rate * best.demand.peak / fewer:.3g}/s"))
    dearest = best.cheapest.points[0].per_month if best is not None and best.cheapest is not None else None
    for c in own:
        if c is best or c.span is not None:
            continue
        offers = answer.question.prices.of_device(str(c.row["device"])) if c.row["device"] else []
        cheaper = dearest is None or any((o.price_per_hour or 1e18) * 730 < dearest for o in offers)
        relaxed = relaxation(c)
        if cheaper and relaxed is not None:
            options.append((relaxed[0], f"{c.name} would fit with {relaxed[1]}"))
    if options:
        return f"Smallest change: {min(options)[1]}."
    return "No smaller configuration is left among what was measured." if best is not None else ""


def relaxation(candidate: Candidate) -> tuple[float, str] | None:
    """(relative change, limits) that one replica would keep at the demand by its step times, longer by their error; None without those.

    Only limits on percentiles are loosened: others have no single number that would do.
    """
    target, law, demand = candidate.target, candidate.law, candidate.demand
    if law is None or demand is None or demand.rate is None or not candidate.lengths:
        return None
    error = law.error if law.error is not None else UNKNOWN_ERROR
    arrivals = demand.arrivals(REQUESTS, SEED)
    lengths = [candidate.lengths[k % len(candidate.lengths)] for k in range(len(arrivals))]
    served = replay(arrivals, lengths, law.slower(1 + error), 1)[len(arrivals) // 10 :]
    texts, change = [], 0.0
    for c in target.constraints:
        if c.kind != "percentile":
            continue
        limit = c.limits[0]
        values = [value for r in served if (value := limit.value(r)) is not None]
        seen = order_statistic(values, c.share)
        if seen is not None and seen > limit.limit_s:
            texts.append(
                f"{str(c).partition('<')[0]}<={format_duration(seen)}{'+' + format_duration(limit.per_token_s) + '*isl' if limit.per_token_s else ''}"
            )
            change = max(change, seen / limit.limit_s - 1)
    return (change, f"{', '.join(texts)} (+{change:.0%}, predicted for one replica)") if texts else None


def _per_1k(candidate: Candidate) -> float:
    best = candidate.cheapest
    return best.points[0].per_1k_requests if best is not None else float("inf")


def _latency(candidate: Candidate) -> float:
    value = candidate.capacity.ttft_p95_s if candidate.capacity is not None else None
    return value if value is not None else float("inf")

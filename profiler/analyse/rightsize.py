"""Which (model x variant x device) for a demand: ranked by cost per request within one provenance class, the Pareto front, one sentence.

With margins for quality only those that are proven non-inferior are ranked. The front is of cost (of λ* where nothing is costed), latency and
quality, by their estimates; what was not evaluated is neither better nor worse in quality, so nobody beats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.analyse.capacity import REQUESTS, SEED, UNKNOWN_ERROR, sample_of
from profiler.analyse.cost import monthly, order
from profiler.analyse.edge import LEFT_OUT
from profiler.analyse.fit import Answer, Candidate
from profiler.analyse.footprint import fitted
from profiler.analyse.ladder import Ladder, ladders, size_of
from profiler.analyse.money import declared, power_w
from profiler.analyse.percentiles import order_statistic
from profiler.analyse.quality_words import told
from profiler.analyse.replicas import replay
from profiler.units import format_duration

CLASSES = ("measured", "imported", "predicted")


@dataclass(frozen=True)
class Ranking:
    """`by_class`: cheapest first, classes apart. `pareto`: no other is as good in cost, latency and quality and better in one of them."""

    workload: str
    by_class: tuple[tuple[str, tuple[Candidate, ...]], ...]
    pareto: tuple[Candidate, ...]
    sentence: str
    change: str
    notes: tuple[str, ...]
    ladders: tuple[Ladder, ...] = ()


def rankings(answer: Answer) -> list[Ranking]:
    return [_ranking(answer, workload) for workload in answer.workloads]


def _ranking(answer: Answer, workload: str) -> Ranking:
    own = answer.of(workload)
    good = [c for c in own if passes(c)]
    ready = [c for c in good if c.cheapest is not None and (c.capacity is not None or answer.question.demand is None)]
    stated = (
        answer.question.quality.stated
    )  # then each is proven as good as the reference, and of equal costs the smaller weights stand first

    def place(c: Candidate) -> tuple[bool, float, float]:
        return *(order(c.cheapest) if c.cheapest is not None else (True, float("inf"))), (size_of(c) or float("inf")) if stated else 0.0

    by_class = tuple((name, tuple(sorted((c for c in ready if c.provenance == name), key=place))) for name in CLASSES)
    by_class = tuple((name, found) for name, found in by_class if found)
    made = tuple(ladders(own, answer.question.quality))
    notes = []
    if len(by_class) > 1:
        notes.append(f"{' and '.join(name for name, _ in by_class)} rows stand side by side: each class is ranked by itself")
    notes += _quality_notes(answer, own, made)
    models = {c.row["model"] for c in own}
    if len(models) > 1:
        notes.append("models differ: their tokens are not the same thing, compare costs per request")
    sentence = _sentence(answer, workload, good, by_class) if good else _none_good(answer, workload)
    return Ranking(workload, by_class, pareto(ready or good), sentence, _change(answer, good, by_class), tuple(notes), made)


def passes(c: Candidate) -> bool:
    """On quality: proven, or no margin was stated."""
    return c.joint is None or c.joint.quality in (None, "NON-INFERIOR")


def _quality_notes(answer: Answer, own: Sequence[Candidate], made: Sequence[Ladder]) -> list[str]:
    """What was evaluated, whom quality keeps out of the ranking, and what is demonstration only."""
    margins, local = answer.question.quality, [c for c in own if c.quality.command is not None]
    notes = []
    if margins.stated:
        notes.append(f"verdicts are of quality and QoS together: {margins.words}; the columns of loads are of QoS alone")
    elif any(c.quality.row is not None for c in own):
        notes.append("verdicts are of QoS alone: no margin was stated for quality (--drift-margin, --margin)")
    elif not local:
        notes.append("quality was not evaluated: the front is of cost and latency alone")
    out = [c for c in own if not passes(c)]
    if out:
        notes.append(f"left out of the ranking: {', '.join(f'{c.name} (quality {c.joint.quality})' for c in out if c.joint is not None)}")
    stepped = [c for ladder in made for c in ladder.members]
    for c in out:
        if c.joint is not None and all(c is not each for each in stepped):  # a ladder says it already
            decide = f"; would decide it: {'; '.join(c.joint.decide)}" if c.joint.decide else ""
            notes.append(f"{c.name}: {c.joint.reason}{decide}")
    silent = [c for c in local if passes(c)]
    if silent:
        alone = "" if any(c.quality.row is not None for c in own) else ": the front is of cost and latency alone"
        names = ", ".join(f"{c.name} ({c.quality.reason})" for c in silent)
        notes.append(f"no quality of {names}{alone}; `{silent[0].quality.command}` evaluates{' the first' if len(silent) > 1 else ''}")
    rows = [c.quality.row for c in own if c.quality.row is not None]
    return notes + sorted({f"quality: {row.demonstration_only}" for row in rows if row.demonstration_only})


def pareto(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Within each class, whom no other equals or beats in cost, TTFT p95 and quality and beats in one of them."""
    costed = any(c.cheapest is not None for c in candidates)

    def worse(a: Candidate, b: Candidate) -> bool:
        if a.provenance != b.provenance:
            return False
        x, y = (((_per_1k(c) if costed else _short(c)), _latency(c)) for c in (a, b))
        ours, theirs = quality_axes(a), quality_axes(b)
        known = ours is not None and theirs is not None
        if known != (ours is not None or theirs is not None):
            return False
        x, y = (*x, *(ours or ())), (*y, *(theirs or ()))
        return y != x and all(q <= p for p, q in zip(x, y, strict=True))

    return tuple(c for c in candidates if not any(worse(c, other) for other in candidates))


def quality_axes(c: Candidate) -> tuple[float, float] | None:
    """(drift of the perplexity, share of the examples lost less gained): less is better, 0 of the reference. None: not compared."""
    row = c.quality.row
    if row is None:
        return None
    if row.is_reference:
        return 0.0, 0.0
    if row.drift is None and row.tasks is None:
        return None
    return row.drift.ratio - 1 if row.drift is not None else 0.0, -row.tasks.difference if row.tasks is not None else 0.0


def _none_good(answer: Answer, workload: str) -> str:
    """Where quality leaves nobody."""
    own = [c for c in answer.of(workload) if c.joint is not None]
    counts = {name: sum(1 for c in own if c.joint is not None and c.joint.quality == name) for name in ("INFERIOR", "UNDECIDED")}
    found = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    return f"Nothing of {workload} is proven on quality, with {answer.question.quality.words}: {found}."


def _sentence(answer: Answer, workload: str, own: Sequence[Candidate], by_class: Sequence[tuple[str, tuple[Candidate, ...]]]) -> str:
    demand = answer.question.demand
    asked = f"{demand.text} of {workload}" if demand is not None else workload
    qos = str(answer.question.target)
    if answer.question.quality.stated:
        qos += f" and its quality ({answer.question.quality.words})"
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
        least = "at least " if name == "imported" or point.relation == ">=" else ""
        part = f" (without {', '.join(money.monthly.missing)}, which nobody gave)" if money.partial else ""
        told_of = f" Its quality: {told(best.quality)}{_unjudged(answer, best)}." if best.quality.row is not None else ""
        return (
            f"{begin} {asked}: {best.name} on {best.row['device']}, {count}{money.offers_words} x {money.offer.name} "
            f"({money.offer.basis}): {least}{point.per_month:,.2f} {currency} a month, {point.per_1k_requests:.3g} {currency} per 1,000 requests ({name}){part}.{doubt}{told_of}"
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


def _unjudged(answer: Answer, best: Candidate) -> str:
    is_reference = best.quality.row is not None and best.quality.row.is_reference
    return "" if answer.question.quality.stated or is_reference else "; whether that will do was not asked: no margin was stated"


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
        cheaper = dearest is None or any(month < dearest for month in _months(answer, c))
        relaxed = relaxation(c)
        if cheaper and relaxed is not None:
            options.append((relaxed[0], f"{c.name} would fit with {relaxed[1]}"))
    if options:
        return f"Smallest change: {min(options)[1]}."
    return "No smaller configuration is left among what was measured." if best is not None else ""


def _months(answer: Answer, c: Candidate) -> list[float]:
    """What one replica of it, with the spares, costs a month on each offer whose price is wholly known."""
    device, months = c.row["device"], []
    if not device:
        return []
    watts = power_w((c.row,), 0.0)
    for offer in (*declared(answer.question, c.row, c.footprint.devices, []), *answer.question.prices.of_device(device)):
        whole, k = fitted(offer, device, c.footprint)
        month = monthly(whole, watts * k if watts is not None else None)
        if month.total is not None and not month.missing:
            months.append(-(-(1 + answer.question.spares) // k) * month.total)
    return months


def relaxation(candidate: Candidate) -> tuple[float, str] | None:
    """(relative change, limits) that one replica would keep at the demand by its step times, longer by their error; None without those.

    Only limits on percentiles are loosened: others have no single number that would do.
    """
    target, law, demand = candidate.target, candidate.law, candidate.demand
    if law is None or demand is None or demand.rate is None or not candidate.lengths:
        return None
    error = law.error if law.error is not None else UNKNOWN_ERROR
    arrivals = demand.arrivals(REQUESTS, SEED)
    served = replay(arrivals, sample_of(candidate.lengths, len(arrivals)), law.slower(1 + error), 1)[int(len(arrivals) * LEFT_OUT) :]
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


def _short(candidate: Candidate) -> float:
    """Where nothing is costed, the less it carries the worse."""
    return -candidate.span.lower if candidate.span is not None else 0.0


def _latency(candidate: Candidate) -> float:
    value = candidate.capacity.ttft_p95_s if candidate.capacity is not None else None
    return value if value is not None else float("inf")

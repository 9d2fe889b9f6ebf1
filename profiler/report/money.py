"""The planner's answer on a terminal, and the same as plain data for `--json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from profiler.analyse import crossings, interpolate
from profiler.analyse.fit import Answer, Candidate, probe_words
from profiler.analyse.joint import both
from profiler.analyse.rightsize import rankings
from profiler.report import published, quality
from profiler.units import format_duration

if TYPE_CHECKING:
    from profiler.analyse.cost import Cost, Point

NONE = "—"
SIGNS = {"=": "", "<=": "≤ ", ">=": "≥ "}
COLOURS = {"measured": "green", "imported": "yellow", "predicted": "magenta"}
OFFERS_SHOWN = 3


def fit(answer: Answer) -> list[Any]:
    """Per workload: how far each goes and how many it takes, what that costs, the ranking in words, what is missing."""
    parts: list[Any] = []
    for ranking in rankings(answer):
        own = answer.of(ranking.workload)
        parts += [_limits(answer, ranking.workload, own), *published.table(own), *_fleets(own), _costs(own), *idle_words(own)]
        parts += [quality.table(own)] if any(c.quality.row is not None for c in own) or answer.question.quality.stated else []
        parts += [*quality.steps(ranking.ladders)]
        parts += [
            *(_escape(text) for text in (ranking.sentence, ranking.change) if text),
            *(_escape(f"note: {note}") for note in ranking.notes),
        ]
        parts += [*_missing(own), ""]
    return [*parts, *(f"note: {note}" for note in answer.notes)]


def costs(answer: Answer) -> list[Any]:
    """Per workload: the three bases at each point, the parts of a month, input and output apart, break-even and sensitivity."""
    parts: list[Any] = []
    for ranking in rankings(answer):
        own = answer.of(ranking.workload)
        parts += [f"[bold]{_escape(ranking.workload)}[/]", _costs(own, every=True), *idle_words(own)]
        for c in own:
            parts += _money_words(c)
        parts += [_escape(ranking.sentence), *_crossings(own), *(_escape(f"note: {note}") for note in ranking.notes), *_missing(own), ""]
    return [*parts, *(f"note: {note}" for note in answer.notes)]


def plain(answer: Answer) -> dict[str, Any]:
    """Everything, as JSON types; NULL where there is no answer, never NaN."""
    demand = answer.question.demand
    return {
        "qos": str(answer.question.target),
        "demand": demand.text if demand is not None else None,
        "currency": answer.question.prices.currency,
        "quality": asdict(answer.question.quality),
        "candidates": [_plain_candidate(c) for c in answer.candidates],
        "rankings": [
            {
                "workload": r.workload,
                "by_class": {name: [_id(c) for c in found] for name, found in r.by_class},
                "pareto": [_id(c) for c in r.pareto],
                "sentence": r.sentence,
                "change": r.change,
                "notes": list(r.notes),
                "ladders": [quality.plain_ladder(ladder) for ladder in r.ladders],
                "cheapest_by_demand": {
                    basis: {name: [finite(asdict(s)) for s in made] for name, made in found.items()}
                    for basis, found in crossings.by_basis(answer.of(r.workload)).items()
                },
            }
            for r in rankings(answer)
        ],
        "notes": list(answer.notes),
    }


def _plain_candidate(c: Candidate) -> dict[str, Any]:
    made: dict[str, Any] = finite(
        {
            **_id(c),
            "provenance_class": c.provenance,
            "verdicts": [
                {"load_kind": kind, "load": p.load, "result": p.result, "reason": p.reason, "starts": p.starts, "runs": list(p.verdicts)}
                | {"joint": both(p.result, c.joint.quality if c.joint is not None else None)}
                for kind, limit in c.limits.items()
                for p in limit.probes
            ],
            "verdict": asdict(c.joint) if c.joint is not None else None,
            "quality": quality.plain(c.quality),
            "limit_measured": {
                kind: {"lower": limit.lower, "upper": limit.upper, "reason": limit.reason} for kind, limit in c.limits.items()
            },
            "limit": None
            if c.range is None
            else {"lower": c.range.lower, "upper": c.range.upper, "provenance_class": c.range.provenance, "note": c.range.note},
            "step_law": asdict(c.law) if c.law is not None else None,
            "saturation": asdict(c.saturation) if c.saturation is not None else None,
            "capacity": asdict(c.capacity) if c.capacity is not None else None,
            "costs": [asdict(cost) for cost in c.costs],
            "tornado": [asdict(bar) for bar in c.tornado],
            "break_even": asdict(c.break_even) if c.break_even is not None else None,
            "energy": c.energy,
            "carbon": asdict(c.carbon) if c.carbon is not None else None,
            "imported": published.plain(c.published),
            "fleet": asdict(c.fleet) if c.fleet is not None else None,
            "interpolation": interpolate.plain(c.interpolation) if c.interpolation is not None else None,
            "estimate": asdict(c.estimate) if c.estimate is not None else None,
            "missing": list(c.missing),
        }
    )
    return made


def finite(value: Any) -> Any:
    """The same without inf and NaN, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _id(c: Candidate) -> dict[str, Any]:
    return {name: c.row[name] for name in ("model", "variant", "backend", "device", "workload")}


def _limits(answer: Answer, workload: str, own: Sequence[Candidate]) -> Any:
    demand = answer.question.demand
    asked = f", demand {demand.text}" if demand is not None else ""
    table = _table(f"{workload}   QoS: {answer.question.target}{asked}")
    table.add_column("backend")
    for name in ("open loop, requests/s", "closed loop, users"):
        table.add_column(name)
    for name in ("λ*, requests/s", "replicas", "idle", "TTFT p95", "TPOT p95"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("class", no_wrap=True)
    for c in own:
        size = c.capacity
        table.add_row(
            _escape(c.name),
            *(_escape(probe_words(c.limits[kind]) or "not measured") for kind in ("rate", "concurrency")),
            span_words(c),
            replicas_words(c),
            f"{size.idle_share:.0%}" if size else NONE,
            format_duration(size.ttft_p95_s) if size else NONE,
            format_duration(size.tpot_p95_s) if size else NONE,
            f"[{COLOURS[c.provenance]}]{c.provenance}[/]",
        )
    return table


def span_words(c: Candidate) -> str:
    """`1.2–1.5`, `≥ 1.5`; of imported figures `at most 1.2–1.5`."""
    if c.estimate is not None:
        low, high = c.estimate.range.lower, c.estimate.range.upper
        return f"at most {low:.3g}" + (f"–{high:.3g}" if high is not None else "")
    if c.range is None:
        return NONE
    return f"{c.range.lower:.3g}–{c.range.upper:.3g}" if c.range.upper is not None else f"≥ {c.range.lower:.3g}"


def replicas_words(c: Candidate) -> str:
    """`3 (2–3) + 1 spare`."""
    size = c.capacity
    if size is None:
        return NONE
    if c.estimate is not None:
        return f"at least {size.replicas}" + (f" + {size.spares} spare" if size.spares else "")
    span = f" ({size.fewest}–{size.replicas})" if size.fewest < size.replicas else ""
    mean = f", {size.mean_replicas:.1f} on average" if size.mean_replicas != size.replicas else ""
    return f"{size.replicas}{span}{mean}" + (f" + {size.spares} spare" if size.spares else "")


def _costs(own: Sequence[Candidate], every: bool = False) -> Any:
    costed = [c for c in own if c.costs]
    if not costed:
        return "not costed: see what is missing"
    currency = costed[0].costs[0].offer.currency
    table = _table(f"{currency}: a month at the demand, then per 1,000 requests (per 1M tokens)")
    for name in ("backend", "offer"):
        table.add_column(name)
    judged = every and any(c.quality.row is not None for c in costed)
    if judged:
        table.add_column("quality")
    for name in ("month", "at the demand", "at λ*", "at saturation", "price of the QoS"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("class", no_wrap=True)
    for c in costed:
        for cost in c.costs if every else c.costs[:OFFERS_SHOWN]:
            table.add_row(
                _escape(c.name),
                _escape(f"{cost.offers_words} x {cost.offer.name}, {cost.offer.basis}, {cost.offer.as_of}"),
                *([quality.short(c.quality)] if judged else []),
                month_words(cost),
                *(point_words(cost.at(name)) for name in ("demand", "limit", "saturation")),
                qos_price_words(cost),
                f"[{COLOURS[cost.provenance]}]{cost.provenance}[/]",
            )
    return table


def month_words(cost: Cost) -> str:
    """`≥ 1,131.00`."""
    return f"{SIGNS[cost.points[0].relation]}{cost.points[0].per_month:,.2f}"


def point_words(point: Point | None) -> str:
    """`≤ 0.0128 (0.0666)`, with the interval over λ* where there is one."""
    if point is None:
        return NONE
    tokens = f" ({point.per_1m_tokens:.3g})" if point.per_1m_tokens is not None else ""
    lo, hi = point.per_1k_lo, point.per_1k_hi
    value = f"{lo:.3g}–{hi:.3g}" if lo is not None and hi is not None and lo < hi * 0.999 else f"{point.per_1k_requests:.3g}"
    return f"{SIGNS[point.relation]}{value}{tokens}"


def qos_price_words(cost: Cost) -> str:
    return NONE if cost.qos_price is None else f"{SIGNS[cost.qos_price_relation]}× {cost.qos_price:.2f}"


def idle_words(own: Sequence[Candidate]) -> list[str]:
    """`68 % idle = $x a month`, spare and left-over devices apart; of each candidate's cheapest offer."""
    lines = []
    for c in own:
        best = c.cheapest
        if best is None or c.capacity is None:
            continue
        parts = [f"{c.capacity.idle_share:.0%} idle = {best.idle:,.2f} {best.offer.currency} a month"]
        parts += [f"spares {best.spare:,.2f}"] if best.spare else []
        parts += [f"devices of whole offers nobody uses {best.left_over:,.2f}"] if best.left_over > 0.005 else []
        lines.append(_escape(f"{c.name}: {'; '.join(parts)}"))
    return lines


def _money_words(c: Candidate) -> list[str]:
    best = c.cheapest
    if best is None:
        return []
    lines = [f"{c.name}: " + " + ".join(f"{name} {value:,.2f}" for name, value in best.monthly.parts) + f" a month per {best.offer.name}"]
    lines[0] += "".join(f"; {note}" for note in best.notes)
    if best.input_per_1m is not None and best.output_per_1m is not None:
        lines.append(
            f"  input {best.input_per_1m:.3g}, output {best.output_per_1m:.3g} per 1M tokens at the demand (predicted, by step times)"
        )
    if c.break_even is not None:
        even = c.break_even
        lines.append(f"  against {even.api.name} ({even.api.as_of}, {even.api_per_1k:.3g} per 1,000 requests): {even.text}")
    for bar in c.tornado:
        ends = [f"{value:.3g}" if value is not None else NONE for value in (bar.low, bar.high)]
        lines.append(f"  {bar.name} from {bar.low_input} to {bar.high_input}: {ends[0]} to {ends[1]} per 1,000 requests")
    lines.append(f"  energy: {c.energy}" + (f"; {c.carbon.words}" if c.carbon is not None else ""))
    return [_escape(line) for line in lines]


def _fleets(own: Sequence[Candidate]) -> list[str]:
    return [
        _escape(
            f"{c.name}: {c.fleet.replicas} replicas together carry {c.fleet.lower:.3g} to {c.fleet.upper:.3g} requests/s "
            f"({c.fleet.routing}, predicted from one; {'; '.join(c.fleet.notes)})"
        )
        for c in own
        if c.fleet is not None
    ]


def _crossings(own: Sequence[Candidate]) -> list[str]:
    """Per basis and class, who is the cheapest up to which demand; nothing where only one candidate is costed."""
    return [
        _escape(f"cheapest by demand, {basis}, {name}: {crossings.words(made)}")
        for basis, found in crossings.by_basis(own).items()
        for name, made in found.items()
        if len(crossings.curves(own, basis, name)) > 1
    ]


def _missing(own: Sequence[Candidate]) -> list[str]:
    lines = [f"missing, {c.name}: {text}" for c in own for text in c.missing]
    return [_escape(line) for line in lines]


def _table(title: str) -> Any:
    from rich import box
    from rich.table import Table

    return Table(title=_escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)

"""The planner's answer as frames: what keeps a target, how many a demand needs, what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pandas as pd

from profiler.analyse.replicas import Routing
from profiler.frames.frame import Frame, describe
from profiler.store import schema

if TYPE_CHECKING:
    from profiler.analyse.fit import Answer, Candidate
    from profiler.store.store import Store


class Options(TypedDict, total=False):
    """As the options of `profile fit`."""

    workload: str | None
    offers: Iterable[str]
    prices: str | PathLike[str] | None
    currency: str | None
    api: str | None
    routing: Routing
    spares: int
    margin: float | str | None
    drift_margin: float | str | None
    reference: str | None


OF_CANDIDATE = ("model", "variant", "backend", "device", "workload")
_FIT = {
    "provenance_class": ("", "class of the whole answer: the weakest of its parts"),
    "open_loop": ("", "verdicts at measured rates, 1/s: the only ones that can prove a fit at a Poisson rate"),
    "closed_loop": ("", "verdicts at measured numbers of users in lockstep"),
    "limit_lower": ("1/s", "lower end of λ*, the highest Poisson rate that keeps the target; NULL when none is known: see missing"),
    "limit_upper": ("1/s", "upper end of λ*; NULL when no rate was seen to fail"),
    "limit_class": ("", "measured | imported | predicted: of λ* alone"),
    "replicas": ("", "replicas that keep the target at the demand, without spares; NULL without a demand or λ*"),
    "spares": ("", "replicas beyond those needed; NULL without a demand or λ*"),
    "idle_share": ("", "1 − demand / (replicas × λ*), spares apart; NULL without a demand or λ*"),
    "ttft_p95_s": ("s", "predicted at the demand by a replay; NULL without a demand or λ*"),
    "tpot_p95_s": ("s", "predicted at the demand by a replay; NULL without a demand or λ*"),
    "month": ("currency", "cost of a month at the demand (without one: at λ*) on the cheapest offer; NULL when not costed: see missing"),
    "currency": ("", "of month; NULL when not costed: see missing"),
    "offer": ("", "the cheapest offer; NULL when not costed: see missing"),
    "quality": (
        "",
        "verdict on quality at the margin, reference, or its drift and what passed; NULL when it was not evaluated: see r.quality()",
    ),
    "verdict": ("", "FITS | FAILS | UNDECIDED over all measured loads: of quality and QoS where a margin was given, else of QoS alone"),
    "missing": ("", "what would make the answer better known, or known at all"),
}
_VERDICTS = {
    "provenance_class": ("", "measured | imported: of the runs"),
    "load_kind": ("", "concurrency (closed loop) | rate (open loop)"),
    "load": ("users or 1/s", "the load that was measured"),
    "result": ("", "FITS | FAILS | UNDECIDED for the target at this load and loop"),
    "reason": ("", "the finding behind the result"),
    "starts": ("", "engine starts behind it: one screens, three or more decide"),
}
_COST = {
    "provenance_class": ("", "class of the figure: the weakest of its parts"),
    "offer": ("", "what one rents or owns as a whole"),
    "basis": ("", "rented | owned | paid (already paid: only what running adds)"),
    "price_as_of": ("", "date of the price"),
    "price_source": ("", "source of the price"),
    "at": ("", "demand | limit (λ*) | saturation"),
    "rate": ("1/s", "requests/s at that point"),
    "currency": ("", "of the amounts"),
    "per_month": ("currency", "cost of a month of whole offers"),
    "per_1k_requests": ("currency", "cost of 1,000 requests of the workload at that point"),
    "per_1k_lo": ("currency", "over the interval of λ*; NULL where it has one end"),
    "per_1k_hi": ("currency", "over the interval of λ*; NULL where it has one end"),
    "per_1m_tokens": ("currency", "input and output tokens together; NULL when the lengths are not known"),
    "relation": ("", "= | <= | >=: whether the figure is a bound"),
    "idle": ("currency", "of a month at the demand, what idle replicas cost; NULL at other points"),
    "offers": ("", "whole offers at the demand; NULL at other points"),
}


def ask(store: Store, qos: str, demand: str | None, options: Options) -> Answer:
    """`profile fit` in Python. Raises QosError, SpecError, ReportError."""
    from profiler.analyse import demand as demands
    from profiler.analyse import fit
    from profiler.analyse.margins import Margins, share
    from profiler.analyse.offers import load
    from profiler.analyse.qos import parse

    prices = options.get("prices")
    known = load(Path(prices) if prices is not None else None, options.get("offers", ()), options.get("currency"))
    asked = demands.parse(demand) if demand is not None else None
    routing, spares = options.get("routing", "round-robin"), options.get("spares", 0)
    question = fit.Question(
        parse(qos), known, asked, options.get("workload"), routing, spares, api=options.get("api"),
        quality=Margins(share("margin", options.get("margin")), share("drift_margin", options.get("drift_margin")), options.get("reference")),
    )  # fmt: skip
    return fit.answer(store, question)


def fit(answer: Answer, store: str) -> Frame:
    from profiler.analyse.rightsize import rankings

    rows = [_of_fit(c) for c in answer.candidates]
    told = [
        text
        for r in rankings(answer)
        for text in (*(step for ladder in r.ladders for step in ladder.steps), r.sentence, r.change, *r.notes)
        if text
    ]
    return _frame("fit", rows, _FIT, store, [*told, *answer.notes])


def verdicts(answer: Answer, store: str) -> Frame:
    rows = [
        _id(c) | {"provenance_class": limit.provenance, "load_kind": kind, "load": p.load, "result": p.result, "reason": p.reason, "starts": p.starts}
        for c in answer.candidates
        for kind, limit in c.limits.items()
        for p in limit.probes
    ]  # fmt: skip
    return _frame("verdicts", rows, _VERDICTS, store, [])


def cost(answer: Answer, store: str) -> Frame:
    rows = []
    for c in answer.candidates:
        for made in c.costs:
            for point in made.points:
                here = point.at == "demand"
                rows.append(
                    _id(c)
                    | {name: getattr(point, name) for name in ("at", "rate", "per_month", "per_1k_requests", "per_1k_lo", "per_1k_hi")}
                    | {"per_1m_tokens": point.per_1m_tokens, "relation": point.relation, "provenance_class": made.provenance}
                    | {
                        "offer": made.offer.name,
                        "basis": made.offer.basis,
                        "price_as_of": made.offer.as_of,
                        "price_source": made.offer.source,
                    }
                    | {"currency": made.offer.currency, "idle": made.idle if here else None, "offers": made.offers if here else None}
                )
    told = [f"{c.name}, {c.workload}: {text}" for c in answer.candidates if not c.costs for text in c.missing]
    return _frame("cost", rows, _COST, store, [*told, *answer.notes])


def _of_fit(c: Candidate) -> dict[str, Any]:
    from profiler.analyse.fit import probe_words
    from profiler.analyse.quality_words import at_a_glance

    size, best = c.capacity, c.cheapest
    return _id(c) | {
        "provenance_class": c.provenance,
        "open_loop": probe_words(c.limits["rate"]) or "not measured",
        "closed_loop": probe_words(c.limits["concurrency"]) or "not measured",
        "limit_lower": c.range.lower if c.range else None,
        "limit_upper": c.range.upper if c.range else None,
        "limit_class": c.range.provenance if c.range else None,
        "replicas": size.replicas if size else None,
        "spares": size.spares if size else None,
        "idle_share": size.idle_share if size else None,
        "ttft_p95_s": size.ttft_p95_s if size else None,
        "tpot_p95_s": size.tpot_p95_s if size else None,
        "month": best.points[0].per_month if best else None,
        "currency": best.offer.currency if best else None,
        "offer": best.offer.name if best else None,
        "quality": at_a_glance(c.quality) or None,
        "verdict": c.joint.result if c.joint is not None else None,
        "missing": "; ".join(c.missing),
    }


def _id(c: Candidate) -> dict[str, Any]:
    return {name: c.row[name] for name in OF_CANDIDATE}


def _frame(table: str, rows: list[dict[str, Any]], own: dict[str, tuple[str, str]], store: str, notes: list[str]) -> Frame:
    columns = {c.name: c for c in schema.RUNS}
    made = pd.DataFrame(rows, columns=[*OF_CANDIDATE, *own])
    made = made.map(lambda value: None if isinstance(value, float) and not math.isfinite(value) else value)
    definitions = {name: columns[name].definition for name in OF_CANDIDATE} | {name: text for name, (_, text) in own.items()}
    why = {
        str(name): {definitions[str(name)].partition("NULL ")[2] or "not stated by the run": int(n)}
        for name, n in made.isna().sum().items()
        if n
    }
    return describe(made, table, store, why, {name: unit for name, (unit, _) in own.items()}, definitions, notes)

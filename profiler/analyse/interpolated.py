"""The planner's answer for lengths that no workload had: one candidate per (model, variant, backend, device), from all its workloads. Class `predicted`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from profiler.analyse import capacity as sizing
from profiler.analyse import interpolate
from profiler.analyse.law import slots_of
from profiler.analyse.limit import KEY, Limit, Row
from profiler.analyse.money import money
from profiler.records import LoadKind, RequestRecord

if TYPE_CHECKING:
    from profiler.analyse.fit import Candidate, Question
    from profiler.store.store import Store

SAME = 0.02  # lengths that differ by no more are those of a measured workload


def candidates(
    store: Store, question: Question, rows: Sequence[Row], requests: Mapping[str, Sequence[RequestRecord]]
) -> tuple[list[Candidate], list[str]]:
    """(candidates at `question.lengths`, notes)."""
    assert question.lengths is not None
    isl, osl = question.lengths
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in KEY if not name.startswith("workload"))
        groups.setdefault(key, []).append(row)
    made = [_candidate(store, question, own, requests, float(isl), float(osl)) for own in groups.values()]
    same = {
        str(row["workload"])
        for row in rows
        if row.get("isl_mean") and row.get("osl_mean") and abs(row["isl_mean"] / isl - 1) <= SAME and abs(row["osl_mean"] / osl - 1) <= SAME
    }
    notes = [f"{name} has these lengths and was measured: ask of it without --lengths" for name in sorted(same)]
    return made, notes


def point(row: Row, requests: Sequence[RequestRecord]) -> interpolate.Point | None:
    """The means of one run: as imported, else of its answered cohort; None where lengths or a TPOT are not known."""
    own = [r for r in requests if r.in_window and r.error_kind is None and r.tpot_s is not None]
    if own:
        isl, osl = (sum(getattr(r, name) or 0 for r in own) / len(own) for name in ("prompt_tokens", "output_tokens"))
        ttfts = [r.ttft_s for r in own if r.ttft_s is not None]
        ttft = sum(ttfts) / len(ttfts) if ttfts else None
        tpot: float | None = sum(r.tpot_s or 0.0 for r in own) / len(own)
    else:
        isl, osl, ttft, tpot = (row.get(name) for name in ("isl_mean", "osl_mean", "ttft_mean_s", "tpot_mean_s"))
    if not isl or not osl or not tpot:
        return None
    running = float(row["load"])
    if row["load_kind"] == "rate":
        running = float(row.get("request_rate") or row["load"]) * ((ttft or 0.0) + tpot * max(osl - 1, 1.0))
    return interpolate.Point(float(isl), float(osl), running, ttft, tpot)


def _candidate(
    store: Store, question: Question, rows: Sequence[Row], requests: Mapping[str, Sequence[RequestRecord]], isl: float, osl: float
) -> Candidate:
    from profiler.analyse.fit import Candidate

    newest = {**rows[-1], "workload": f"{isl:g} in, {osl:g} out", "provenance_class": "predicted"}
    document = store.run(rows[-1]["run_id"])["provenance"]
    kinds: tuple[LoadKind, ...] = ("rate", "concurrency")
    nothing = {kind: Limit(kind, None, None, "predicted", "interpolated: no run has these lengths", ()) for kind in kinds}
    points = [p for row in rows if (p := point(row, requests.get(row["run_id"], ()))) is not None]
    found = interpolate.interpolation(points)
    demand = question.demand.resolved(osl, None) if question.demand is not None and question.demand.users is None else question.demand
    blank = Candidate(
        newest,
        question.target,
        nothing,
        None,
        None,
        None,
        None,
        None,
        (),
        (),
        None,
        isl,
        osl,
        ((round(isl), round(osl)),),
        "not predicted",
        (),
    )
    if isinstance(found, str):
        return replace(blank, missing=(f"not predicted: {found}",))
    missing = [f"predicted from {len(points)} runs of {_workloads(rows)}: {interpolate.words(found.tpot)}"]
    doubtful = sum(row["validity"] == "suspect" and row["provenance_class"] != "imported" for row in rows)
    if doubtful:
        missing.append(f"{doubtful} of these runs are suspect: `profile results show` says why")
    if found.ttft is not None:
        missing.append(interpolate.words(found.ttft))
    lengths = [(max(1, round(isl)), max(1, round(osl)))]
    law = found.law(isl, osl, slots_of((document.get("backend") or {}).get("options") or {}))
    span = sizing.predicted_range(law, lengths, question.target)
    if span is None:
        missing.append("λ*: with step times longer by their error it keeps the target at no rate")
        return replace(blank, law=law, interpolation=found, missing=tuple(missing))
    outer = found.at_rate(isl, osl, span.lower)
    extrapolated = outer is None or outer.extrapolated
    kind = "extrapolated" if extrapolated else "interpolated"
    span = replace(span, note=f"{kind}: {span.note}")
    if extrapolated:
        missing.append(f"λ* is extrapolated: these lengths at this load lie outside of what was measured ({_hull(points)})")
    if demand is not None and demand.users is not None:
        cycle = found.at_users(isl, osl, 1.0)
        demand = demand.resolved(osl, (cycle.ttft_s or 0.0) + (cycle.tpot_s or 0.0) * max(osl - 1, 1.0))
    sized: sizing.Capacity | None = None
    if demand is not None:
        ready = max((row["ready_s"] for row in rows if row.get("ready_s") is not None), default=None)
        size = sizing.capacity(demand, span, lengths, question.target, question.routing, question.spares, ready, question.autoscale)
        if isinstance(size, str):
            missing.append(f"replicas: {size}")
        else:
            sized = size
    if question.fleet is not None:
        missing.append(f"λ* of {question.fleet} replicas: not predicted for these lengths")
    if question.grid is not None:
        missing.append("CO2: not predicted for these lengths")
    costs, bars, even = money(question, newest, document, span, None, demand, sized, law, isl, osl, missing)
    return replace(
        blank, law=law, range=span, interpolation=found, demand=demand, capacity=sized, costs=costs, tornado=bars, break_even=even,
        missing=tuple(dict.fromkeys(missing)),
    )  # fmt: skip


def _workloads(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({str(row["workload"]) for row in rows}))


def _hull(points: Sequence[interpolate.Point]) -> str:
    parts = []
    for name, label in (("isl", "input"), ("osl", "output"), ("running", "requests in the system")):
        values = [getattr(p, name) for p in points]
        parts.append(f"{label} {min(values):.4g} to {max(values):.4g}")
    return ", ".join(parts)

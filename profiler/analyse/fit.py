"""The planner's answer from the store alone: for each model, variant, device and workload how far it goes, how many, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from profiler.analyse import capacity as sizing
from profiler.analyse import law as steps
from profiler.analyse.carbon import Carbon, Grid, carbon, kwh_per_1k
from profiler.analyse.co_run import beside
from profiler.analyse.cost import BreakEven, Cost, Saturation, order, saturation_of
from profiler.analyse.demand import Demand
from profiler.analyse.estimate import Estimate, estimate
from profiler.analyse.fleet import FleetLimit, fleet_limit
from profiler.analyse.footprint import Footprint, footprint
from profiler.analyse.interpolate import Interpolation
from profiler.analyse.joint import Joint, joint
from profiler.analyse.limit import Limit, Probe, Row, counts_for_limit, key_of, limits, usable
from profiler.analyse.margins import NONE_STATED, Margins
from profiler.analyse.money import money
from profiler.analyse.names import names
from profiler.analyse.offers import Prices
from profiler.analyse.published import Published, published
from profiler.analyse.qos import QosTarget, answered
from profiler.analyse.quality_store import NOT_LOOKED_FOR, Evaluations, Standing, open_all
from profiler.analyse.replicas import Routing
from profiler.analyse.sensitivity import Bar
from profiler.errors import QosError, ReportError, SpecError
from profiler.records import LoadKind, RequestRecord
from profiler.units import format_duration

if TYPE_CHECKING:
    from profiler.store.store import Store


@dataclass(frozen=True)
class Question:
    """What is asked. `demand` None: no replicas, and costs at λ* and at saturation only are those of a demand of λ*."""

    target: QosTarget
    prices: Prices
    demand: Demand | None = None
    workload: str | None = None
    routing: Routing = "round-robin"
    spares: int = 0
    autoscale: bool = False
    api: str | None = None
    grid: Grid | None = None  # whose intensity makes CO2 of measured energy
    fleet: int | None = None  # replicas whose λ* together is asked for
    lengths: tuple[float, float] | None = None  # (input, output) tokens that no workload had: answered by interpolation
    quality: Margins = NONE_STATED  # how much worse than the reference it may be; none stated: the verdicts are of QoS alone


@dataclass(frozen=True)
class Candidate:
    """One (model, variant, backend, device) under one workload. `missing` says what would make it better known, or known at all."""

    row: Row  # its newest run: names, device, provenance class
    target: QosTarget
    limits: Mapping[LoadKind, Limit]
    law: steps.Law | None
    range: sizing.Range | None
    saturation: Saturation | None
    demand: Demand | None
    capacity: sizing.Capacity | None
    costs: tuple[Cost, ...]
    tornado: tuple[Bar, ...]
    break_even: BreakEven | None
    isl: float | None
    osl: float | None
    lengths: tuple[tuple[int, int], ...]
    energy: str
    missing: tuple[str, ...]
    published: Published | None = None  # what imported figures say, instead of a verdict
    estimate: Estimate | None = None  # of them: how far at most, instead of λ*
    carbon: Carbon | None = None  # where energy was measured and a grid is given
    fleet: FleetLimit | None = None  # λ* of so many replicas together, predicted from that of one
    interpolation: Interpolation | None = None  # behind a candidate for lengths that were not measured
    quality: Standing = NOT_LOOKED_FOR
    joint: Joint | None = None  # of quality and QoS, or of QoS alone where no margin was stated
    footprint: Footprint = field(default=Footprint())  # what of an offer one replica takes
    label: str = ""  # among the others of an answer: profiler.analyse.names

    @property
    def name(self) -> str:
        return self.label or str(self.row["backend"])

    @property
    def workload(self) -> str:
        return str(self.row["workload"])

    @property
    def span(self) -> sizing.Range | None:
        """λ*, or what imported figures say in its place."""
        return self.range if self.range is not None or self.estimate is None else self.estimate.range

    @property
    def cheapest(self) -> Cost | None:
        """Of the offers that can be ranked: rented and owned before already paid, whose purchase is left out; a known price before a part of one."""
        whole = [c for c in self.costs if c.offer.basis != "paid"] or list(self.costs)
        return min(whole, key=order, default=None)

    @property
    def provenance(self) -> str:
        """The class of the answer at the demand."""
        best = self.cheapest
        if best is not None:
            return best.provenance
        return self.range.provenance if self.range is not None else str(self.row.get("provenance_class") or "measured")


@dataclass(frozen=True)
class Answer:
    question: Question
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = field(default=())

    def of(self, workload: str) -> list[Candidate]:
        return [c for c in self.candidates if c.workload == workload]

    @property
    def workloads(self) -> list[str]:
        return list(dict.fromkeys(c.workload for c in self.candidates))


def answer(store: Store, question: Question) -> Answer:
    """Everything about the runs of a store. Raises ReportError when it holds none that can answer, QosError for a metric no record has."""
    question, left_out = _of_requests(question)
    rows = [row for row in store.rows() if question.workload in (None, row["workload"])]
    sound = [row for row in rows if usable(row) and not beside(row)]
    _check_some(store, rows, sound, question)
    requests = store.records(row["run_id"] for row in sound)
    evaluations = open_all(store.path, question.quality)
    told = [*left_out, *question.prices.notes, *(f"quality: {problem}" for problem in evaluations.problems)]
    told += [question.demand.note] if question.demand is not None and question.demand.note else []
    if shared := sum(usable(row) and beside(row) for row in rows):
        told.append(f"runs beside another loaded backend (co_run_with) left out: {shared}; `profile report` has them")
    if question.lengths is not None:
        from profiler.analyse.interpolated import candidates as interpolated

        predicted, notes = interpolated(store, question, sound, requests)
        ordered = _named(predicted)
        return Answer(question, _judged(store, evaluations, ordered), (*told, *notes))
    found = limits(sound, question.target, requests)
    open_: list[SpecError] = []  # why the demand is no rate, of each candidate of which it is none
    candidates = [_candidate(store, question, own, [r for r in sound if key_of(r) == key], requests, open_) for key, own in found.items()]
    if open_ and len(open_) == len(candidates):
        raise open_[0]
    ordered = _named(candidates)
    return Answer(question, _judged(store, evaluations, ordered), (*told, *_comparable(ordered)))


def _named(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Each by a name that tells it from the others, in a reader's order."""
    labels = names([c.row for c in candidates])
    named = [replace(c, label=label) for c, label in zip(candidates, labels, strict=True)]
    return sorted(named, key=lambda c: (c.workload, c.name, str(c.row["device"])))


def _judged(store: Store, evaluations: Evaluations, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """With what is known of the quality of each, and the verdict over both."""
    made = []
    for c in candidates:
        provenance = store.run(c.row["run_id"])["provenance"] if evaluations.found else {}
        standing = evaluations.of(c.row, (provenance.get("backend") or {}).get("options"))
        made.append(replace(c, quality=standing, joint=joint(c.limits, standing, evaluations.margins)))
    return tuple(made)


def _of_requests(question: Question) -> tuple[Question, list[str]]:
    """Without the conditions on whole runs, which no load has alone; a makespan of so many requests is the demand, where none was given."""
    floors = [c.floor for c in question.target.constraints if c.floor is not None]
    if not floors:
        return question, []
    job = next((f for f in floors if f.requests is not None and f.within_s is not None), None)
    rest = question.target.of_requests
    if not rest.constraints:
        rate = f"{job.requests / job.within_s:.3g}rps" if job is not None and job.requests and job.within_s else "0.5rps"
        hint = f"add a limit on requests, such as error_rate<=1% or e2e_p99<=10min, and ask for the demand: --demand {rate}"
        raise QosError(f"{question.target}: a condition on a whole run gives no highest load", hint=hint)
    left = [
        f"{c} is about a whole run: λ* and replicas leave it out; `profile sweep` judges it"
        for c in question.target.constraints
        if c.floor is not None
    ]
    demand = question.demand
    if demand is None and job is not None and job.requests and job.within_s:
        demand = Demand(f"{job.requests} requests in {format_duration(job.within_s)}", rate=job.requests / job.within_s, cv=0.0)
        left = [f"{job}: taken as a demand of {demand.rate:.3g} requests/s, evenly spread"]
    return replace(question, target=rest, demand=demand), left


def _check_some(store: Store, rows: Sequence[Row], sound: Sequence[Row], question: Question) -> None:
    if not rows and question.workload is not None:
        names = ", ".join(sorted({str(row["workload"]) for row in store.rows()})) or "none"
        raise ReportError(f"{store.path}: no runs of workload {question.workload!r}", hint=f"measured: {names}")
    if not rows:
        raise ReportError(f"{store.path}: no runs to answer from", hint="`profile sweep` measures some")
    if not sound and any(usable(row) for row in rows):
        raise ReportError(f"{store.path}: only runs beside another loaded backend ({len(rows)})", hint="measure without --co-run")
    if not sound:
        why = next((reason for row in rows for reason in row["validity_reasons"] or ()), "they did not finish")
        raise ReportError(f"{store.path}: only failed or invalid runs ({len(rows)}): {why}", hint="measure again: `profile sweep`")


def _candidate(
    store: Store,
    question: Question,
    limit: Mapping[LoadKind, Limit],
    rows: Sequence[Row],
    requests: Mapping[str, Sequence[RequestRecord]],
    open_: list[SpecError],
) -> Candidate:
    newest = rows[-1]
    missing: list[str] = []
    told = published(rows, question.target)
    if told is not None:
        missing += [f"bounds: none, imported point estimates; measured instead by: {run}" for run in told.to_measure]
    elif all(row["validity"] == "suspect" for row in rows):
        missing.append("only suspect runs, which prove no FITS: `profile results show` says why; measure again")
    document = store.run(newest["run_id"])["provenance"]
    options = (document.get("backend") or {}).get("options") or {}
    good = [row for row in rows if row["validity"] == "valid"]
    fitted = steps.fit([e for row in good if (e := steps.equations(requests.get(row["run_id"], ())))], steps.slots_of(options))
    lengths = _lengths([r for row in rows for r in requests.get(row["run_id"], ())])
    isl, osl = (sum(p[i] for p in lengths) / len(lengths) for i in (0, 1)) if lengths else (newest.get("isl_mean"), newest.get("osl_mean"))
    span = _range(limit["rate"], fitted, lengths, question.target, missing) if told is None else None
    if other := sorted({(str(row["arrivals"]), row["load"]) for row in rows if not counts_for_limit(row)} if told is None else ()):
        missing.append(f"not counted for λ*, which is of Poisson arrivals: {', '.join(f'{load:g}/s {how}' for how, load in other)}")
    ladder = [(row["load"], row["request_rate"]) for row in good if row["load_kind"] == "concurrency" and row["request_rate"]]
    saturation = saturation_of(ladder)
    if saturation is not None and not saturation.proven:
        missing.append(f"saturation: {saturation.reason}")
    guess: Estimate | None = None
    if told is not None:
        made_of = estimate(told, question.target, rows)
        if isinstance(made_of, str):
            missing.append(f"not costed: {made_of}")
        else:
            guess = made_of
            missing += [f"λ* is at most an estimate: {note}" for note in guess.notes]
            saturation = guess.saturation
    demand = question.demand
    try:
        demand = demand.resolved(osl, _e2e(rows, requests)) if demand is not None else None
    except SpecError as error:
        open_.append(error)
        missing.append(f"not sized, not costed: {error.message}")
    known = span if guess is None else guess.range
    if demand is not None and (text := demand.other_lengths(isl, osl)):
        missing.append(text)
    sized: sizing.Capacity | None = None
    if known is not None and demand is not None and demand.rate is not None:
        ready = [row["ready_s"] for row in rows if row["ready_s"] is not None]
        made = sizing.capacity(
            demand, known, lengths, question.target, question.routing, question.spares,
            max(ready, default=None), question.autoscale, saturation.rate if saturation else None,
        )  # fmt: skip
        if isinstance(made, str):
            missing.append(f"replicas: {made}")
        else:
            sized = made
    together: FleetLimit | None = None
    if question.fleet is not None and span is not None:
        reached = fleet_limit(span, lengths, question.target, question.fleet, question.routing)
        if isinstance(reached, str):
            missing.append(reached)
        else:
            together = reached
    costs, bars, even = money(
        question, newest, document, known, saturation, demand, sized, fitted, isl, osl, missing, guess is not None, good
    )
    emitted = _carbon(question, good, costs, missing)
    return Candidate(
        newest,
        question.target,
        limit,
        fitted,
        span,
        saturation,
        demand,
        sized,
        costs,
        bars,
        even,
        isl,
        osl,
        tuple(lengths),
        _energy(good),
        tuple(dict.fromkeys(missing)),
        told,
        guess,
        emitted,
        together,
        footprint=footprint(newest, document),
    )


def _range(
    limit: Limit, fitted: steps.Law | None, lengths: Sequence[tuple[int, int]], target: QosTarget, missing: list[str]
) -> sizing.Range | None:
    """λ* at a Poisson rate: measured where an open loop proved one, else predicted, with what would measure it."""
    if limit.lower is not None:
        if limit.upper is None:
            missing.append(f"upper end of λ*: {limit.reason}; measure a higher rate")
        span = sizing.measured_range(limit.lower, limit.upper, fitted, lengths, target)
        return replace(span, provenance=limit.provenance)
    if fitted is None or not lengths:
        missing.append(f"λ*: {limit.reason}; and too few valid answers, or only one load, to predict it from step times")
        return None
    span_ = sizing.predicted_range(fitted, lengths, target, limit.upper)
    if span_ is None:
        error = fitted.error if fitted.error is not None else sizing.UNKNOWN_ERROR
        if limit.upper is not None and sizing.predicted_limit(fitted.slower(1 + error), lengths, target) > 0:
            missing.append(
                f"λ*: the step law does not explain the failure at {limit.upper:g}/s; measure lower: `profile sweep --rate {limit.upper / 2:.2g}`"
            )
            return None
        point = sizing.predicted_limit(fitted, lengths, target)
        at_best = f"; without that error up to {point:.2g}/s, {limit.reason}" if point > 0 else f": {limit.reason}"
        missing.append(f"λ*: with step times longer by their error ({error:.0%}) it keeps the target at no rate{at_best}")
        return None
    undecided = next((p for p in limit.probes if p.result == "UNDECIDED"), None)
    low = f"{span_.lower:.2g}"
    why = f"at {undecided.load:g}/s {undecided.reason}" if undecided is not None and limit.upper is None else limit.reason
    missing.append(f"λ* is predicted ({span_.note}), not measured: {why}; `profile sweep --rate {low}` measures it")
    highest = fitted.highest_running
    isl, osl = (sum(pair[i] for pair in lengths) / len(lengths) for i in (0, 1))
    # Little's law: were `highest` at once to do this rate, more than a second of work a second would mean that more than those are there.
    if span_.lower * (fitted.step_s(highest) * osl / highest + fitted.prefill_s * isl) > 1:
        missing.append(f"λ* is extrapolated: more sequences would run at once than in any run ({highest:.1f})")
    return span_


def _lengths(requests: Sequence[RequestRecord]) -> list[tuple[int, int]]:
    """Input and output lengths of answered requests, in the order they were sent; at most what a replay takes."""
    ordered = sorted((r for r in requests if answered(r) and r.in_window), key=lambda r: r.request_id)
    return [(r.prompt_tokens or 1, r.output_tokens or 1) for r in ordered][: sizing.REQUESTS]


def _e2e(rows: Sequence[Row], requests: Mapping[str, Sequence[RequestRecord]]) -> float | None:
    """Mean time of an answer at the lowest measured load, s: what a user waits before the next pause."""
    row = min(rows, key=lambda row: (row["load_kind"], row["load"]))
    times = [r.e2e_sched_s for r in requests.get(row["run_id"], ()) if r.in_window and r.e2e_sched_s is not None]
    return sum(times) / len(times) if times else None


def _carbon(question: Question, rows: Sequence[Row], costs: Sequence[Cost], missing: list[str]) -> Carbon | None:
    """With the PUE of the cheapest offer that says one."""
    if question.grid is None:
        return None
    found = carbon(rows, question.grid, next((c.offer.pue for c in costs if c.offer.pue is not None), None))
    if found is None:
        missing.append("CO2: no energy was measured (docs/telemetry.md), and none is guessed")
    return found


def _energy(rows: Sequence[Row]) -> str:
    """kWh per 1,000 requests where energy was measured, with its scope; else the reason."""
    found = kwh_per_1k(rows)
    if found is None:
        return next((str(row["energy_reason"]) for row in rows if row.get("energy_reason")), "no energy in the store")
    scope, per = found
    return f"{min(per):.3g} to {max(per):.3g} kWh per 1,000 requests ({scope})"


def _comparable(candidates: Sequence[Candidate]) -> list[str]:
    by_backend: dict[str, set[str]] = {}
    for c in candidates:
        by_backend.setdefault(c.name, set()).add(c.workload)
    notes = []
    names = list(by_backend)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if not by_backend[a] & by_backend[b]:
                workloads = f"{', '.join(sorted(by_backend[a]))} against {', '.join(sorted(by_backend[b]))}"
                notes.append(f"no common workload of {a} and {b} ({workloads}): they are not compared; measure both under one")
    return notes


def probe_words(limit: Limit) -> str:
    """`FITS 1, 2; UNDECIDED 4; FAILS 8`."""
    parts: dict[str, list[Probe]] = {}
    for probe in limit.probes:
        parts.setdefault(probe.result, []).append(probe)
    return "; ".join(f"{result} {', '.join(f'{p.load:g}' for p in probes)}" for result, probes in parts.items())

"""A sweep's spec becomes ordered cells. Touches no engine, no model, no clock, and no file but the trace that a workload names.

A cell's id is the hash of everything that defines what is measured (model, backend, workload, load, stopping rule, seed); the same
spec therefore gives the same ids on every machine, and a stopped sweep knows what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiler import catalog
from profiler.engines.openai import DECLARED
from profiler.errors import SpecError
from profiler.records import LoadKind
from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec, validate_spec
from profiler.units import load_label
from profiler.workload import arrivals, pauses, replay

# Engine start, model load and first generation; seen 5-35 s (docs/engines.md). Only for the estimate of a dry run.
START_S = (5.0, 35.0)
SCREEN_REQUESTS = 12  # of the first look at a screening probe; looks double four times (run/enough.py), to a whole cohort at most


@dataclass(frozen=True)
class Cell:
    """model x backend x workload x load point: the unit that is planned, measured and resumed."""

    cell_id: str
    model: str
    backend: BackendSpec
    workload: WorkloadSpec
    load_kind: LoadKind
    load: float  # users, or the mean rate of requests in 1/s
    qos: str | None
    sweep: SweepSpec
    arrivals: str = "closed"  # how the load arrives, in words; see load_points
    run: int = 0  # which one of this sweep's, over all starts: each has arrivals of its own; not part of the id
    beside: tuple[tuple[str, str], ...] = ()  # of a co-run: each other backend and its load in words, "idle" where it has none
    group: int = 0  # cells of one start with the same group are measured at once

    @property
    def label(self) -> str:
        label = f"{self.backend.name} · {self.workload.name} · {load_label(self.load_kind, self.load, self.arrivals)}"
        return label + "".join(f" · beside {name} {load}" for name, load in self.beside)

    @property
    def prompt_seed(self) -> int:
        """Differs by load point and run (a prefix cache must not know the prompts of an earlier one), is the same for every backend."""
        how = "trace" if self.workload.trace is not None else self.arrivals
        again = [self.run] if self.run else []
        # A search compares loads: with the same prompts and the same draws of the arrivals they differ by the load alone.
        common = self.sweep.find_limit and not self.backend.options.get("prefix_caching")
        load = "any" if common else self.load
        return int(digest([self.sweep.seed, self.workload.name, self.workload.version, self.load_kind, load, how, *again]), 16) % 2**31


@dataclass(frozen=True)
class Start:
    """One launch of a backend and the cells measured in it, in order. `others` are launched with it and stay beside it (a co-run)."""

    backend: BackendSpec
    repeat: int
    cells: tuple[Cell, ...]
    others: tuple[BackendSpec, ...] = ()

    @property
    def backends(self) -> tuple[BackendSpec, ...]:
        return (self.backend, *self.others)

    @property
    def client_cpus(self) -> tuple[int, ...]:
        return self.cells[0].sweep.client_cpus if self.cells else ()


@dataclass(frozen=True)
class Plan:
    sweep_id: str
    sweep: SweepSpec
    starts: tuple[Start, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for start in self.starts for cell in start.cells)

    @property
    def cell_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.cell_id for cell in self.cells))

    def seconds(self) -> tuple[float, float]:
        """Bounds of the measuring time in s: every window at its shortest, every window at its longest. Without set-up and drains."""
        starts, spec = sum(len(start.backends) for start in self.starts), self.sweep
        # Cells of one group are measured at once: the first stands for all of them.
        firsts = [
            c for start in self.starts for k, c in enumerate(start.cells) if not c.beside or c.group != start.cells[k - 1].group or not k
        ]
        fixed = [whole_window_s(cell) for cell in firsts]
        shortest = sum(_shortest_s(cell) for cell in firsts)
        longest = sum(spec.warmup_s + spec.window_max_s if window is None else window for window in fixed)
        return shortest + starts * START_S[0], longest + starts * START_S[1]


def make(spec: SweepSpec, first_repeat: int = 0) -> Plan:
    """Order the cells of a sweep: per repeat each backend starts once (order seeded), its cells in seeded random order.

    Repeats are interleaved (A B C, B C A, ...), so that drift of the machine does not fall on one backend.
    """
    backends = [_declared(spec, backend) for backend in _backends(spec)]
    workloads = _workloads(spec)
    qos = {workload.name: _qos_of(spec, workload) for workload in workloads}
    _known_keys("qos", spec.qos, workloads)
    _known_keys("rates", spec.rates, workloads)
    points = {workload.name: load_points(spec, workload) for workload in workloads}
    _loads_of_traces(spec, workloads)
    shuffle = random.Random(spec.seed)
    starts = []
    for repeat in range(first_repeat, first_repeat + spec.repeats):
        for backend in shuffle.sample(backends, len(backends)):
            cells = [
                make_cell(spec, backend, workload, kind, load, qos[workload.name], how)
                for workload in workloads
                for kind, load, how in points[workload.name]
            ]
            runs = range(repeat * spec.runs_per_start, (repeat + 1) * spec.runs_per_start)
            cells = [replace(cell, run=run) for run in runs for cell in cells]
            starts.append(Start(backend, repeat, tuple(shuffle.sample(cells, len(cells)))))
        if spec.co_run:
            starts.append(_co_run(spec, repeat, workloads, qos, shuffle))
    ids = sorted({cell.cell_id for start in starts for cell in start.cells})
    if not ids:
        raise SpecError(f"{spec.name}: no cells: neither concurrency nor rates", hint="give --concurrency 1,4 or --rate 2")
    return Plan(digest([spec.name, ids]), spec, tuple(starts))


def probe(spec: SweepSpec, backend: BackendSpec, workload: WorkloadSpec, load: float, start: int, *, screen: bool) -> Cell:
    """One load of a search: a short run that ends once it is plain which way it goes, or a whole cohort."""
    short = {"until": "screened", "requests": max(1, min(SCREEN_REQUESTS, spec.requests // 16))}
    own = spec.model_copy(update={"rates": (load,), "concurrency": (), **(short if screen else {"until": "requests"})})
    return replace(make_cell(own, backend, workload, "rate", load, _qos_of(spec, workload), "poisson"), run=start)


def parts(spec: SweepSpec) -> tuple[list[BackendSpec], list[WorkloadSpec]]:
    return _backends(spec), _workloads(spec)


def _co_run(
    spec: SweepSpec, repeat: int, workloads: Sequence[WorkloadSpec], qos: Mapping[str, str | None], shuffle: random.Random
) -> Start:
    """One start of all backends of the co-run: each at each of its loads with the others idle, and the k-th loads of all at once.

    One sequence in seeded order, so that drift falls on both alike; the shorter ladder repeats its last load.
    """
    backends = [catalog.backend(name) for name in spec.co_run]
    if len({backend.name for backend in backends}) < len(backends):
        raise SpecError(f"{spec.name}: co_run: two backends of one name", hint="give one of them another name")
    groups: list[list[Cell]] = []
    for workload in workloads:
        if workload.trace is not None or not isinstance(arrivals.parse(spec.arrivals), arrivals.Renewal):
            raise SpecError(f"{spec.name}: co_run: {workload.name}: needs loads that do not change", hint="no trace, ramp or step")
        points = []
        for given in spec.co_run.values():
            own = {key: value for key, value in (("concurrency", given.concurrency), ("rates", given.rates)) if value is not None}
            own |= {key: () for key in ("concurrency", "rates") if own and key not in own}
            points.append(load_points(spec.model_copy(update=own), workload))
            if not points[-1]:
                raise SpecError(f"{spec.name}: co_run: a backend without a load", hint="give concurrency or rates")
        target = qos[workload.name]
        for k, backend in enumerate(backends):
            idle = [b for b in backends if b is not backend]
            groups += [[make_cell(spec, backend, workload, kind, load, target, how, idle)] for kind, load, how in points[k]]
        for step in range(max(map(len, points))):
            at = [(b, *own[min(step, len(own) - 1)]) for b, own in zip(backends, points, strict=True)]
            groups.append(
                [
                    make_cell(spec, backend, workload, kind, load, target, how, [other for other in at if other[0] is not backend])
                    for backend, kind, load, how in at
                ]
            )
    runs = range(repeat * spec.runs_per_start, (repeat + 1) * spec.runs_per_start)
    groups = [[replace(cell, run=run) for cell in group] for run in runs for group in groups]
    ordered = enumerate(shuffle.sample(groups, len(groups)))
    return Start(backends[0], repeat, tuple(replace(c, group=n) for n, group in ordered for c in group), tuple(backends[1:]))


def make_cell(
    spec: SweepSpec,
    backend: BackendSpec,
    workload: WorkloadSpec,
    kind: LoadKind,
    load: float,
    qos: str | None,
    how: str = "closed",
    beside: Sequence[tuple[BackendSpec, LoadKind, float, str] | BackendSpec] = (),
) -> Cell:
    """One cell and its content hash. Of a trace its content counts; the QoS target only where it ends the run: judging is no measuring."""
    work = workload.model_dump(mode="json", exclude={"summary", "source", "qos"})
    if workload.adapters is None:
        del work["adapters"]  # it came later; ids from before stay
    if workload.trace is not None:
        work["trace"]["file"] = replay.load(workload.trace).facts["sha256"]
    content = {
        "model": spec.model,
        "backend": _backend_content(backend),
        "workload": work,
        "load": [kind, load],
        "arrivals": how if workload.trace is None else "trace",
        "stop": _stop(spec, qos),
        "endpoint_kind": spec.endpoint_kind,
        "seed": spec.seed,
    }
    if beside:  # a backend alone is one that is started and idle
        content["beside"] = [
            [_backend_content(b), "idle"] if isinstance(b, BackendSpec) else [_backend_content(b[0]), *b[1:]] for b in beside
        ]
    words = [(b.name, "idle") if isinstance(b, BackendSpec) else (b[0].name, load_label(*b[1:])) for b in beside]
    return Cell(digest(content), spec.model, backend, workload, kind, load, qos, spec, how, beside=tuple(words))


def _backend_content(backend: BackendSpec) -> dict[str, Any]:
    """What of a backend is measured. Keys that came later count only where they are given: older cells keep their ids."""
    default = {name for name in ("replicas", "placement") if getattr(backend, name) == BackendSpec.model_fields[name].default}
    content = backend.model_dump(mode="json", exclude={"summary", "needs"} | default)
    later = ("method", "calibration", "checkpoint", "reduced_range")
    content["variant"] = {key: value for key, value in content["variant"].items() if key not in later or value}
    if backend.engine == "openai":
        content["options"] = {key: value for key, value in content["options"].items() if key not in NOT_MEASURED}
    return content


def _stop(spec: SweepSpec, qos: str | None) -> dict[str, Any]:
    """What ends a run."""
    always = {"requests", "window_min_s", "window_max_s", "warmup_s", "request_timeout_s"}
    early = {"until": spec.until, "precision": spec.precision, "qos": qos if spec.until != "requests" else None}
    return spec.model_dump(mode="json", include=always) | {k: v for k, v in early.items() if v not in (None, "requests")}  # ids stay


def digest(content: Any) -> str:
    """First 16 hex digits of the sha256 of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def ladder(cores: int | None = None) -> tuple[int, ...]:
    """The concurrencies of `concurrency = "auto"`, for a machine with `cores`; as far as published sweeps saw throughput rise.

    On two cores 16 requests at once are past the best throughput for prompts of a thousand tokens; 7B models on Xeons of 40 to 60
    cores per socket reach four fifths of theirs at 50 to 170 (docs/workloads.md). A ladder to 512, as for a big GPU, would measure queues.
    """
    cores = cores or os.cpu_count() or 1
    if cores <= 4:
        return 1, 2, 4, 8
    return (1, 4, 8, 16) if cores < 32 else (1, 4, 8, 16, 32, 64, 128)


def _backends(spec: SweepSpec) -> list[BackendSpec]:
    if spec.url is not None:
        if spec.backends:
            raise SpecError("--url and --backend exclude one another", hint="an endpoint that already runs is its own backend")
        options = {"url": spec.url, "model": spec.model}
        raw = {
            "name": "openai-endpoint",
            "summary": spec.url,
            "engine": "openai",
            "device": "remote",
            "precision": "unknown",
            "options": options,
        }
        return [validate_spec(raw, BackendSpec, "--url")]
    if not spec.backends and spec.co_run:
        return []
    if not spec.backends:
        raise SpecError(f"{spec.name}: no backend", hint="give --backend NAME; `profile list backends` shows them")
    return [catalog.backend(name) for name in dict.fromkeys(spec.backends)]


NOT_MEASURED = ("price_usd_per_hour", "server_metrics")  # of them, what does not change which thing is measured: left out of a cell's id


def _declared(spec: SweepSpec, backend: BackendSpec) -> BackendSpec:
    """An attached endpoint with what the sweep declares of it. Raises SpecError for a backend of our own: it is observed."""
    given = {key: getattr(spec, key) for key in DECLARED if getattr(spec, key) is not None}
    if given and backend.engine != "openai":
        key = next(iter(given))
        hint = f'leave it out (--{key.replace("_", "-")}): it is for endpoints that already run (--url, or engine = "openai")'
        raise SpecError(f"{spec.name}: {key}: backend {backend.name} is started here, what it runs on is observed, not declared", hint=hint)
    return backend.model_copy(update={"options": {**backend.options, **given}}) if given else backend


def _workloads(spec: SweepSpec) -> list[WorkloadSpec]:
    found = [catalog.workload(name) for name in dict.fromkeys(spec.workloads)]
    if spec.trace is not None:
        found = _with_trace(spec.trace, found)
    if spec.isl is not None and spec.osl is not None:
        lengths = {"kind": "fixed", "isl": spec.isl, "osl": spec.osl}
        name = f"fixed-{spec.isl}-{spec.osl}"
        raw = {"name": name, "version": 1, "summary": "lengths given on the command line", "source": "user", "lengths": lengths}
        found.append(validate_spec(raw, WorkloadSpec, "--isl/--osl"))
    if not found:
        raise SpecError(f"{spec.name}: no workload", hint="give --workload NAME (see `profile list workloads`) or --isl 128 --osl 64")
    return found


def _with_trace(file: str, workloads: list[WorkloadSpec]) -> list[WorkloadSpec]:
    """`--trace`: the trace workloads replay `file`; without one, `file` is replayed as it is."""
    traces = [w for w in workloads if w.trace is not None]
    if not traces:
        raw = {"name": Path(file).stem, "version": 1, "summary": f"replay of {file}", "source": "user", "trace": {"file": file}}
        return [*workloads, validate_spec(raw, WorkloadSpec, "--trace")]
    replaced = {w.name: w.model_copy(update={"trace": w.trace.model_copy(update={"file": file})}) for w in traces if w.trace}
    return [replaced.get(w.name, w) for w in workloads]


def load_points(spec: SweepSpec, workload: WorkloadSpec) -> list[tuple[LoadKind, float, str]]:
    """Kind, load, and how it arrives: `closed`, `closed, think 2s`, `poisson`, `gamma cv=2`, `ramp …`, `step …`, `trace …`.

    A trace, a ramp and a step have one point each, at their mean rate: they bring their own times. Raises SpecError for arrivals
    that do not parse, rates at or below 0, and rates beside arrivals that have their own.
    """
    if workload.trace is not None:
        return [("rate", replay.load(workload.trace).rate, replay.describe(workload.trace))]
    concurrency = ladder() if spec.concurrency == "auto" else spec.concurrency
    think = pauses.parse(spec.think)
    if think.mean_s and not concurrency:
        raise SpecError(f"{spec.name}: think: only a closed loop pauses, and there is none", hint="give concurrency (--concurrency)")
    closed = "closed" if think.mean_s == 0 else f"closed, think {think}"
    points: list[tuple[LoadKind, float, str]] = [("concurrency", float(c), closed) for c in dict.fromkeys(concurrency)]
    process = arrivals.parse(spec.arrivals)
    rates: Sequence[float] = spec.rates if isinstance(spec.rates, tuple) else spec.rates.get(workload.name, ())
    if not isinstance(process, arrivals.Renewal):
        if spec.rates:
            kind = spec.arrivals.partition(":")[0]
            raise SpecError(f"{spec.name}: rates: arrivals {kind!r} bring their own", hint="leave out rates (--rate), or the arrivals")
        return [*points, ("rate", arrivals.mean_rate(arrivals.segments(process, spec.window_min_s)), str(process))]
    if spec.arrivals != "poisson" and not spec.rates:
        raise SpecError(
            f"{spec.name}: arrivals: {spec.arrivals!r} without a rate", hint="give rates (--rate): a closed loop has no arrivals"
        )
    if any(rate <= 0 for rate in rates):
        raise SpecError(f"{spec.name}: rates: a request rate must be above 0", hint="give requests per second, such as 0.5")
    return points + [("rate", float(rate), str(process)) for rate in dict.fromkeys(rates)]


def whole_window_s(cell: Cell) -> float | None:
    """Length of a window that must be measured from end to end (a trace, a ramp, a step), s; None for loads that do not change."""
    if cell.workload.trace is not None:
        return replay.load(cell.workload.trace).duration_s
    process = arrivals.parse(cell.sweep.arrivals)
    if cell.load_kind == "concurrency" or isinstance(process, arrivals.Renewal):
        return None
    return sum(length for _, _, length in arrivals.segments(process, cell.sweep.window_min_s))


def cohort_wanted(cell: Cell) -> int:
    """Requests of the window that a cell waits for: all of a trace, what a ramp or step sends in the mean, else the sweep's own figure."""
    if cell.workload.trace is not None:
        return len(replay.load(cell.workload.trace).calls)
    whole_s = whole_window_s(cell)
    return cell.sweep.requests if whole_s is None else round(cell.load * whole_s)


def _loads_of_traces(spec: SweepSpec, workloads: Sequence[WorkloadSpec]) -> None:
    given = [key for key, value in (("concurrency", spec.concurrency != "auto" and spec.concurrency), ("rates", spec.rates)) if value]
    if given and all(workload.trace is not None for workload in workloads):
        raise SpecError(
            f"{spec.name}: {given[0]}: a trace brings its own times", hint="leave it out; trace.speed and trace.thin set the load"
        )


def _qos_of(spec: SweepSpec, workload: WorkloadSpec) -> str | None:
    if isinstance(spec.qos, str):
        return spec.qos
    return (spec.qos or {}).get(workload.name, workload.qos)


def _known_keys(key: str, value: Any, workloads: Sequence[WorkloadSpec]) -> None:
    names = {workload.name for workload in workloads}
    for name in value if isinstance(value, dict) else ():
        if name not in names:
            raise SpecError(f"sweep: {key}.{name}: not a workload of this sweep", hint=f"its workloads: {', '.join(sorted(names))}")


def _shortest_s(cell: Cell) -> float:
    spec = cell.sweep
    whole = whole_window_s(cell)
    if whole is not None:
        return whole + (0.0 if cell.workload.trace is not None else spec.warmup_s)
    arrivals_s = spec.requests / cell.load if cell.load_kind == "rate" else 0.0
    return spec.warmup_s + min(max(spec.window_min_s, arrivals_s), spec.window_max_s)

"""A sweep's spec becomes ordered cells. Pure: touches no engine, no model, no clock.

A cell's id is the hash of everything that defines what is measured (model, backend, workload, load, stopping rule, seed); the same
spec therefore gives the same ids on every machine, and a stopped sweep knows what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from profiler import catalog
from profiler.errors import SpecError
from profiler.records import LoadKind
from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec, validate_spec

# Engine start, model load and first generation; seen 5-35 s (docs/engines.md). Only for the estimate of a dry run.
START_S = (5.0, 35.0)


@dataclass(frozen=True)
class Cell:
    """model x backend x workload x load point: the unit that is planned, measured and resumed."""

    cell_id: str
    model: str
    backend: BackendSpec
    workload: WorkloadSpec
    load_kind: LoadKind
    load: float
    qos: str | None
    sweep: SweepSpec
    run: int = 0  # which one within an engine start; not part of the id

    @property
    def label(self) -> str:
        return f"{self.backend.name} · {self.workload.name} · {load_label(self.load_kind, self.load)}"

    @property
    def prompt_seed(self) -> int:
        """Differs by load point and run (a prefix cache must not know the prompts of an earlier one), is the same for every backend."""
        again = [self.run] if self.run else []
        return int(digest([self.sweep.seed, self.workload.name, self.workload.version, self.load_kind, self.load, *again]), 16) % 2**31


@dataclass(frozen=True)
class Start:
    """One launch of a backend and the cells measured in it, in order."""

    backend: BackendSpec
    repeat: int
    cells: tuple[Cell, ...]


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
        """Bounds of the measuring time in s: every window at its shortest, every window at its longest. Set-up not included."""
        cells, starts, spec = len(self.cells), len(self.starts), self.sweep
        shortest = sum(_shortest_s(cell) for cell in self.cells)
        return shortest + starts * START_S[0], cells * (spec.warmup_s + spec.window_max_s) + starts * START_S[1]


def make(spec: SweepSpec, first_repeat: int = 0) -> Plan:
    """Order the cells of a sweep: per repeat each backend starts once (order seeded), its cells in seeded random order.

    Repeats are interleaved (A B C, B C A, ...), so that drift of the machine does not fall on one backend.
    """
    backends = _backends(spec)
    workloads = _workloads(spec)
    qos = {workload.name: _qos_of(spec, workload) for workload in workloads}
    _known_keys("qos", spec.qos, workloads)
    _known_keys("rates", spec.rates, workloads)
    shuffle = random.Random(spec.seed)
    starts = []
    for repeat in range(first_repeat, first_repeat + spec.repeats):
        for backend in shuffle.sample(backends, len(backends)):
            cells = [
                make_cell(spec, backend, workload, kind, load, qos[workload.name])
                for workload in workloads
                for kind, load in _load_points(spec, workload)
            ]
            cells = [replace(cell, run=run) for run in range(spec.runs_per_start) for cell in cells]
            starts.append(Start(backend, repeat, tuple(shuffle.sample(cells, len(cells)))))
    ids = sorted({cell.cell_id for start in starts for cell in start.cells})
    if not ids:
        raise SpecError(f"{spec.name}: no cells: neither concurrency nor rates", hint="give --concurrency 1,4 or --rate 2")
    return Plan(digest([spec.name, ids]), spec, tuple(starts))


def make_cell(spec: SweepSpec, backend: BackendSpec, workload: WorkloadSpec, kind: LoadKind, load: float, qos: str | None) -> Cell:
    """One cell and its content hash. The QoS target is not part of it, unless it ends the run: judging anew needs no measuring."""
    content = {
        "model": spec.model,
        "backend": backend.model_dump(mode="json", exclude={"summary", "needs"}),
        "workload": workload.model_dump(mode="json", exclude={"summary", "source", "qos"}),
        "load": [kind, load],
        "stop": _stop(spec, qos),
        "endpoint_kind": spec.endpoint_kind,
        "seed": spec.seed,
    }
    return Cell(digest(content), spec.model, backend, workload, kind, load, qos, spec)


def _stop(spec: SweepSpec, qos: str | None) -> dict[str, Any]:
    """What ends a run."""
    always = {"requests", "window_min_s", "window_max_s", "warmup_s", "request_timeout_s"}
    early = {"until": spec.until, "precision": spec.precision, "qos": qos if spec.until == "decided" else None}
    # Only what was given: ids of cells with a fixed cohort stay what they are.
    return spec.model_dump(mode="json", include=always) | {k: v for k, v in early.items() if v not in (None, "requests")}


def digest(content: Any) -> str:
    """First 16 hex digits of the sha256 of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def load_label(kind: str, load: float) -> str:
    """`4 users` or `2/s Poisson`, as tables and progress lines name a load."""
    return f"{load:g} user{'s' if load != 1 else ''}" if kind == "concurrency" else f"{load:g}/s Poisson"


def ladder(cores: int | None = None) -> tuple[int, ...]:
    """The concurrencies of `concurrency = "auto"`, for a machine with `cores`.

    A CPU saturates near 16 concurrent requests for models of this size (OpenVINO Model Server sweeps on Xeon, docs/workloads.md), one
    of a few cores earlier still, so a GPU-sized ladder to 512 would measure queues only; big machines get two steps more.
    """
    cores = cores or os.cpu_count() or 1
    if cores <= 4:
        return 1, 2, 4, 8
    return (1, 4, 8, 16) if cores < 32 else (1, 4, 8, 16, 32, 64)


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
    if not spec.backends:
        raise SpecError(f"{spec.name}: no backend", hint="give --backend NAME; `profile list backends` shows them")
    return [catalog.backend(name) for name in dict.fromkeys(spec.backends)]


def _workloads(spec: SweepSpec) -> list[WorkloadSpec]:
    found = [catalog.workload(name) for name in dict.fromkeys(spec.workloads)]
    if spec.isl is not None and spec.osl is not None:
        lengths = {"kind": "fixed", "isl": spec.isl, "osl": spec.osl}
        name = f"fixed-{spec.isl}-{spec.osl}"
        raw = {"name": name, "version": 1, "summary": "lengths given on the command line", "source": "user", "lengths": lengths}
        found.append(validate_spec(raw, WorkloadSpec, "--isl/--osl"))
    if not found:
        raise SpecError(f"{spec.name}: no workload", hint="give --workload NAME (see `profile list workloads`) or --isl 128 --osl 64")
    return found


def _load_points(spec: SweepSpec, workload: WorkloadSpec) -> list[tuple[LoadKind, float]]:
    concurrency = ladder() if spec.concurrency == "auto" else spec.concurrency
    rates: Sequence[float] = spec.rates if isinstance(spec.rates, tuple) else spec.rates.get(workload.name, ())
    if any(rate <= 0 for rate in rates):
        raise SpecError(f"{spec.name}: rates: a request rate must be above 0", hint="give requests per second, such as 0.5")
    points: list[tuple[LoadKind, float]] = [("concurrency", float(c)) for c in dict.fromkeys(concurrency)]
    return points + [("rate", float(rate)) for rate in dict.fromkeys(rates)]


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
    arrivals_s = spec.requests / cell.load if cell.load_kind == "rate" else 0.0
    return spec.warmup_s + min(max(spec.window_min_s, arrivals_s), spec.window_max_s)

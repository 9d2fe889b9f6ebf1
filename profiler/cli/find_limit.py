"""`profile sweep --find-limit`: the highest request rate that keeps the QoS target, for each backend and workload."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from profiler.errors import ProfilerError, SpecError
from profiler.units import format_duration

if TYPE_CHECKING:
    from profiler.analyse.search import Ask, Found, Search
    from profiler.cli.evaluated import Evaluated
    from profiler.cli.progress import Progress
    from profiler.plan import Cell
    from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec
    from profiler.store.store import Store

FIRST_RATE = 1.0  # requests/s, where nothing is known: doubling and halving find the bracket from anywhere
BELOW_SATURATION = 0.7  # of a throughput that was measured: where to begin


def find_limit(spec: SweepSpec, results: Path, out: Path | None, flags: dict[str, Any]) -> int:
    """Search, print, report. Exit code 0; 1 when no search came to anything."""
    from profiler import plan as planning
    from profiler.analyse.recover import open_store
    from profiler.cli import sweep_quality
    from profiler.cli.progress import Progress
    from profiler.engines import registry

    backends, workloads = planning.parts(spec)
    targets: dict[str, str] = {}
    notes: list[str] = []
    for workload in workloads:
        if workload.trace is not None:
            raise SpecError(f"{workload.name}: a trace brings its own times, its rate is not searched", hint="leave it out of --find-limit")
        cell = planning.probe(spec, backends[0], workload, FIRST_RATE, 0, screen=True)
        if cell.qos is None:
            raise SpecError(f"{workload.name}: no QoS target to keep", hint='give --qos, such as --qos "ttft_p95<=1s, tpot_p95<=80ms"')
        targets[workload.name], left_out = _of_requests(workload.name, cell.qos)
        notes += left_out
    if notes:
        spec = spec.model_copy(update={"qos": targets})
    for backend in backends:
        registry.get(backend.engine).validate(backend)
    if flags["dry_run"]:
        quality = sweep_quality.dry_run(spec, results, again=flags["again"]) if spec.quality else None
        _dry_run(spec, backends, workloads, targets, notes, quality, as_json=flags["as_json"])
        return 0
    store, progress = open_store(results), Progress(0)
    for note in notes:
        progress.note(note)
    began_s = time.monotonic()
    found, cells = _search(spec, backends, workloads, store, progress, flags)
    took_s = time.monotonic() - began_s
    evaluated = sweep_quality.evaluate(spec, results, progress, flags)
    _show(found, took_s, evaluated, notes, as_json=flags["as_json"])
    _report(store, cells, out or results / "report.html", as_json=flags["as_json"])
    return 0 if any(one.lower is not None or one.upper is not None for _, _, one in found) else 1


def _of_requests(name: str, text: str) -> tuple[str, list[str]]:
    """(the target without the conditions on whole runs, notes on them): no lower rate would keep those, so a search downwards ends nowhere."""
    from profiler.analyse import qos

    target = qos.parse(text)
    left = target.of_requests
    if left.constraints == target.constraints:
        return text, []
    if not left.constraints:
        hint = "add a limit on requests, such as error_rate<=1% or ttft_p95<=1s; `profile sweep` judges the condition at given loads"
        raise SpecError(f"{name}: {target}: a condition on a whole run gives no highest load", hint=hint)
    whole = [str(c) for c in target.constraints if c.floor is not None]
    return str(left), [f"{name}: {condition} is about a whole run: λ* leaves it out; `profile sweep` judges it" for condition in whole]


def _search(
    spec: SweepSpec,
    backends: Sequence[BackendSpec],
    workloads: Sequence[WorkloadSpec],
    store: Store,
    progress: Progress,
    flags: dict[str, Any],
) -> tuple[list[tuple[str, str, Found]], list[str]]:
    """One start of each backend in turn, so that drift of the machine falls on all of them, until every search is over."""
    from profiler import plan as planning
    from profiler.analyse.assess import SweepFacts
    from profiler.analyse.search import Search
    from profiler.cli.measuring import measured_runs, prepare
    from profiler.cli.sweep import resolve_model
    from profiler.cli.sweep_spec import tokenizer_of
    from profiler.machine.fingerprint import full_fingerprint

    searches = {(b.name, w.name): Search(_first_rate(spec, b, w, store), spec.rung, spec.most_starts) for b in backends for w in workloads}
    sweep_id = planning.digest([spec.name, "find-limit", spec.model, *sorted(f"{b}/{w}" for b, w in searches), str(spec.qos)])
    facts = SweepFacts(sweep_id, (), spec, full_fingerprint())
    model = resolve_model([b.engine for b in backends], spec.model, progress, flags)
    tokenizer_json = tokenizer_of(spec, model)
    cells: list[str] = []
    with TemporaryDirectory(prefix="slm-profiler-") as work:
        for repeat in range(spec.most_starts):
            for backend in backends:
                own = [(w, search) for w in workloads if _goes_on(search := searches[backend.name, w.name], repeat)]
                if not own:
                    continue
                try:
                    engine, variant, environment = prepare(backend, facts, model, progress, flags)
                except ProfilerError as error:
                    progress.note(f"{backend.name}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
                    for _, search in own:
                        search.lost = error.message
                    continue
                if repeat == 0:
                    for workload, search in own:
                        _remember(spec, backend, workload, environment, search, store, cells, progress)
                    own = [(workload, search) for workload, search in own if _goes_on(search, repeat)]
                asked: list[tuple[Search, Ask]] = []
                probes = _probes(spec, backend, own, repeat, environment, store, asked, cells, progress)
                start = planning.Start(backend, repeat, ())
                for run in measured_runs(
                    start, probes, engine, variant, environment, facts, store, model, tokenizer_json, Path(work), progress
                ):
                    search, ask = asked.pop()
                    search.tell(ask, run)
                for _, search in own:
                    search.start_over()
    return [(backend, workload, search.found()) for (backend, workload), search in searches.items()], cells


def _goes_on(search: Search, repeat: int) -> bool:
    """A search that was taken up has had its earlier starts."""
    return search.starts <= repeat and not search.done()


def _probes(
    spec: SweepSpec,
    backend: BackendSpec,
    own: Sequence[tuple[WorkloadSpec, Search]],
    repeat: int,
    environment: str,
    store: Store,
    asked: list[tuple[Search, Ask]],
    cells: list[str],
    progress: Progress,
) -> Iterator[Cell]:
    """The probes of one start, each named when the one before has been told. What the store knows is not measured again."""
    from profiler import plan as planning
    from profiler.analyse.together import counts

    known = {
        (row["cell_id"], row["environment_hash"], row["repeat"]): row["run_id"]
        for row in store.runs().to_dict("records")
        if row["status"] == "done" and row["validity"] != "invalid"
    }
    for workload, search in own:
        while (ask := search.ask()) is not None:
            cell = planning.probe(spec, backend, workload, ask.load, repeat, screen=ask.purpose == "screen")
            cells.append(cell.cell_id)
            stored = known.get((cell.cell_id, environment, repeat))
            document = store.run(str(stored)) if stored is not None else None
            # A disturbed run is good enough to say where to look, and is measured again where it ought to prove something.
            if document is not None and document.get("verdicts") and (ask.purpose == "screen" or counts(document)):
                search.tell(ask, document if document["run"]["qos"] == cell.qos else _judged_anew(store, document, cell))
                progress.note(f"{cell.label}: from the store")
                continue
            asked.append((search, ask))
            yield cell


def _remember(
    spec: SweepSpec,
    backend: BackendSpec,
    workload: WorkloadSpec,
    environment: str,
    search: Search,
    store: Store,
    cells: list[str],
    progress: Progress,
) -> None:
    """Every whole cohort that the store has of these cells, at whatever load, whatever target it was measured for."""
    from profiler import plan as planning
    from profiler.analyse.together import counts

    runs = store.runs()
    same = runs[(runs["backend"] == backend.name) & (runs["workload"] == workload.name) & (runs["environment_hash"] == environment)]
    kept = 0
    for row in same[(same["status"] == "done") & (same["validity"] != "invalid") & (same["load_kind"] == "rate")].to_dict("records"):
        cell = planning.probe(spec, backend, workload, row["load"], row["repeat"], screen=False)
        if row["cell_id"] == cell.cell_id and counts(document := store.run(str(row["run_id"]))):
            search.remember(row["load"], document if document["run"]["qos"] == cell.qos else _judged_anew(store, document, cell))
            cells.append(cell.cell_id)
            kept += 1
    if kept:
        search.take_up()
        progress.note(f"{backend.name} · {workload.name}: {kept} runs from the store")


def _judged_anew(store: Store, document: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """A stored run under another target: judging is no measuring."""
    from profiler.analyse import qos
    from profiler.analyse.limit import judged

    run = document["run"]
    verdict = judged(run, store.records([run["run_id"]])[run["run_id"]], qos.parse(str(cell.qos)))
    return {**document, "run": {**run, "qos": cell.qos, "qos_result": verdict.result}, "verdicts": [verdict.to_dict()]}


def _first_rate(spec: SweepSpec, backend: BackendSpec, workload: WorkloadSpec, store: Store) -> float:
    """Where to begin: --rate, else below the highest throughput that the store has of this backend and workload, else FIRST_RATE."""
    if spec.rates:
        given = spec.rates if isinstance(spec.rates, tuple) else spec.rates.get(workload.name, ())
        if given:
            return float(given[0])
    runs = store.runs()
    same = runs[(runs["model"] == spec.model) & (runs["backend"] == backend.name) & (runs["workload"] == workload.name)]
    highest = same["request_rate"].max() if len(same) else None
    return float(f"{BELOW_SATURATION * highest:.3g}") if highest and highest > 0 else FIRST_RATE


def _dry_run(
    spec: SweepSpec,
    backends: Sequence[BackendSpec],
    workloads: Sequence[WorkloadSpec],
    targets: Mapping[str, str],
    notes: Sequence[str],
    quality: tuple[list[str], dict[str, Any]] | None,
    *,
    as_json: bool,
) -> None:
    searches = [{"backend": b.name, "workload": w.name, "qos": targets[w.name]} for b in backends for w in workloads]
    if as_json:
        told = {"searches": searches, "requests": spec.requests, "most_starts": spec.most_starts, "rung": spec.rung, "notes": list(notes)}
        click.echo(json.dumps(told | {"quality": quality[1] if quality else None}, indent=2, ensure_ascii=False))
        return
    for one in searches:
        click.echo(f"{one['backend']} · {one['workload']}: the highest Poisson rate that keeps {one['qos']}")
    click.echo(
        f"each: short probes bracket it, then whole cohorts of {spec.requests} requests around it over 3 to {spec.most_starts} engine "
        f"starts, until it is known to {spec.rung:.0%} either side"
    )
    for line in [*(f"note: {note}" for note in notes), *(quality[0] if quality else ())]:
        click.echo(line)


def _show(
    found: Sequence[tuple[str, str, Found]], took_s: float, evaluated: Evaluated | None, notes: Sequence[str], *, as_json: bool
) -> None:
    if as_json:
        rows = [{"backend": backend, "workload": workload, **asdict(one)} for backend, workload, one in found]
        whole = {"limits": rows, "seconds": took_s, "quality": evaluated.told() if evaluated else None, "notes": list(notes)}
        click.echo(json.dumps(whole, indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("backend", "workload", "λ* requests/s", "most likely", "starts", "probes", "because"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "backend")
    for backend, workload, one in found:
        odd = f"; not monotone: fits again at {', '.join(f'{x:.4g}' for x in one.not_monotone)}" if one.not_monotone else ""
        likely = f"{one.estimate:.4g}" if one.estimate is not None else "?"
        table.add_row(backend, workload, _interval(one), likely, str(one.starts), str(len(one.probes)), one.reason + odd)
    console = Console()
    console.print(table)
    console.print(
        f"λ*: the highest rate such that it and all lower probes fit, with 95 % confidence. Measured in {format_duration(took_s)}."
    )
    if evaluated:
        evaluated.show()


def _interval(one: Found) -> str:
    if one.lower is None and one.upper is None:
        return "undecided"
    return f"{'?' if one.lower is None else f'{one.lower:.4g}'} to {'?' if one.upper is None else f'{one.upper:.4g}'}"


def _report(store: Store, cells: Sequence[str], path: Path, *, as_json: bool) -> None:
    from profiler.report import html
    from profiler.report.selection import of_cells

    fresh = type(store)(store.path)
    report = html.write(of_cells(fresh, "", cells), path)
    if not as_json:
        click.echo(f"report: {report}")

"""One engine start: prepare the variant, start the engine, measure its cells in order, stop it whatever happens.

Yields an Outcome for each cell as it ends. One failed cell does not end the start; an engine that died is started once more for the
cells that remain.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiler.engines import replicas
from profiler.engines.protocol import Engine, RunningEngine
from profiler.errors import ProfilerError
from profiler.machine import placement, topology
from profiler.machine.placement import Placement
from profiler.machine.telemetry.recording import recording
from profiler.plan import Cell, Start
from profiler.records import LocalModel, Variant
from profiler.run import counters, journal
from profiler.run.cell import Measured, measure
from profiler.run.drive import DriveProgress
from profiler.run.enough import Rule
from profiler.run.memory_use import used
from profiler.run.scrape import FILE, Scraper
from profiler.run.together import Beside
from profiler.spec import BackendSpec

MAX_LOG_BYTES = 1 << 20  # of the engine's log, kept beside each run


@dataclass(frozen=True)
class Outcome:
    """How one cell ended: `measured`, or `failure` (one line) with `detail` (the engine's last lines)."""

    cell: Cell
    folder: Path  # where the cell's spool and engine.log lie
    engine: Mapping[str, Any]  # facts of the start: start_id, command, versions, ready_s, ...
    measured: Measured | None = None
    failure: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Watch:
    """What the caller hears while a start runs."""

    note: Callable[[str], None]
    cell_started: Callable[[Cell], None]
    progress: Callable[[Cell, DriveProgress], None]
    began: Callable[[Outcome], None] = lambda _: None  # how the cell ends if the program dies in it: kept in its folder from the start


def measure_start(
    start: Start,
    cells: Iterable[Cell],
    engine: Engine,
    variant: Variant,
    model: LocalModel | None,
    tokenizer_json: Path | None,
    work: Path,
    new_folder: Callable[[Cell], Path],
    watch: Watch,
    rule_of: Callable[[Cell], Rule | None] = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Measure `cells` on one start of `engine` (two, if it dies once). `new_folder` gives each cell its folder.

    `cells` is read one at a time: a search may name the next one when it has seen the last. `rule_of` says by which rule a cell may end before
    its cohort is complete.
    """
    source = iter(cells)
    cell = next(source, None)
    first = cell
    failure: ProfilerError | None = None
    for attempt in range(2):
        if cell is None:
            return
        log = work / f"{start.backend.name}-{start.repeat}-{attempt}.log"
        try:
            watch.note(f"starting {start.backend.name}" + (" again: it died" if attempt else ""))
            (where,) = placement.place(topology.topology(), [start.backend], start.client_cpus)
            with replicas.started(engine, variant, start.backend, log, watch.note, where.servers) as running:
                failure = None
                while cell is not None and running.alive():
                    yield measure_one(cell, running, variant, model, tokenizer_json, log, new_folder, watch, rule_of(cell), where)
                    cell = next(source, None)
        except ProfilerError as error:
            failure = error
            if attempt == 0 and cell is first:
                break  # it never got ready; the same start a second time would tell nothing new
    while cell is not None:
        why = failure.message if failure else f"{start.backend.name} died twice"
        folder = new_folder(cell)
        _keep_log(log, folder / "engine.log")
        yield Outcome(cell, folder, {}, failure=why, detail=failure.detail if failure else None)
        cell = next(source, None)


def measure_one(
    cell: Cell,
    running: RunningEngine,
    variant: Variant,
    model: LocalModel | None,
    tokenizer_json: Path | None,
    log: Path,
    new_folder: Callable[[Cell], Path],
    watch: Watch,
    rule: Rule | None,
    where: Placement,
    beside: Beside | None = None,
) -> Outcome:
    """One cell on a running engine; `beside` is what is measured at the same time. A failure is an outcome."""
    watch.cell_started(cell)
    folder = new_folder(cell)
    try:
        max_context = model.max_context_tokens if model else None
        watch.began(Outcome(cell, folder, _facts(running, variant, model, where), failure=journal.INTERRUPTED))

        def progress(now: DriveProgress) -> None:
            replicas.check_alive(running)
            watch.progress(cell, now)

        endpoints, pids = replicas.endpoints_of(running), replicas.pids_of(running)
        reset = _reset_prefix_cache(running, cell.backend)
        scraper = Scraper(running.metrics)
        avoid = cell.sweep.client_cpus or where.client
        with scraper, recording(folder, pids, cell.sweep.telemetry_period_s, cell.sweep.meter, avoid):
            measured = measure(cell, endpoints, tokenizer_json, max_context, folder, progress, rule, pids, where.client, beside)
        with contextlib.suppress(OSError):  # the disk became full: its pages are kept in the run's figures
            scraper.write(folder / FILE, folder.name)
        server = scraper.over(measured.drive.window_open_ns, measured.drive.window_close_ns, reset)
        return Outcome(cell, folder, _facts(running, variant, model, where), replace(measured, server=server))
    except ProfilerError as error:
        died = "" if running.alive() else f"{cell.backend.name} died: "
        detail = error.detail if running.alive() else running.log_tail()
        return Outcome(cell, folder, _facts(running, variant, model, where), failure=died + error.message, detail=detail)
    finally:
        for k in range(cell.backend.replicas):
            with contextlib.suppress(OSError):  # a log must not cost the run
                _keep_log(replicas.nth_log(log, k), replicas.nth_log(folder / "engine.log", k))


def _reset_prefix_cache(running: RunningEngine, backend: BackendSpec) -> str:
    """Empties the server's prefix cache, where it has one: what an earlier cell sent must not be known to this one. "done", or why not."""
    caches = counters.caches_prefixes(running.metrics())
    if caches is None and "prefix_caching" in backend.options:  # OpenVINO's server does not say, but was told
        caches = bool(backend.options["prefix_caching"])
    if caches is None:
        return "the server does not say whether it caches prefixes"
    if not caches:
        return "prefix caching is off"
    try:
        running.reset_prefix_cache()
    except ProfilerError as error:
        return error.message
    return "done"


def _facts(running: RunningEngine, variant: Variant, model: LocalModel | None, where: Placement) -> dict[str, Any]:
    return {
        "start_id": running.start_id,
        "command": running.command,
        "versions": dict(running.versions),
        "env_hash": running.env_hash,
        "ready_s": running.ready_s,
        "load_s": running.load_s,
        "peak_memory_bytes": running.peak_memory_bytes(),
        "device_source": running.device_source,
        "memory": used(running, variant, model),
        "replicas": replicas.facts_of(running, where.servers),
        "placement": where.reason,
        "variant": {
            "variant_id": variant.variant_id,
            "precision": variant.precision,
            "size_bytes": variant.size_bytes,
            "details": dict(variant.details),
        },
    }


def _keep_log(log: Path, target: Path) -> None:
    """The log up to now, or its last MiB: a chatty engine must not fill the store once per cell."""
    if not log.is_file():
        return
    if log.stat().st_size <= MAX_LOG_BYTES:
        shutil.copyfile(log, target)
        return
    with log.open("rb") as source:
        source.seek(-MAX_LOG_BYTES, 2)
        target.write_bytes(b"[... earlier lines left out]\n" + source.read())

"""One start of a co-run: its backends are started together and stay, and the groups of its cells are measured one after the other.

Cells of one group are measured at once, each by a thread that drives its own load client, in one window (together.py). A group of one
cell is a backend alone: the others are started and idle.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from profiler.engines import replicas
from profiler.engines.protocol import Engine, RunningEngine
from profiler.errors import ProfilerError
from profiler.machine import placement, topology
from profiler.machine.placement import Placement
from profiler.plan import Cell, Start
from profiler.records import LocalModel, Variant
from profiler.run.start import Outcome, Watch, measure_one
from profiler.run.together import Beside, Together


@dataclass(frozen=True)
class Prepared:
    """A backend that is ready to be started."""

    engine: Engine
    variant: Variant
    model: LocalModel | None


@dataclass(frozen=True)
class _Running:
    engine: RunningEngine
    where: Placement
    log: Path


def measure_co_run(
    start: Start,
    cells: Sequence[Cell],
    prepared: Mapping[str, Prepared],
    tokenizer_json: Path | None,
    work: Path,
    new_folder: Callable[[Cell], Path],
    watch: Watch,
) -> Generator[Outcome, None, None]:
    """Measure `cells` (whole groups). When a server dies, all are started once more for the groups that are left."""
    left = [list(group) for _, group in groupby(cells, key=lambda cell: cell.group)]
    failure: ProfilerError | None = None
    for attempt in range(2):
        if not left:
            return
        began = len(left)
        try:
            with ExitStack() as stack:
                running = _start_all(start, attempt, prepared, work, watch, stack)
                failure = None
                while left and all(one.engine.alive() for one in running.values()):
                    yield from _measure_group(left.pop(0), running, prepared, tokenizer_json, new_folder, watch)
        except ProfilerError as error:
            failure = error
            if attempt == 0 and len(left) == began:
                break
    for cell in (cell for group in left for cell in group):
        why = failure.message if failure else "a backend of the co-run died twice"
        yield Outcome(cell, new_folder(cell), {}, failure=why, detail=failure.detail if failure else None)


def _start_all(
    start: Start, attempt: int, prepared: Mapping[str, Prepared], work: Path, watch: Watch, stack: ExitStack
) -> dict[str, _Running]:
    running: dict[str, _Running] = {}
    places = placement.place(topology.topology(), start.backends, start.client_cpus)
    for backend, where in zip(start.backends, places, strict=True):
        watch.note(f"starting {backend.name}" + (" again" if attempt else ""))
        log = work / f"co-run-{backend.name}-{start.repeat}-{attempt}.log"
        one = prepared[backend.name]
        engine = stack.enter_context(replicas.started(one.engine, one.variant, backend, log, watch.note, where.servers))
        running[backend.name] = _Running(engine, where, log)
    return running


def _measure_group(
    group: Sequence[Cell],
    running: Mapping[str, _Running],
    prepared: Mapping[str, Prepared],
    tokenizer_json: Path | None,
    new_folder: Callable[[Cell], Path],
    watch: Watch,
) -> list[Outcome]:
    together = Together(len(group))
    folders = {cell.cell_id: new_folder(cell) for cell in group}
    # One line on the terminal: the first cell's stands for the group.
    quiet = replace(watch, cell_started=lambda _: None, progress=lambda cell, now: None)

    def measure(number: int) -> Outcome:
        cell = group[number]
        own, one = running[cell.backend.name], prepared[cell.backend.name]
        others = [pid for name, other in running.items() if name != cell.backend.name for pid in replicas.pids_of(other.engine)]
        beside = Beside(together, number, others)
        outcome = measure_one(
            cell,
            own.engine,
            one.variant,
            one.model,
            tokenizer_json,
            own.log,
            lambda c: folders[c.cell_id],
            watch if number == 0 else quiet,
            None,
            own.where,
            beside,
        )
        if outcome.failure is not None:
            together.stop("what ran beside it failed")
        return outcome

    with ThreadPoolExecutor(max_workers=len(group), thread_name_prefix="co-run") as pool:
        futures = [pool.submit(measure, number) for number in range(len(group))]
        try:
            outcomes = [future.result() for future in futures]
        except BaseException:
            together.stop("interrupted")
            raise
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if failed:  # the rest was measured beside nothing for a part of its window
        why = f"{failed[0].cell.backend.name} failed beside it: {failed[0].failure}"
        outcomes = [o if o.failure is not None else replace(o, measured=None, failure=why) for o in outcomes]
    return outcomes

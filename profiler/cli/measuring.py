"""Between the plan and the store: a backend made ready, and its cells measured, judged and kept one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from profiler.errors import ProfilerError

if TYPE_CHECKING:
    from profiler.analyse.assess import SweepFacts
    from profiler.analyse.memory import Prediction
    from profiler.cli.progress import Progress
    from profiler.engines.protocol import Engine
    from profiler.plan import Cell, Start
    from profiler.records import LocalModel, RequestRecord, Variant
    from profiler.run.start import Outcome, Watch
    from profiler.spec import BackendSpec
    from profiler.store.draft import RunDraft
    from profiler.store.store import Store

    NewFolder = Callable[[Cell], Path]


def prepare(
    backend: BackendSpec, facts: SweepFacts, model: LocalModel | None, progress: Progress, flags: dict[str, Any]
) -> tuple[Engine, Variant, str]:
    """The engine, the variant and the environment hash. Raises ProfilerError where the backend cannot run here."""
    from profiler.analyse.assess import environment_hash
    from profiler.cli.engines import split_pip_args
    from profiler.engines import registry
    from profiler.machine.needs import unmet

    engine = registry.get(backend.engine)
    problems = [*unmet(backend), *engine.problems(backend)]
    if problems:
        raise ProfilerError(f"{backend.name} cannot run here: {'; '.join(problems)}", hint="`profile list backends` shows those that can")
    variant = engine.prepare(model, backend, progress.working, split_pip_args(flags["pip_args"]))
    return engine, variant, environment_hash(facts, backend, variant, model)


def measured_runs(
    start: Start,
    cells: Iterable[Cell],
    engine: Engine,
    variant: Variant,
    environment: str,
    facts: SweepFacts,
    store: Store,
    model: LocalModel | None,
    tokenizer_json: Path | None,
    work: Path,
    progress: Progress,
    forecasts: Mapping[str, Prediction | None] = MappingProxyType({}),
) -> Iterator[dict[str, Any]]:
    """Measure `cells` (read one at a time) on one start; yields run.json of each as it has been kept.

    `forecasts`: what memory was predicted to be needed, by cell, before the engine took it.
    """
    from profiler.analyse.assess import assess, settle
    from profiler.analyse.enough import rule_of
    from profiler.run.start import measure_start

    def outcomes(new_folder: NewFolder, watch: Watch) -> Generator[Outcome, None, None]:
        return measure_start(start, cells, engine, variant, model, tokenizer_json, work, new_folder, watch, rule_of)

    def judged(outcome: Outcome) -> dict[str, Any]:
        return assess(facts, outcome, start.repeat, environment, model, forecasts.get(outcome.cell.cell_id))

    return keep_each(store, progress, outcomes, judged, settle)


def keep_each(
    store: Store,
    progress: Progress,
    outcomes_of: Callable[[NewFolder, Watch], Generator[Outcome, None, None]],
    judged: Callable[[Outcome], dict[str, Any]],
    settled: Callable[[Outcome], Outcome] = lambda outcome: outcome,
) -> Iterator[dict[str, Any]]:
    """Keep each outcome as it comes, in a draft made when its cell began. What a failed cell had measured is kept with it.

    Drafts of cells that never ended (Ctrl-C, a disk that is full) stay as journals, if their load had begun; see analyse/recover.py.
    """
    from profiler.analyse import recover
    from profiler.cli.sweep_show import summary
    from profiler.run.journal import has_spool
    from profiler.run.start import Watch

    drafts: dict[str, RunDraft] = {}

    def new_folder(cell: Cell) -> Path:
        drafts[cell.cell_id] = store.draft()
        return drafts[cell.cell_id].folder

    def began(outcome: Outcome) -> None:
        recover.begin(outcome.folder, judged(outcome))

    watch = Watch(progress.working, progress.cell_started, progress.cell_progress, began)
    with closing(outcomes_of(new_folder, watch)) as outcomes:
        try:
            for outcome in map(settled, outcomes):
                run, requests = _told(outcome, judged(outcome))
                drafts[outcome.cell.cell_id].commit(run, requests)
                del drafts[outcome.cell.cell_id]
                progress.cell_done(outcome.cell, summary(run), failed=outcome.failure is not None)
                yield run
        finally:
            for draft in drafts.values():
                draft.leave() if has_spool(draft.folder) else draft.discard()


def _told(outcome: Outcome, run: dict[str, Any]) -> tuple[dict[str, Any], Sequence[RequestRecord]]:
    """run.json and the requests of a cell. Of a failed one those that had ended before it failed, as its journal has them."""
    from profiler.analyse.recover import broken_off
    from profiler.run.journal import salvage

    if outcome.measured is not None:
        return run, outcome.measured.requests
    with contextlib.suppress(OSError, ValueError, KeyError):  # no journal, or one that tells nothing: the failure is told all the same
        left = salvage(outcome.folder)
        if left is not None:
            return broken_off(run, left, "failed", outcome.failure or "failed"), left.requests
    return run, ()

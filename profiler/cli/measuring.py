"""Between the plan and the store: a backend made ready, and its cells measured, judged and kept one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
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
    from profiler.records import LocalModel, Variant
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
    """Keep each outcome as it comes, in a draft made when its cell began; drafts of cells that never ended are given up."""
    from profiler.cli.sweep_show import summary
    from profiler.run.start import Watch

    drafts: dict[str, RunDraft] = {}

    def new_folder(cell: Cell) -> Path:
        drafts[cell.cell_id] = store.draft()
        return drafts[cell.cell_id].folder

    with closing(outcomes_of(new_folder, Watch(progress.working, progress.cell_started, progress.cell_progress))) as outcomes:
        try:
            for outcome in map(settled, outcomes):
                run = judged(outcome)
                drafts.pop(outcome.cell.cell_id).commit(run, outcome.measured.requests if outcome.measured else ())
                progress.cell_done(outcome.cell, summary(run), failed=outcome.failure is not None)
                yield run
        finally:
            for draft in drafts.values():
                draft.discard()

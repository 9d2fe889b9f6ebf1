"""The co-run of a sweep: prepare all of its backends, skip the groups that are measured, measure the rest, keep each cell."""

from __future__ import annotations

from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import ProfilerError

if TYPE_CHECKING:
    from profiler.cli.progress import Progress
    from profiler.plan import Cell, Start
    from profiler.records import LocalModel
    from profiler.store.draft import RunDraft
    from profiler.store.store import Store


def measure_co_run(
    start: Start,
    facts: Any,
    store: Store,
    model: LocalModel | None,
    tokenizer_json: Path | None,
    work: Path,
    progress: Progress,
    flags: dict[str, Any],
) -> None:
    """As measure_backend does for one backend. A group is measured as a whole or not at all."""
    from profiler.analyse.assess import assess, failed
    from profiler.cli.measuring import prepare
    from profiler.cli.sweep_show import summary
    from profiler.run import co_run
    from profiler.run.start import Watch

    prepared: dict[str, co_run.Prepared] = {}
    environments: dict[str, str] = {}
    try:
        for backend in start.backends:
            engine, variant, environments[backend.name] = prepare(backend, facts, model, progress, flags)
            prepared[backend.name] = co_run.Prepared(engine, variant, model)
    except ProfilerError as error:
        progress.note(f"co-run: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        for cell in start.cells:
            store.keep(failed(facts, cell, start.repeat, error.message, model))
            progress.cell_done(cell, f"failed: {error.message}", failed=True)
        return
    done = store.measured()
    groups = [list(group) for _, group in groupby(start.cells, key=lambda cell: cell.group)]
    missing = [
        cell
        for group in groups
        if any((c.cell_id, environments[c.backend.name], start.repeat) not in done for c in group)
        for cell in group
    ]
    progress.already(len(start.cells) - len(missing), "co-run")
    drafts: dict[str, RunDraft] = {}

    def new_folder(cell: Cell) -> Path:
        drafts[cell.cell_id] = store.draft()
        return drafts[cell.cell_id].folder

    watch = Watch(progress.working, progress.cell_started, progress.cell_progress)
    with closing(co_run.measure_co_run(start, missing, prepared, tokenizer_json, work, new_folder, watch)) as outcomes:
        try:
            for outcome in outcomes:  # not settled: the window is shared
                run = assess(facts, outcome, start.repeat, environments[outcome.cell.backend.name], model)
                drafts.pop(outcome.cell.cell_id).commit(run, outcome.measured.requests if outcome.measured else ())
                progress.cell_done(outcome.cell, summary(run), failed=outcome.failure is not None)
        finally:
            for draft in drafts.values():
                draft.discard()

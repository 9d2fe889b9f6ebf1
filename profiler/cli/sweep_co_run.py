"""The co-run of a sweep: prepare all of its backends, skip the groups that are measured, measure the rest, keep each cell."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import ProfilerError

if TYPE_CHECKING:
    from profiler.cli.progress import Progress
    from profiler.plan import Start
    from profiler.records import LocalModel
    from profiler.run.start import Outcome
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
    from profiler.cli.measuring import keep_each, prepare
    from profiler.run import co_run

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

    def judged(outcome: Outcome) -> dict[str, Any]:
        return assess(facts, outcome, start.repeat, environments[outcome.cell.backend.name], model)

    # Not settled: the window is shared.
    for _ in keep_each(
        store, progress, lambda *seams: co_run.measure_co_run(start, missing, prepared, tokenizer_json, work, *seams), judged
    ):
        pass

"""`profile compare --ab A B`: both measured in interleaved starts, as a sweep of two backends, so that drift falls on both alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.analyse.compare_arms import Arm

# Flags of `profile sweep` that stay as they are there.
_DEFAULTS = {"again": False, "dry_run": False}


def measure_both(ab: tuple[str, str], results: Path, flags: dict[str, Any]) -> tuple[Arm, Arm]:
    """The two arms. What the store has of them under the same conditions is not measured again: an interrupted --ab goes on."""
    from profiler import plan as planning
    from profiler.analyse import compare_arms
    from profiler.cli import sweep, sweep_show
    from profiler.cli.compare import DEFAULT_STARTS
    from profiler.cli.progress import Progress
    from profiler.cli.sweep_spec import read_spec
    from profiler.report.selection import of_cells
    from profiler.store.store import Store

    given = {**_DEFAULTS, **flags, "backends": ab, "repeats": flags["starts"] or DEFAULT_STARTS}
    spec = read_spec(None, given)
    plan = planning.make(spec)
    names = list(dict.fromkeys(start.backend.name for start in plan.starts))
    backends = planning.parts(spec)[0]
    if len(names) < 2:
        raise UsageError(f"--ab: both are called {names[0]!r}", hint="give one of the TOML files another name")
    sweep.check(plan)
    store, progress = Store(results), Progress(len(plan.cells))
    store.check_writable()
    sweep_show.announce(plan, progress)
    sweep.measure(plan, store, progress, given)
    repeats = {start.repeat for start in plan.starts}
    fresh = Store(results)
    documents = [d for d in of_cells(fresh, plan.sweep_id, plan.cell_ids).documents if d["run"]["repeat"] in repeats]
    arms = [
        compare_arms.load(backend.name, fresh, [d for d in documents if d["run"]["backend"] == backend.name], ["backend"])
        for backend in backends
    ]
    return arms[0], arms[1]

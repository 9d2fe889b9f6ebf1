"""A results folder as pandas frames, Arrow tables and the report's figures: `profiler.open("results")`.

Every frame says in `.attrs` what its columns mean: `units`, `definitions`, `provenance` (rows by class), `null` (why values are missing).
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from profiler.frames.results import Results

__all__ = ["Results", "open"]


def open(path: str | PathLike[str] = "results") -> Results:  # noqa: A001 - pf.open, as gzip.open
    """Open a results folder to read; `results/reference` is the one that ships. What killed sweeps left in it is recovered first. Raises StoreError when there is none."""
    from profiler import catalog
    from profiler.analyse.recover import open_store
    from profiler.errors import StoreError

    folder = catalog.results(Path(path))
    if not folder.exists():
        raise StoreError(f"{folder}: no such results folder", hint="`profile sweep` makes one; give the path of one that is there")
    return Results(open_store(folder))

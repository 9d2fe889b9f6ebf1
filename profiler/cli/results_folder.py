"""How a results folder is named on the command line: a path, or the URL of a store."""

from __future__ import annotations

from pathlib import Path


def folder(value: str | Path) -> Path:
    """A path or a file:/// URL as the folder's Path: a click type. Raises UsageError for what there is no storage for."""
    from profiler.store.place import folder_of

    return folder_of(value)


RESULTS = folder

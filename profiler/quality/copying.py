"""Copies evaluations from one results folder to another: each with its files or not at all, none overwritten. Twice the same adds nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from profiler.quality import documents
from profiler.quality.verifying import faults
from profiler.store.writer import storing


@dataclass(frozen=True)
class Copied:
    """Keys: `copied` now, `known` already with the same content, in `conflicts` known with another, `damaged` (and why) not copied."""

    copied: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.conflicts and not self.damaged


def copy(source: Path, target: Path) -> Copied:
    """Every document of `source` into `target`, both results folders. Raises StoreError when either cannot be used at all."""
    done = Copied()
    for path in documents.paths(source):
        wrong = next(faults(path), None)
        if wrong is not None:
            done.damaged.append((path.stem, f"{wrong.path.name}: {wrong.what}"))
            continue
        goes = target / documents.FOLDER / path.name
        with storing(target):
            goes.parent.mkdir(parents=True, exist_ok=True)
            new = not goes.exists()
            if new:
                document = documents.load(source, path.stem) or {}
                for name in documents.files_of(document):
                    _put(path.parent / name, goes.parent / name, replace=True)  # no document names it yet
                new = _put(path, goes, replace=False)
        if new:
            done.copied.append(path.stem)
            continue
        if goes.read_bytes() != path.read_bytes():
            done.conflicts.append(path.stem)
        elif (wrong := next(faults(goes), None)) is not None:
            done.damaged.append((path.stem, f"{wrong.path}: {wrong.what}"))
        else:
            done.known.append(path.stem)
    return done


def _put(source: Path, target: Path, *, replace: bool) -> bool:
    """Beside, synced, and linked into place, so that a reader sees all of it or nothing. False where another came first. Raises OSError."""
    handle, beside = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as writing, source.open("rb") as reading:
            shutil.copyfileobj(reading, writing)
            writing.flush()
            os.fsync(writing.fileno())
        Path(beside).chmod(0o644)
        if replace:
            Path(beside).replace(target)
            return True
        try:
            os.link(beside, target)
        except FileExistsError:
            return False
        return True
    finally:
        with contextlib.suppress(OSError):
            Path(beside).unlink()

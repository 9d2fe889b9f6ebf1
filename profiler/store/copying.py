"""Copies runs from one store to another: each whole or not at all, compared by checksum, none overwritten. Twice the same adds nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import IO, Any

from profiler.errors import StoreError
from profiler.store import schema
from profiler.store.place import Place, files_of
from profiler.store.writer import seal_of

_PIECE = 1 << 20


@dataclass(frozen=True)
class Copied:
    """Run ids: `copied` now, `known` already with the same content, in `conflicts` known with another, `damaged` (and why) not copied."""

    copied: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the target now has every run of the source."""
        return not self.conflicts and not self.damaged


class _Damaged(Exception):
    pass


def copy(source: Place, target: Place) -> Copied:
    """Every run of `source` into `target`. Raises StoreError when either cannot be used at all; what is wrong with one run is told."""
    done = Copied()
    there = set(target.run_ids())
    for run_id in source.run_ids():
        try:
            manifest = _read(source, run_id)
            if run_id in there:
                _compare(manifest, run_id, target, done)
                continue
            try:
                _put(manifest, run_id, source, target)
                done.copied.append(run_id)
            except FileExistsError:  # another copy was quicker
                _compare(manifest, run_id, target, done)
        except _Damaged as damaged:
            done.damaged.append((run_id, str(damaged)))
    return done


def _read(place: Place, run_id: str) -> bytes:
    try:
        with place.open(run_id, "run.json") as file:
            return file.read()
    except OSError as error:
        raise _Damaged(f"run.json: cannot be read: {error.strerror}") from error


def _compare(manifest: bytes, run_id: str, target: Place, done: Copied) -> None:
    """run.json holds the checksums of the other files: where it is the same to the byte, so are they, or the target is damaged."""
    if manifest != _read_or_none(target, run_id):
        done.conflicts.append(run_id)
        return
    for name, written in _files(manifest).items():
        if target.size(run_id, name) != written["bytes"]:
            raise _Damaged(f"{name}: not as it was written, in {target.url}")
    done.known.append(run_id)


def _read_or_none(place: Place, run_id: str) -> bytes | None:
    try:
        return _read(place, run_id)
    except _Damaged:
        return None


def _put(manifest: bytes, run_id: str, source: Place, target: Place) -> None:
    files = _files(manifest)
    with target.putting(run_id) as putting:
        for name, written in files.items():
            try:
                reading = source.open(run_id, name)
            except OSError as error:
                raise _Damaged(f"{name}: cannot be read: {error.strerror}") from error
            with reading, putting.write(name) as writing:
                if _pour(reading, writing) != written["sha256"]:
                    raise _Damaged(f"{name}: does not have the checksum it was written with")
        with putting.write("run.json") as writing:
            writing.write(manifest)


def _pour(reading: IO[bytes], writing: IO[bytes]) -> str:
    """Copy; the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while True:
        try:
            piece = reading.read(_PIECE)
        except OSError as error:
            raise _Damaged(f"cannot be read: {error.strerror}") from error
        if not piece:
            return digest.hexdigest()
        digest.update(piece)
        writing.write(piece)


def _files(manifest: bytes) -> dict[str, Any]:
    """Raises _Damaged where it is no run.json that this program can answer for."""
    try:
        document = json.loads(manifest)
        version = document.get("schema_version")
        files = files_of(document)
        if not isinstance(version, int) or not all({"bytes", "sha256"} <= set(written) for written in files.values()):
            raise ValueError("not a run of this program")
        if document.get("sha256") not in (None, seal_of(document)):
            raise ValueError("does not have the checksum it was written with")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _Damaged(f"run.json: {error}") from error
    if version > schema.SCHEMA_VERSION:
        raise _Damaged(
            f"run.json: written in schema version {version}, this program reads up to {schema.SCHEMA_VERSION}: update slm-profiler"
        )
    return files


def check_apart(source: Place, target: Place) -> None:
    """Raises StoreError when both are the same store."""
    if source.url == target.url:
        raise StoreError(f"{source.url}: copied into itself", hint="give another store")

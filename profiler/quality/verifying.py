"""Is every evaluation of a results folder as it was written? Names what is not. Reads only, changes nothing.

A document holds the checksum of itself, and the SHA-256 of a file beside it (KEY.HASH.top.npz, of old ones KEY.top.npz).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import StoreError
from profiler.quality import documents
from profiler.store.verify import Damage, Kind
from profiler.store.writer import checksum


@dataclass(frozen=True)
class Checked:
    """`evaluations` were looked at, `sound` of them are as written, by their own checksums where they have them."""

    evaluations: int
    sound: int
    underway: int
    damages: list[Damage]


def check(results: Path) -> Checked:
    """Check every document. Raises StoreError when the folder itself cannot be read."""
    entries = documents.entries(results)  # read once: what comes while it is checked is no fault
    damages: list[Damage] = []
    known: set[str] = set()
    unreadable: set[str] = set()  # keys: nobody knows which files were theirs
    paths = [path for path in entries if path.suffix == ".json" and not documents.is_underway(path)]
    sound = 0
    for path in paths:
        found = list(faults(path))
        document = _read(path)
        known |= {path.name, *documents.files_of(document or {})}
        unreadable |= {path.stem} if document is None else set()
        damages += found
        sound += not found
    underway = {_key(path) for path in entries if path.suffix == ".part" and not path.name.startswith(".")}
    for path in entries:
        if path.name not in known and not documents.is_underway(path) and _key(path) not in underway | unreadable:
            damages.append(Damage(path, None, "foreign", "not a file of an evaluation"))
    return Checked(len(paths), sound, len(underway), damages)


def _key(path: Path) -> str:
    return path.name.partition(".")[0]


def faults(path: Path) -> Iterator[Damage]:
    """What is wrong with one document and the files it names."""
    try:
        document = documents.load(path.parent.parent, path.stem)
    except StoreError as error:
        yield Damage(path, None, _kind(error, _read(path)), error.message.removeprefix(f"{path}: "))
        return  # what it names may be wrong too
    if document is None:
        yield Damage(path, None, "missing", "is not there")
        return
    if document.get("key") != path.stem:
        yield Damage(path, None, "foreign", f"is the evaluation {document.get('key')}")
    for name, digest in documents.files_of(document).items():
        wrong = list(_file_faults(path.parent / name, digest))
        if wrong and _read(path) not in (document, None):  # --again put another in its place meanwhile, and took the old one's file away
            yield from faults(path)
        else:
            yield from wrong


def _kind(error: StoreError, document: Mapping[str, Any] | None) -> Kind:
    version = (document or {}).get("version")
    if isinstance(version, int) and version > documents.VERSION:
        return "newer schema"
    return "damaged" if error.message.endswith(documents.NOT_AS_WRITTEN) else "unreadable"


def _file_faults(path: Path, digest: str) -> Iterator[Damage]:
    try:
        found = checksum(path)["sha256"]
    except FileNotFoundError:
        yield Damage(path, None, "missing", "is not there")
    except OSError as error:
        yield Damage(path, None, "no permission", f"cannot be read: {error.strerror}")
    else:
        if found != digest:
            yield Damage(path, None, "damaged", documents.NOT_AS_WRITTEN)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

"""Is every run of a store as it was written? Names what is not. Reads only, changes nothing.

run.json holds the size and SHA-256 of the run's other files, and of itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from profiler.errors import StoreError
from profiler.store.draft import run_folder
from profiler.store.store import read_document
from profiler.store.writer import checksum, seal_of

Kind = Literal["unreadable", "newer schema", "damaged", "missing", "foreign", "two of one id", "no permission"]


@dataclass(frozen=True)
class Damage:
    """One fault: `path` is the file or folder, `run_id` the run it belongs to, None where it belongs to none."""

    path: Path
    run_id: str | None
    kind: Kind
    what: str


@dataclass(frozen=True)
class Checked:
    """`runs` were looked at, `sound` of them are as written, by their own checksums where they have them."""

    runs: int
    sound: int
    damages: list[Damage]


def check(root: Path) -> Checked:
    """Check every run. Raises StoreError when the folder itself cannot be read."""
    damages: list[Damage] = []
    seen: dict[str, list[Path]] = {}
    runs = sound = 0
    for folder in _run_folders(root, damages):
        runs += 1
        seen.setdefault(folder.name, []).append(folder)
        found = list(_faults(folder))
        if folder != run_folder(root, folder.name):
            found.append(Damage(folder, folder.name, "foreign", "not in the folder of its day"))
        damages += found
        sound += not found
    for run_id, folders in seen.items():
        if len(folders) > 1:
            same = len({_bytes(folder / "run.json") for folder in folders}) == 1
            what = "twice with the same content" if same else "two runs with one id and different content"
            damages.append(Damage(folders[1], run_id, "two of one id", f"{what}; the other is {folders[0]}"))
    return Checked(runs, sound, damages)


def _faults(folder: Path) -> Iterator[Damage]:
    run_id = folder.name
    try:
        document = read_document(folder)
    except StoreError as error:
        kind: Kind = "newer schema" if "written in schema version" in error.message else "unreadable"
        if isinstance(error.__cause__, FileNotFoundError):
            kind = "missing"
        yield Damage(folder / "run.json", run_id, kind, error.message.removeprefix(f"{folder / 'run.json'}: "))
        return
    told = document.get("sha256")
    # As it stands in the file: read_document adds the columns that came later.
    if told is not None and told != seal_of(json.loads((folder / "run.json").read_text(encoding="utf-8"))):
        yield Damage(folder / "run.json", run_id, "damaged", "does not have the checksum it was written with")
    for name, written in document["files"].items():
        if Path(name).name != name:
            yield Damage(folder / "run.json", run_id, "damaged", f"names a file outside its folder: {name}")
            continue
        yield from _file_faults(folder / name, run_id, written)
    try:
        for path in sorted(folder.iterdir()):
            if path.name != "run.json" and path.name not in document["files"]:
                yield Damage(path, run_id, "foreign", "not a file of this run")
    except OSError as error:
        yield Damage(folder, run_id, "no permission", str(error.strerror))


def _file_faults(path: Path, run_id: str, written: dict[str, object]) -> Iterator[Damage]:
    try:
        found = checksum(path)
    except FileNotFoundError:
        yield Damage(path, run_id, "missing", "is not there")
    except OSError as error:
        yield Damage(path, run_id, "no permission", f"cannot be read: {error.strerror}")
    else:
        if found["bytes"] != written["bytes"]:
            yield Damage(path, run_id, "damaged", f"is {found['bytes']} bytes long and was written with {written['bytes']}")
        elif found["sha256"] != written["sha256"]:
            yield Damage(path, run_id, "damaged", "does not have the checksum it was written with")


def _run_folders(root: Path, damages: list[Damage]) -> Iterator[Path]:
    try:
        days = sorted((root / "runs").iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{root}: cannot be read: {error.strerror}", hint="give a results folder you may read") from error
    for day in days:
        if not day.is_dir():
            damages.append(Damage(day, None, "foreign", "not a run"))
            continue
        try:
            entries = sorted(day.iterdir())
        except OSError as error:
            damages.append(Damage(day, None, "no permission", f"cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            if entry.is_dir():
                yield entry
            else:
                damages.append(Damage(entry, None, "foreign", "not a run"))


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None

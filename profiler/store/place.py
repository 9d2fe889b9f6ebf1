"""Where runs lie, behind a URL: what a store must be able to do so that runs can be copied to it and from it.

A folder today (a path, or file:///...). The shape is what an object storage can do as well: list ids, read a file of a run, and put a run
so that it appears whole or not at all (there: the other files first, run.json last, and only if there is none).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from profiler.errors import StoreError, UsageError
from profiler.store.draft import COPY, RunDraft, run_folder, set_aside_leftovers, sync
from profiler.store.writer import storing


class Place(Protocol):
    """A store of immutable runs. A run's files are named by its run.json, which is one of them."""

    url: str

    def run_ids(self) -> list[str]:
        """The ids of all runs, oldest first. Raises StoreError."""

    def open(self, run_id: str, name: str) -> IO[bytes]:
        """A file of a run. Raises OSError (FileNotFoundError: no such run or file)."""

    def size(self, run_id: str, name: str) -> int | None:
        """Bytes of a file of a run; None where it is not there."""

    @contextmanager
    def putting(self, run_id: str) -> Iterator[Putting]:
        """A run on its way in. It appears when the block ends without an error, whole; else nothing is left. Raises StoreError.

        Raises FileExistsError at the end of the block when a run of that id came in between: nothing is overwritten.
        """


class Putting(Protocol):
    def write(self, name: str) -> IO[bytes]:
        """A new file of the run, to be written and closed."""


def at(url: str | Path) -> Place:
    """The store at a path or a file:/// URL. Raises UsageError for what this program has no storage for."""
    return Folder(folder_of(url))


def folder_of(url: str | Path) -> Path:
    """The folder that a path or a file:/// URL means. Raises UsageError."""
    text = str(url)
    if not re.match(r"[a-z][a-z0-9+.-]+:/", text):  # one slash: a Path has folded the others
        return Path(text).expanduser()
    parts = urlsplit(text)
    if parts.scheme != "file":
        raise UsageError(f"{text}: no storage for {parts.scheme}:// yet", hint="give a folder or a file:/// URL")
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{text}: not a folder of this machine", hint="three slashes: file:///srv/results")
    return Path(unquote(parts.path))


class Folder:
    """A results folder of this machine (or a file system it has mounted)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.absolute().as_uri()
        if root.exists() and not root.is_dir():
            raise StoreError(f"{root}: is a file, not a results folder", hint="give a folder")

    def run_ids(self) -> list[str]:
        try:
            return sorted(folder.name for day in _folders(self.root / "runs") for folder in _folders(day))
        except OSError as error:
            raise StoreError(f"{self.root}: cannot be read: {error.strerror}", hint="give a results folder you may read") from error

    def open(self, run_id: str, name: str) -> IO[bytes]:
        return (run_folder(self.root, run_id) / name).open("rb")

    def size(self, run_id: str, name: str) -> int | None:
        path = run_folder(self.root, run_id) / name
        return path.stat().st_size if path.is_file() else None

    @contextmanager
    def putting(self, run_id: str) -> Iterator[Putting]:
        set_aside_leftovers(self.root)
        draft = RunDraft(self.root, run_id, f"{run_id}.{secrets.token_hex(3)}{COPY}")
        try:
            with storing(self.root):
                yield _Draft(draft)
                names = [path.name for path in draft.folder.iterdir()]
                for name in names:
                    sync(draft.folder / name)
            if run_folder(self.root, run_id).exists():
                raise FileExistsError(run_id)
            try:
                draft.publish(names)
            except StoreError:
                if run_folder(self.root, run_id).exists():  # it came between the look above and the rename
                    raise FileExistsError(run_id) from None
                raise
        finally:
            draft.discard()


class _Draft:
    def __init__(self, draft: RunDraft) -> None:
        self._draft = draft

    def write(self, name: str) -> IO[bytes]:
        return (self._draft.folder / name).open("xb")


def _folders(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def files_of(document: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Size and checksum of a run's files beside run.json, as its run.json says. Raises ValueError on a name that leaves the folder."""
    files = document.get("files", {})
    if not isinstance(files, dict) or any(Path(name).name != name or name == "run.json" for name in files):
        raise ValueError("names files outside its folder")
    return files

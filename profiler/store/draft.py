"""A run in the making: beside the store, synced, then renamed into place, so that no reader ever sees half of it.

A draft is a folder in .incoming/ whose lock file next to it is held (flock) by the process that fills it; other processes that write
into it hold the file they write. The kernel drops a lock when its process dies, however it dies; a draft in which nothing is held is a
leftover. Leftovers go to .interrupted/, where they are recovered (analyse/recover.py) or wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from profiler.errors import StoreError
from profiler.records import RequestRecord
from profiler.store.writer import checksum, run_document, sealed, storing, write_json, write_requests

INCOMING, INTERRUPTED = ".incoming", ".interrupted"
KEPT_FILES = ("engine.log", "telemetry.parquet", "engine_metrics.parquet")  # what a cell may leave in its folder for the run
EXPENDABLE = ("spool.reserve", "bodies.bin")  # go first when a run is written: on a full disk they are the room for it
COPY = ".copy"  # ends the name of a draft that is filled from another store
_LOCK = ".lock"
MIN_FREE_BYTES = 64 << 20  # a cell's spool, log and records stay well below this; less means that a sweep would die in the middle


def new_run_id() -> str:
    """Unique, sorts by time: `20261124T014312.123456Z-9f3c21`."""
    now = time.time_ns()
    stamp = datetime.fromtimestamp(now // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%S")
    return f"{stamp}.{now // 1000 % 1_000_000:06d}Z-{secrets.token_hex(3)}"


class RunDraft:
    """A run in the making. `folder` is where the engine's log and the client's spool go while the cell runs."""

    def __init__(self, root: Path, run_id: str, name: str | None = None) -> None:
        """`name` is the folder's while it is filled; by default the run's id."""
        self.root = root
        self.run_id = run_id
        self.folder = root / INCOMING / (name or run_id)
        with storing(root), _creating(root):
            self.folder.mkdir()
            self._lock = _take(_lock_path(self.folder))

    @classmethod
    def take_over(cls, root: Path, run_id: str) -> RunDraft | None:
        """The draft that a dead process left in .interrupted/; None where another process has it, or had it. Raises StoreError."""
        draft = cls.__new__(cls)
        draft.root, draft.run_id, draft.folder = root, run_id, root / INTERRUPTED / run_id
        with storing(root), _creating(root):
            try:
                draft._lock = _take(_lock_path(draft.folder))
            except BlockingIOError:
                return None
        if draft.folder.is_dir():
            return draft
        draft.leave()
        return None

    def commit(self, document: Mapping[str, Any], requests: Sequence[RequestRecord] = ()) -> Path:
        """Write run.json and requests.parquet, sync, rename into place; returns the run's folder.

        `document` is run.json without schema_version, run_id and files: {"run": {columns}, "provenance": ..., ...}. Of the files
        in the folder those in KEPT_FILES stay, the rest (the spool) goes. Raises StoreError; the draft then stays where it is.
        """
        with storing(self.root):
            for name in EXPENDABLE:
                (self.folder / name).unlink(missing_ok=True)
            imported = document["run"].get("provenance_class") == "imported"
            if requests or not imported:  # figures without requests have no empty table of them
                write_requests(self.folder / "requests.parquet", self.run_id, requests)
            logs = sorted(path.name for path in self.folder.glob("engine-[0-9]*.log"))  # of further replicas
            own = ["requests.parquet"] if requests or not imported else []
            kept = [*own, *(name for name in KEPT_FILES if _is_whole(self.folder / name)), *logs]
            files = {name: checksum(self.folder / name) for name in kept}
            write_json(self.folder / "run.json", sealed(run_document(document, self.run_id, files)))
            for name in [*kept, "run.json"]:
                sync(self.folder / name)
        return self.publish([*kept, "run.json"])

    def publish(self, names: Sequence[str]) -> Path:
        """Rename into place a folder whose files, run.json among them, are written and synced; of the others it is cleared. Raises StoreError."""
        target = run_folder(self.root, self.run_id)
        with storing(self.root):
            if target.exists():  # renaming would say so too, but the spool would be gone
                raise StoreError(
                    f"{target}: a run of this id is there already", hint="a run is immutable; `profile results verify` checks it"
                )
            _remove_all_but(self.folder, set(names))
            sync(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.folder.rename(target)
            for folder in (target.parent, target.parent.parent, self.root, self.folder.parent):
                sync(folder)
        self._release()
        return target

    def discard(self) -> None:
        """Give the draft up and remove what it holds. Does nothing after commit."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._release()

    def leave(self) -> None:
        """Let go of the draft and leave it as it is: the next who opens the folder finds a leftover."""
        self._release()

    def _release(self) -> None:
        if not self._lock.closed:
            _lock_path(self.folder).unlink(missing_ok=True)
            self._lock.close()


def check_writable(root: Path, inside: str = INCOMING) -> None:
    """Raise StoreError if nothing could be kept in `root`'s folder `inside`: a file, not writable, disk full. Creates the folder."""
    with storing(root):
        (root / inside).mkdir(parents=True, exist_ok=True)
        probe = root / inside / f".{new_run_id()}.probe"
        probe.write_bytes(b"?")
        probe.unlink()
        free = shutil.disk_usage(root).free
    if free < MIN_FREE_BYTES:
        raise StoreError(f"{root}: only {free >> 20} MiB free on its disk", hint="free some space, or give another --results FOLDER")


def set_aside_leftovers(root: Path) -> int:
    """Clear .incoming/ of drafts whose process died. What measured something goes to .interrupted/, the rest is removed.

    Returns how many drafts lie in .interrupted/. Never raises: reading a store that one may not write is fine.
    """
    with contextlib.suppress(OSError):
        if any(entry.name != _LOCK for entry in (root / INCOMING).iterdir()):
            with _creating(root):
                for folder in sorted(p for p in (root / INCOMING).iterdir() if p.is_dir()):
                    _set_aside(root, folder)
                for place in (INCOMING, INTERRUPTED):
                    for lock in (root / place).glob("?*.lock"):  # of a process killed between its rename and its last step
                        if not lock.with_suffix("").exists():
                            lock.unlink(missing_ok=True)
    return len(interrupted(root))


def interrupted(root: Path) -> list[Path]:
    """The drafts in .interrupted/, oldest first."""
    try:
        return sorted(p for p in (root / INTERRUPTED).iterdir() if p.is_dir())
    except OSError:
        return []


def live(root: Path) -> int:
    """How many cells are being measured (or copied here) at this moment."""
    try:
        return sum(1 for p in (root / INCOMING).iterdir() if p.is_dir())
    except OSError:
        return 0


def _set_aside(root: Path, folder: Path) -> None:
    try:
        lock = _take(_lock_path(folder))
    except BlockingIOError:
        return  # its process lives
    with lock:
        if any(_is_held(path) for path in folder.rglob("*") if path.is_file()):
            return  # its load client is still finishing the spool
        measured = any(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "engine.log")
        if measured and folder.suffix != COPY:  # of a copy that was cut short the original is where it came from
            (root / INTERRUPTED).mkdir(exist_ok=True)
            folder.rename(root / INTERRUPTED / folder.name)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        _lock_path(folder).unlink(missing_ok=True)


@contextlib.contextmanager
def _creating(root: Path) -> Iterator[None]:
    """Held while a draft gets its lock, and while leftovers are looked for: neither may see the other half done."""
    (root / INCOMING).mkdir(parents=True, exist_ok=True)
    with (root / INCOMING / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _take(path: Path) -> IO[str]:
    """The lock file, locked. Raises BlockingIOError when another process holds it."""
    while True:
        lock = path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            lock.close()
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()  # its holder removed the file between our two calls: what we hold is nobody's lock


def _is_held(path: Path) -> bool:
    """Whether a process writes this file and says so by its lock."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_whole(path: Path) -> bool:
    """Whether a file may go into a run: there, and if Parquet, with its end (the disk was full, or the writer killed)."""
    if not path.is_file():
        return False
    if path.suffix != ".parquet":
        return True
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), os.SEEK_END)
        return file.read() == b"PAR1"


def _lock_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _remove_all_but(folder: Path, names: set[str]) -> None:
    for path in folder.iterdir():
        if path.name in names:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def run_folder(root: Path, run_id: str) -> Path:
    """Where a run lies: by the day in its id."""
    return root / "runs" / f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}" / run_id

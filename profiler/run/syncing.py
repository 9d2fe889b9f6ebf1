"""Syncs the clients' spools while they are written, from a thread of the parent: a power cut costs at most the last second.

Not in the client: a sync waits for the disk, and the client's loop stamps what arrives. fdatasync works on the file, whoever opened it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

PERIOD_S = 0.5  # with the client's tick (0.1 s) before it and the sync itself after it: below a second on any disk that keeps up


class Syncing:
    """`with Syncing(paths, folder): ...`; the files may come later. `folder` is the draft, whose name must survive too."""

    def __init__(self, paths: Sequence[Path], folder: Path, period_s: float = PERIOD_S) -> None:
        self._paths, self._folder, self._period_s = paths, folder, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)

    def __enter__(self) -> Syncing:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        opened: dict[Path, int] = {}
        try:
            while not self._stop.wait(self._period_s):
                for path in self._paths:
                    # A disk that is full or broken is the client's to tell: it stops the cell.
                    with contextlib.suppress(OSError):
                        if path not in opened:
                            opened[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                            self._sync_names(path)
                        os.fdatasync(opened[path])
        finally:
            for fd in opened.values():
                os.close(fd)

    def _sync_names(self, path: Path) -> None:
        """What was noted before the load, and the entries of the files and of the folders they lie in."""
        beside = [p for p in self._folder.iterdir() if p.is_file() and p.suffix == ".json"]
        for each in dict.fromkeys([*beside, path.parent, self._folder, self._folder.parent, self._folder.parent.parent]):
            fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

"""The spool is synced while it is written, by the parent, and so are the names it needs to be found by after a power cut."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from profiler.run.syncing import PERIOD_S, Syncing


def test_the_file_is_synced_again_and_again_and_its_folders_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = tmp_path / ".incoming" / "run"
    draft.mkdir(parents=True)
    (draft / "record.json").write_text("{}")
    data: list[int] = []
    names: list[str] = []
    thrice = threading.Event()
    fdatasync, fsync = os.fdatasync, os.fsync

    def synced(fd: int) -> None:
        fdatasync(fd)
        data.append(fd)
        if len(data) == 3:
            thrice.set()

    def named(fd: int) -> None:
        fsync(fd)
        names.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    monkeypatch.setattr(os, "fdatasync", synced)
    monkeypatch.setattr(os, "fsync", named)
    with Syncing([draft / "spool.bin"], draft, period_s=0.01):
        (draft / "spool.bin").write_bytes(b"x")  # only now: the client makes it
        assert thrice.wait(30)
    assert sorted(names) == sorted(["record.json", "run", ".incoming", tmp_path.name])
    with pytest.raises(OSError):
        os.fstat(data[0])


def test_the_period_keeps_the_promise_of_a_second() -> None:
    """The client hands over every 0.1 s; what is left of the second is for the disk."""
    assert PERIOD_S + 0.1 <= 0.75


def test_a_disk_that_fails_is_not_the_syncer_s_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def broken(fd: int) -> None:
        tried.set()
        raise OSError(5, "Input/output error")

    (tmp_path / "spool.bin").write_bytes(b"x")
    monkeypatch.setattr(os, "fdatasync", broken)
    with Syncing([tmp_path / "spool.bin"], tmp_path, period_s=0.01):
        assert tried.wait(30)

"""Runs appear whole or not at all, whatever happens to the process that writes them: real processes, real locks, real kills."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import StoreError
from profiler.records import RequestRecord
from profiler.store.draft import KEPT_FILES
from profiler.store.store import Store, new_run_id

MakeRecord = Callable[..., RequestRecord]
MakeDocument = Callable[..., dict[str, Any]]
Child = Callable[..., subprocess.Popen[str]]

PRELUDE = """
import os, sys
from pathlib import Path
from synthetic import document, record
from profiler.store.store import Store
root = Path(sys.argv[1])
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """Runs code after PRELUDE in a process of its own; prints are read with `said`, it goes on when its stdin gets a line."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, root: Path) -> subprocess.Popen[str]:
        here = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_whole(folder: Path) -> bool:
    """By the folder's own files: run.json is there and every file it names has the checksum it names."""
    document = json.loads((folder / "run.json").read_text())
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in document["files"]}
    return sums == {name: file["sha256"] for name, file in document["files"].items()} and "requests.parquet" in sums


def published(root: Path) -> list[Path]:
    return sorted(root.glob("runs/*/*"))


def test_at_every_sync_of_a_commit_a_reader_sees_nothing_or_all(
    tmp_path: Path, make_record: MakeRecord, make_document: MakeDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def look(handle: int) -> None:
        real(handle)
        synced.append((Path(f"/proc/self/fd/{handle}").readlink().name, bool(published(tmp_path))))
        folders = published(tmp_path)
        assert all(is_whole(folder) for folder in folders)
        assert len(Store(tmp_path).runs()) == len(folders)
        seen.append(bool(folders))

    draft = Store(tmp_path).draft()
    monkeypatch.setattr(os, "fsync", look)
    folder = draft.commit(make_document(), [make_record(i) for i in range(50)])
    assert {("run.json", False), ("requests.parquet", False), (folder.name, False)} <= set(synced), "a power cut after the rename"
    assert {(folder.parent.name, True), ("runs", True)} <= set(synced), "must find what the rename promised"
    assert seen == sorted(seen) and len(seen) >= 4, "first nothing, then everything, and both were looked at"
    assert seen[0] is False and seen[-1] is True


def test_a_reader_beside_a_writer_never_sees_half_a_run(tmp_path: Path, child: Child) -> None:
    writer = child("for i in range(40): Store(root).keep(document(cell_id=f'c{i}'), [record(j) for j in range(30)])", tmp_path)
    store, looks, most = Store(tmp_path), 0, 0
    while writer.poll() is None:
        folders = published(tmp_path)
        assert all(is_whole(folder) for folder in folders)
        runs = store.runs()
        requests = store.requests(set(runs.run_id[-3:]))
        assert len(requests) == 30 * min(3, len(runs))
        looks, most = looks + 1, max(most, len(runs))
    assert writer.returncode == 0
    assert len(Store(tmp_path).runs()) == 40 and not store.warnings
    assert looks > 1 and most > 0, "the reader was never there at the same time"


def test_two_writers_and_a_third_that_tidies_lose_nothing(tmp_path: Path, child: Child) -> None:
    write = """
for i in range(25):
    draft = Store(root).draft()  # opening a Store sets leftovers aside: it must not touch the other's live draft
    (draft.folder / "spool.bin").write_bytes(b"x" * 1000)
    draft.commit(document(cell_id=f"{os.getpid()}-{i}"), [record(j) for j in range(10)])
"""
    writers = [child(write, tmp_path), child(write, tmp_path)]
    while any(writer.poll() is None for writer in writers):
        Store(tmp_path)
    assert [writer.returncode for writer in writers] == [0, 0]
    store = Store(tmp_path)
    runs = store.runs()
    assert len(runs) == 50 and runs.cell_id.nunique() == 50 and len(store.requests()) == 500
    assert not store.warnings and not (tmp_path / ".interrupted").exists()
    assert [p.name for p in (tmp_path / ".incoming").iterdir()] == [".lock"]


def test_a_live_draft_is_left_alone_and_a_killed_one_is_set_aside(tmp_path: Path, child: Child) -> None:
    draft = child("d = Store(root).draft(); (d.folder / 'spool.bin').write_bytes(b'reads'); print(d.run_id, flush=True); input()", tmp_path)
    run_id = said(draft)
    for _ in range(3):
        assert not Store(tmp_path).warnings
    assert (tmp_path / ".incoming" / run_id / "spool.bin").read_bytes() == b"reads"
    draft.send_signal(signal.SIGKILL)
    draft.wait()
    store = Store(tmp_path)
    assert (tmp_path / ".interrupted" / run_id / "spool.bin").read_bytes() == b"reads"
    assert [p.name for p in (tmp_path / ".incoming").iterdir()] == [".lock"]
    assert len(store.warnings) == 1 and "1 interrupted cell" in store.warnings[0]
    assert store.runs().empty and not store.measured()


@pytest.mark.parametrize("left", ["", "(d.folder / 'engine.log').write_text('loading')", "(d.folder / 'spool.bin').touch()"])
def test_a_killed_draft_that_measured_nothing_is_removed(tmp_path: Path, child: Child, left: str) -> None:
    draft = child(f"d = Store(root).draft(); {left or 'pass'}; print(d.run_id, flush=True); input()", tmp_path)
    said(draft)
    draft.send_signal(signal.SIGKILL)
    draft.wait()
    assert not Store(tmp_path).warnings
    assert [p.name for p in (tmp_path / ".incoming").iterdir()] == [".lock"] and not (tmp_path / ".interrupted").exists()


@pytest.mark.parametrize("syscall", ["fsync", "rename"])
def test_killed_inside_commit_leaves_a_clean_store(tmp_path: Path, child: Child, syscall: str) -> None:
    """At the first fsync the files are half synced; at the rename everything is done but the last step."""
    patch = {"fsync": "os.fsync = lambda fd: os.kill(os.getpid(), 9)", "rename": "Path.rename = lambda a, b: os.kill(os.getpid(), 9)"}[
        syscall
    ]
    killed = child(f"d = Store(root).draft()\n{patch}\nd.commit(document(), [record(1)])", tmp_path)
    assert killed.wait() == -signal.SIGKILL
    store = Store(tmp_path)
    assert published(tmp_path) == [] and store.runs().empty
    assert len(list((tmp_path / ".interrupted").iterdir())) == 1
    again = child("Store(root).keep(document(), [record(1)])", tmp_path)
    assert again.wait() == 0
    assert len(Store(tmp_path).runs()) == 1


def test_what_stays_of_a_draft_and_what_goes(tmp_path: Path, make_record: MakeRecord, make_document: MakeDocument) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("not the store's")
    draft = Store(tmp_path / "results").draft()
    (draft.folder / "engine.log").write_text("ready")
    (draft.folder / "spool.bin").write_bytes(b"reads")
    (draft.folder / "scratch").mkdir()
    (draft.folder / "scratch" / "x").touch()
    (draft.folder / "link").symlink_to(elsewhere)
    folder = draft.commit(make_document(), [make_record(1)])
    assert sorted(p.name for p in folder.iterdir()) == ["engine.log", "requests.parquet", "run.json"]
    assert (
        set(json.loads((folder / "run.json").read_text())["files"])
        == {"engine.log", "requests.parquet"}
        <= {*KEPT_FILES, "requests.parquet"}
    )
    assert (elsewhere / "mine.txt").exists(), "a symbolic link is removed, never followed"
    assert is_whole(folder) and folder.parent.name == f"{folder.name[:4]}-{folder.name[4:6]}-{folder.name[6:8]}"


def test_discard_removes_the_draft_and_does_nothing_after_commit(
    tmp_path: Path, make_record: MakeRecord, make_document: MakeDocument
) -> None:
    store = Store(tmp_path)
    draft = store.draft()
    (draft.folder / "spool.bin").write_bytes(b"reads")
    draft.discard()
    draft.discard()
    kept = store.draft()
    folder = kept.commit(make_document(), [make_record(1)])
    kept.discard()
    assert is_whole(folder) and [p.name for p in (tmp_path / ".incoming").iterdir()] == [".lock"]
    assert not (tmp_path / ".interrupted").exists()


def test_the_same_run_id_twice_is_refused(tmp_path: Path, make_document: MakeDocument) -> None:
    store, run_id = Store(tmp_path), new_run_id()
    draft = store.draft(run_id)
    with pytest.raises(StoreError):
        store.draft(run_id)
    folder = draft.commit(make_document())
    before = (folder / "run.json").read_bytes()
    second = store.draft(run_id)
    with pytest.raises(StoreError):
        second.commit(make_document(cell_id="other"))
    second.discard()
    assert (folder / "run.json").read_bytes() == before, "a run is immutable"


def test_run_ids_sort_by_time_and_never_repeat() -> None:
    ids, end = [], time.monotonic() + 0.05
    while time.monotonic() < end:
        ids.append(new_run_id())
    assert len(set(ids)) == len(ids)
    # Two of the same microsecond may fall either way.
    assert [run_id.split("-")[0] for run_id in ids] == sorted(run_id.split("-")[0] for run_id in ids)

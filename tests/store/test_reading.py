"""Files that are not what they were: each is named, left out, and never fatal. And folders that cannot be a store."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiler.errors import StoreError
from profiler.records import RequestRecord
from profiler.store.store import Store


@pytest.fixture
def two(tmp_path: Path, make_record: Callable[..., RequestRecord], make_document: Callable[..., dict[str, Any]]) -> list[Path]:
    """Folders of two runs: `damaged`, of 30 requests, and `good`, of 20."""
    store = Store(tmp_path / "results")
    return [
        store.keep(make_document(cell_id=cell), [make_record(i, intended_ms=i) for i in range(n)])
        for cell, n in (("damaged", 30), ("good", 20))
    ]


def root_of(two: list[Path]) -> Path:
    return two[0].parents[2]


def only_good_requests_are_left(store: Store) -> None:
    assert len(store.requests()) == 20
    counted = store.sql("select count(*) as n from requests")
    assert counted.n[0] == 20
    tokens = store.sql("select count(distinct request_id) as n from tokens")
    assert tokens.n[0] == 20


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(at: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(at * (len(content) - 1))] ^= 0xFF
        path.write_bytes(content)

    damage.__name__ = f"flip_at_{at}"
    return damage


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


# A flipped byte in a page of doubles is a valid Parquet file with another number in it: only the checksum tells.
@pytest.mark.parametrize(
    "damage", [truncate, empty, Path.unlink, become_a_folder, *(flip(i / 8) for i in range(9))], ids=lambda f: str(f.__name__)
)
def test_a_damaged_parquet_is_named_and_left_out(two: list[Path], damage: Callable[[Path], None]) -> None:
    damage(two[0] / "requests.parquet")
    for look in (lambda s: s.requests(), lambda s: s.sql("select * from requests")):
        store = Store(root_of(two))
        assert len(look(store)) == 20
        (warning,) = store.warnings
        assert str(two[0] / "requests.parquet") in warning and "skipped" in warning
    store = Store(root_of(two))
    only_good_requests_are_left(store)
    only_good_requests_are_left(store)
    assert len(store.warnings) == 1, "each is named once"
    assert sorted(store.runs().cell_id) == ["damaged", "good"], "its run.json is not damaged"


def test_a_file_is_compared_once_in_the_life_of_a_store(two: list[Path]) -> None:
    store = Store(root_of(two))
    assert len(store.requests()) == 50
    flip(0.5)(two[0] / "requests.parquet")
    assert len(Store(root_of(two)).requests()) == 20


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        document = json.loads(path.read_text())
        changed = change(document)
        path.write_text(json.dumps(document if changed is None else changed))

    return damage


RUN_JSON: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (truncate, "not valid JSON"),
    "empty": (empty, "not valid JSON"),
    "not UTF-8": (lambda path: path.write_bytes(b"\xff\xfe{}"), "not valid JSON"),
    "gone": (Path.unlink, "cannot be read"),
    "a folder": (become_a_folder, "cannot be read"),
    "a list": (edit(lambda d: [1]), "not a run of this program"),
    "of another program": (edit(lambda d: {"benchmark": "x", "run": d["run"]}), "not a run of this program"),
    "newer": (edit(lambda d: d.update(schema_version=999)), "schema version 999"),
    "without a run": (edit(lambda d: d.pop("run") and None), "no run_id"),
    "without a cell": (edit(lambda d: d["run"].pop("cell_id") and None), "no cell_id"),
    "of another folder": (edit(lambda d: d["run"].update(run_id="x")), "is not its folder's"),
    "text for a number": (edit(lambda d: d["run"].update(load="four")), "load"),
    "text for a repeat": (edit(lambda d: d["run"].update(repeat="0")), "repeat"),
    "no repeat": (edit(lambda d: d["run"].update(repeat=None)), "repeat"),
    "a list for a name": (edit(lambda d: d["run"].update(cell_id=["c"])), "cell_id"),
    "half a request": (edit(lambda d: d["run"].update(n_cohort=1.5)), "n_cohort"),
    "files without checksums": (edit(lambda d: d.update(files={"requests.parquet": {}})), "files"),
    "files as a list": (edit(lambda d: d.update(files=["requests.parquet"])), "files"),
}


@pytest.mark.parametrize("case", RUN_JSON)
def test_a_damaged_or_foreign_run_json_is_named_and_its_run_left_out(two: list[Path], case: str) -> None:
    damage, words = RUN_JSON[case]
    damage(two[0] / "run.json")
    store = Store(root_of(two))
    assert list(store.runs().cell_id) == ["good"]
    only_good_requests_are_left(store)
    assert {cell for cell, _, _ in store.measured()} == {"good"} and store.next_repeat(["damaged", "good"]) == 1
    (warning,) = store.warnings
    assert str(two[0] / "run.json") in warning and words in warning and "run skipped" in warning
    with pytest.raises(StoreError, match=r"run\.json"):
        store.run(two[0].name)
    assert two[0].is_dir(), "nothing is deleted"


def test_a_newer_run_says_what_to_update(two: list[Path]) -> None:
    edit(lambda d: d.update(schema_version=999))(two[0] / "run.json")
    with pytest.raises(StoreError) as caught:
        Store(root_of(two)).run(two[0].name)
    assert caught.value.hint == "update slm-profiler"


def test_columns_of_tomorrow_are_ignored_and_of_yesterday_null(two: list[Path]) -> None:
    edit(lambda d: (d["run"].update(a_later_column=1), d["run"].pop("output_tps"), None)[2])(two[0] / "run.json")
    store = Store(root_of(two))
    frame = store.runs().set_index("cell_id")
    assert len(frame) == 2 and "a_later_column" not in frame and pd.isna(frame.output_tps["damaged"])
    assert store.sql("select output_tps from runs where cell_id = 'damaged'").output_tps.isna().all() and not store.warnings


def test_a_run_of_yesterday_has_every_column_of_today(two: list[Path]) -> None:
    path = two[1] / "run.json"
    document = json.loads(path.read_text())
    del document["run"]["stability"], document["run"]["ttft_error_bar_s"]
    path.write_text(json.dumps(document))
    run = Store(root_of(two)).run(two[1].name)["run"]
    assert run["stability"] is None and run["ttft_error_bar_s"] is None and run["cell_id"] == "good"


def test_stray_files_beside_the_runs_are_nobodys_business(two: list[Path]) -> None:
    (root_of(two) / "runs" / "notes.txt").write_text("mine")
    (two[0].parent / "notes.txt").write_text("mine")
    (root_of(two) / "report.html").write_text("<html>")
    store = Store(root_of(two))
    assert len(store.runs()) == 2 and not store.warnings


def test_a_run_by_the_beginning_of_its_id(two: list[Path]) -> None:
    store = Store(root_of(two))
    assert store.run(two[0].name)["run"]["cell_id"] == "damaged"
    assert store.run(two[1].name[:-1])["run"]["cell_id"] == "good"
    for asked, words in ((two[0].name[:4], "2 runs"), ("nothing", "no run")):
        with pytest.raises(StoreError, match=words) as caught:
            store.run(asked)
        assert "results ls" in str(caught.value.hint)


def test_what_must_not_be_measured_again(tmp_path: Path, make_document: Callable[..., dict[str, Any]]) -> None:
    store = Store(tmp_path)
    for cell, status, validity in (("a", "done", "valid"), ("b", "done", "suspect"), ("c", "done", "invalid"), ("d", "failed", "invalid")):
        store.keep(make_document(cell_id=cell, status=status, validity=validity, repeat=2, environment_hash="e"))
    assert store.measured() == {("a", "e", 2), ("b", "e", 2)}
    assert store.next_repeat(["a", "x"]) == 3 and store.next_repeat(["x"]) == 0
    assert Store(tmp_path).measured() == store.measured(), "a store that is open sees what it wrote"


# ---- folders that cannot be a store


def test_the_path_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine")
    with pytest.raises(StoreError, match="is a file") as caught:
        Store(tmp_path / "results")
    assert "--results" in str(caught.value.hint) and (tmp_path / "results").read_text() == "mine"


def test_the_path_lies_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    store = Store(tmp_path / "file" / "results")
    for act in (store.check_writable, store.draft):
        with pytest.raises(StoreError, match="not a folder"):
            act()


def test_a_folder_one_may_not_write(
    open_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]], make_document: Callable[..., dict[str, Any]]
) -> None:
    Store(open_folder).keep(make_document())
    leftover = open_folder / ".incoming" / "20261124T000000.000000Z-aaaaaa"
    leftover.mkdir()
    (leftover / "spool.bin").write_bytes(b"reads")
    open_folder.chmod(0o555)
    (open_folder / ".incoming").chmod(0o555)
    (open_folder / ".incoming" / ".lock").chmod(0o444)
    with as_nobody():
        store = Store(open_folder)
        assert len(store.runs()) == 1 and store.sql("select count(*) as n from runs").n[0] == 1, "reading needs no right to write"
        for act in (store.check_writable, store.draft):
            with pytest.raises(StoreError, match="cannot be written: Permission denied") as caught:
                act()
            assert "--results" in str(caught.value.hint)
    assert leftover.is_dir()


def test_a_folder_one_may_not_read(open_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]]) -> None:
    (open_folder / "runs").mkdir(mode=0o700)
    with as_nobody(), pytest.raises(StoreError, match="cannot be read"):
        Store(open_folder).runs()


@pytest.mark.parametrize("name", ["requests.parquet", "run.json"])
def test_the_disk_is_full_in_the_middle_of_a_commit(
    tmp_path: Path, make_record: Callable[..., RequestRecord], make_document: Callable[..., dict[str, Any]], name: str
) -> None:
    """/dev/full answers each write as a full disk does, from the kernel."""
    draft = Store(tmp_path).draft()
    (draft.folder / "spool.bin").write_bytes(b"reads")
    (draft.folder / name).symlink_to("/dev/full")
    with pytest.raises(StoreError, match="no space left") as caught:
        draft.commit(make_document(), [make_record(i) for i in range(30)])
    assert "finished runs are kept" in str(caught.value.hint)
    assert Store(tmp_path).runs().empty and (draft.folder / "spool.bin").exists(), "what was measured is still there"
    (draft.folder / name).unlink(missing_ok=True)  # pyarrow removes what it could not finish
    draft.commit(make_document(), [make_record(i) for i in range(30)])
    assert len(Store(tmp_path).requests()) == 30


def test_a_nearly_full_disk_is_refused_before_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tmpfs to fill up cannot be mounted everywhere; the one number that is asked for is replaced.
    full = shutil.disk_usage(tmp_path)._replace(free=3 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(StoreError, match="only 3 MiB free"):
        Store(tmp_path).check_writable()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_even_for_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(path: Path, data: bytes) -> int:  # at the system call: a quota cannot be set in a test
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StoreError, match="no space left"):
        Store(tmp_path).check_writable()


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "results")
    store.check_writable()
    assert list((tmp_path / "a" / "results" / ".incoming").iterdir()) == []

"""The index is a cache: whatever happens to it or beside it, a store says the same as its run.json files."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import document, record

from profiler.store import index
from profiler.store import store as store_module
from profiler.store.store import Store, read_document


def truth(root: Path) -> list[dict[str, Any]]:
    return [read_document(folder)["run"] for folder in sorted(root.glob("runs/*/*"), key=lambda folder: folder.name)]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A store that is worth an index, and has one."""
    store = Store(tmp_path)
    for i in range(index.WORTH + 3):
        store.keep(document(cell_id=f"c{i}", load=float(i), validity_reasons=["a", "ü"]), [record(1)] if i < 2 else [])
    Store(tmp_path).rows()
    assert (tmp_path / index.FILE).exists()
    return tmp_path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders whose run.json was read."""
    seen: list[Path] = []

    def counted(folder: Path) -> dict[str, Any]:
        seen.append(folder)
        return read_document(folder)

    monkeypatch.setattr(store_module, "read_document", counted)
    return seen


def test_rows_come_from_the_index_and_are_the_same(many: Path, opened: list[Path]) -> None:
    rows = Store(many).rows()
    assert rows == truth(many) and not opened
    assert [type(row["load"]) for row in rows] == [float] * len(rows)
    assert len(Store(many).requests()) == 2, "files and their checksums are in it"


def test_a_small_store_has_none(tmp_path: Path) -> None:
    Store(tmp_path).keep(document())
    assert len(Store(tmp_path).rows()) == 1 and not (tmp_path / index.FILE).exists()


def edited(root: Path) -> None:
    path = next(root.glob("runs/*/*/run.json"))
    before = path.stat()
    text = path.read_text()
    path.write_text(text.replace('"cell_id": "c', '"cell_id": "d'))  # as long as before
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and as old: its ctime tells


def removed(root: Path) -> None:
    shutil.rmtree(next(root.glob("runs/*/*")))


def added(root: Path) -> None:
    Store(root).keep(document(cell_id="later"))


def replaced(root: Path) -> None:
    run = next(root.glob("runs/*/*"))
    shutil.copytree(run, root / "aside")
    shutil.rmtree(run)
    (root / "aside").rename(run)


def damaged(root: Path) -> None:
    content = bytearray((root / index.FILE).read_bytes())
    content[len(content) // 2] ^= 0x01
    (root / index.FILE).write_bytes(content)


def cut(root: Path) -> None:
    os.truncate(root / index.FILE, (root / index.FILE).stat().st_size // 2)


def emptied(root: Path) -> None:
    (root / index.FILE).write_bytes(b"")


def foreign(root: Path) -> None:
    (root / index.FILE).write_text("[1, 2]\n[3]\n")


def a_folder(root: Path) -> None:
    (root / index.FILE).unlink()
    (root / index.FILE).mkdir()


def of_other_columns(root: Path) -> None:
    header, _, body = (root / index.FILE).read_bytes().partition(b"\n")
    other = json.loads(header) | {"columns": [*index.COLUMNS[1:], "new"]}
    (root / index.FILE).write_bytes(json.dumps(other).encode() + b"\n" + body)


CHANGES = [edited, removed, added, replaced, damaged, cut, emptied, foreign, a_folder, of_other_columns]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: str(f.__name__))
def test_a_stale_or_damaged_index_changes_nothing(many: Path, change: Callable[[Path], None]) -> None:
    change(many)
    for _ in range(2):
        store = Store(many)
        assert store.rows() == truth(many) and not store.warnings


def test_only_what_changed_is_read_again(many: Path, opened: list[Path]) -> None:
    edited(many)
    Store(many).rows()
    assert len(opened) == 1


def test_a_folder_one_may_not_write_has_none_and_is_read(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (many / index.FILE).unlink()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(index.tempfile, "NamedTemporaryFile", refused)
    assert Store(many).rows() == truth(many) and not (many / index.FILE).exists()


def test_what_could_not_be_read_is_named_each_time(many: Path) -> None:
    path = next(many.glob("runs/*/*/run.json"))
    path.write_text("{")
    for _ in range(2):
        store = Store(many)
        assert len(store.rows()) == index.WORTH + 2
        assert len(store.warnings) == 1 and str(path) in store.warnings[0]


def _write_and_read(root: Path, writer: int, failures: Any) -> None:
    store = Store(root)
    for i in range(index.WORTH + 8):
        store.keep(document(cell_id=f"w{writer}-{i}", repeat=i))
        if i % 5 == 0:
            own = [row["repeat"] for row in Store(root).rows() if row["cell_id"].startswith(f"w{writer}-")]
            if own != list(range(i + 1)):
                failures.put((writer, i, own))


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    writers = [context.Process(target=_write_and_read, args=(tmp_path, n, failures)) for n in range(2)]
    for one in writers:
        one.start()
    for one in writers:
        one.join(timeout=60)
        assert one.exitcode == 0
    assert failures.empty()
    rows = Store(tmp_path).rows()
    assert rows == truth(tmp_path) and len(rows) == 2 * (index.WORTH + 8)
    assert {path.name for path in tmp_path.glob(".index*")} == {index.FILE}

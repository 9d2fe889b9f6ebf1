"""RESULTS/quality as a store: what is damaged is named, copies are whole and idempotent, readers never see half a document."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from profiler.cli.main import cli
from profiler.errors import StoreError
from profiler.quality import documents, verifying
from profiler.quality.copying import copy


def document(name: str, top: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "made_at": f"2026-11-24T10:00:0{len(name)}+00:00",
        "backend": {"name": name, "engine": "null", "options": {}},
        "model": {"name": "stand"},
        "drift": {"windows": [[-0.5, -1.25]], "top": top},
        "tasks": {"examples": []},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three evaluations, one with a file beside it."""
    root = tmp_path / "results"
    for name in ("a", "bb"):
        documents.keep(root, documents.key_of(name), document(name))
    key = documents.key_of("ccc")
    npz = root / "quality" / f"{key}.top.npz"
    np.savez_compressed(npz, ids=np.arange(40, dtype=np.int32).reshape(2, 20))
    digest = hashlib.sha256(npz.read_bytes()).hexdigest()
    documents.keep(root, key, document("ccc", {"k": 20, "file": npz.name, "sha256": digest}))
    return root


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "quality").iterdir())}


def run(*words: object) -> Any:
    return CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False, catch_exceptions=False)


def test_all_as_written(results: Path) -> None:
    (results / "quality" / "0123456789abcdef.part").write_text("{}")
    (results / "quality" / "0123456789abcdef.top.npz").write_text("before its document")
    found = verifying.check(results)
    assert (found.evaluations, found.sound, found.underway, found.damages) == (3, 3, 1, [])
    done = run("results", "verify", "--results", results)
    assert done.return_value == 0 and "3 of 3 evaluations as written, 1 underway or broken off" in done.output
    told = json.loads(run("results", "verify", "--results", results, "--json").stdout)
    assert (told["runs"], told["evaluations"], told["evaluations_sound"], told["evaluating"]) == (0, 3, 3, 1)


def _flip(path: Path) -> None:
    path.write_text(path.read_text().replace("-1.25", "-1.24"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _newer(path: Path) -> None:
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))


def _npz(path: Path) -> Path:
    return path.with_suffix(".top.npz")


@pytest.mark.parametrize(
    ("harm", "kind", "suffix"),
    [
        (_flip, "damaged", ".json"),
        (_cut, "unreadable", ".json"),
        (_newer, "newer schema", ".json"),
        (lambda path: _npz(path).unlink(), "missing", ".npz"),
        (lambda path: _npz(path).write_bytes(b"x"), "damaged", ".npz"),
        (lambda path: (path.parent / "notes.txt").write_text("x"), "foreign", ".txt"),
        (lambda path: (path.parent / "fedcba9876543210.json").write_bytes(path.read_bytes()), "foreign", ".json"),
    ],
)
def test_what_is_not_as_written_is_named(results: Path, tmp_path: Path, harm: Callable[[Path], object], kind: str, suffix: str) -> None:
    path = results / "quality" / f"{documents.key_of('ccc')}.json"
    harm(path)
    before = content(results)
    done = run("results", "verify", "--results", results, "--json")
    told = json.loads(done.stdout)
    assert done.return_value == 1
    assert [(one["kind"], Path(one["path"]).suffix) for one in told["damages"]] == [(kind, suffix)]
    assert content(results) == before, "nothing is overwritten"
    pushed = run("results", "push", tmp_path / "other", "--results", results, "--json")
    report = json.loads(pushed.stdout)["evaluations"]
    assert len(report["copied"]) == (3 if suffix == ".txt" or kind == "foreign" else 2)
    assert len(report["damaged"]) == (0 if suffix == ".txt" else 1) and pushed.return_value == (0 if suffix == ".txt" else 1)


def test_a_damaged_document_is_no_evaluation(results: Path) -> None:
    key = documents.key_of("a")
    _flip(results / "quality" / f"{key}.json")
    with pytest.raises(StoreError, match="checksum"):
        documents.load(results, key)
    assert [one["backend"]["name"] for one in documents.load_sound(results)] != []
    assert {one["backend"]["name"] for one in documents.load_sound(results)} == {"bb", "ccc"}


def test_push_and_pull_copy_each_once_with_its_files(results: Path, tmp_path: Path) -> None:
    (results / "quality" / "0123456789abcdef.part").write_text("{}")
    other = tmp_path / "other"
    done = json.loads(run("results", "push", other, "--results", results, "--json").stdout)["evaluations"]
    assert len(done["copied"]) == 3 and not done["known"]
    whole = {name: raw for name, raw in content(results).items() if not name.endswith(".part")}
    assert content(other) == whole, "to the byte; what is underway stays"
    again = run("results", "push", other, "--results", results)
    assert again.return_value == 0 and "0 evaluations copied, 3 known already" in again.output and content(other) == whole
    documents.keep(other, documents.key_of("dddd"), document("dddd"))
    assert "1 evaluation copied, 3 known already" in run("results", "pull", f"file://{other}", "--results", results).output
    assert verifying.check(results).sound == 4


def test_another_content_under_one_key_is_a_conflict_and_both_stay(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    copy(results, other)
    key = documents.key_of("a")
    documents.keep(results, key, document("a") | {"made_at": "2026-11-25T10:00:00+00:00"})  # --again
    before = content(results), content(other)
    done = run("results", "push", other, "--results", results)
    assert done.return_value == 1 and f"conflict: evaluation {key}" in done.output
    assert (content(results), content(other)) == before


def test_a_target_that_is_damaged_is_not_called_known(results: Path, tmp_path: Path) -> None:
    copy(results, tmp_path)
    (tmp_path / "quality" / f"{documents.key_of('ccc')}.top.npz").unlink()
    done = copy(results, tmp_path)
    assert not done.complete and [key for key, _ in done.damaged] == [documents.key_of("ccc")] and len(done.known) == 2


def test_ls_and_show_know_them(results: Path) -> None:
    key = documents.key_of("bb")
    lines = run("results", "ls", "--results", results).output
    assert [line.split()[2].rstrip(",") for line in lines.splitlines() if line.startswith("evaluation ")] == ["a", "bb", "ccc"]
    assert json.loads(run("results", "show", key, "--results", results).stdout)["backend"]["name"] == "bb"
    assert json.loads(run("results", "ls", "--results", results, "--json").stdout) == [], "runs alone"


def test_readers_see_all_of_a_document_or_nothing_while_it_is_written(tmp_path: Path) -> None:
    key, over = documents.key_of("x"), threading.Event()
    sizes = [1, 50_000]

    def write() -> None:
        for turn in range(30):
            part = {"examples": [turn] * sizes[turn % 2]}
            documents.keep_part(tmp_path, key, part)
            documents.keep(tmp_path, key, document("x") | {"turn": turn, "examples": part["examples"]})
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    try:
        while not over.is_set():
            found = documents.load(tmp_path, key)  # raises on half a document, and on one without its checksum
            checked = verifying.check(tmp_path)
            assert not checked.damages
            seen += found is not None
            if found is not None:
                assert len(found["examples"]) == sizes[found["turn"] % 2]
            copy(tmp_path, tmp_path / "copies" / str(seen))
    finally:
        writer.join(60)
    assert seen and documents.load_part(tmp_path, key) == {}

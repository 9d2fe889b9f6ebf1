"""`verify` names what is not as it was written, each fault once and with its kind, and changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from profiler.store.draft import run_folder
from profiler.store.store import Store
from profiler.store.verify import check


@pytest.fixture
def root(tmp_path: Path, make_record: Any, make_document: Any) -> Path:
    for number in range(3):
        draft = Store(tmp_path / "r").draft()
        (draft.folder / "engine.log").write_text("ready\n")
        draft.commit(make_document(cell_id=f"c{number}"), [make_record(i) for i in range(5)])
    return tmp_path / "r"


def folders(root: Path) -> list[Path]:
    return sorted(root.glob("runs/*/*"))


def fingerprint(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def kinds(root: Path) -> list[tuple[str, str]]:
    before = fingerprint(root)
    found = [(d.kind, d.path.name) for d in check(root).damages]
    assert fingerprint(root) == before, "verify changes nothing"
    return found


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "run.json").read_text())
    change(document)
    (folder / "run.json").write_text(json.dumps(document))


def test_a_store_as_it_was_written_has_no_fault(root: Path) -> None:
    checked = check(root)
    assert (checked.runs, checked.sound, checked.damages) == (3, 3, [])


def test_run_json_has_the_documented_checksum_of_itself(root: Path) -> None:
    """docs/store.md: SHA-256 of all other keys as JSON, sorted, without spaces."""
    document = json.loads((folders(root)[0] / "run.json").read_text())
    told = document.pop("sha256")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert told == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", ["requests.parquet", "engine.log", "run.json"])
def test_one_changed_byte_is_found_in_every_file(root: Path, name: str) -> None:
    path = folders(root)[1] / name
    data = path.read_bytes()
    at = data.index(b'"load": 4.0') + 8 if name == "run.json" else len(data) // 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert kinds(root) == [("damaged", name)] and check(root).sound == 2


FAULTS: list[tuple[str, Callable[[Path], object], list[tuple[str, str]]]] = [
    ("truncated", lambda f: os.truncate(f / "requests.parquet", 100), [("damaged", "requests.parquet")]),
    ("half a run.json", lambda f: os.truncate(f / "run.json", 200), [("unreadable", "run.json")]),
    ("empty run.json", lambda f: os.truncate(f / "run.json", 0), [("unreadable", "run.json")]),
    ("no run.json", lambda f: (f / "run.json").unlink(), [("missing", "run.json")]),
    ("a file gone", lambda f: (f / "requests.parquet").unlink(), [("missing", "requests.parquet")]),
    ("foreign file", lambda f: (f / "notes.txt").write_text("mine"), [("foreign", "notes.txt")]),
    ("foreign run.json", lambda f: (f / "run.json").write_text('{"a": 1}'), [("unreadable", "run.json")]),
    ("not an object", lambda f: (f / "run.json").write_text("[]"), [("unreadable", "run.json")]),
    ("nested too deeply", lambda f: (f / "run.json").write_text("[" * 100_000), [("unreadable", "run.json")]),
    ("newer", lambda f: rewrite(f, lambda d: d.update(schema_version=99)), [("newer schema", "run.json")]),
    ("NaN", lambda f: (f / "run.json").write_text('{"schema_version": 1, "run": {"load": NaN}}'), [("unreadable", "run.json")]),
    ("infinity", lambda f: rewrite(f, lambda d: d["run"].update(load=float("inf"))), [("unreadable", "run.json")]),
    (
        "file elsewhere",
        lambda f: rewrite(f, lambda d: d["files"].update({"../x": {"bytes": 1, "sha256": "0"}})),
        [("damaged", "run.json")] * 2,
    ),
]


@pytest.mark.parametrize(("what", "spoil", "expected"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_each_fault_is_named(root: Path, what: str, spoil: Callable[[Path], object], expected: list[tuple[str, str]]) -> None:
    spoil(folders(root)[1])
    assert kinds(root) == expected
    checked = check(root)
    assert (checked.runs, checked.sound) == (3, 2) and all(d.run_id == folders(root)[1].name for d in checked.damages)


def test_two_runs_of_one_id_with_different_content(root: Path) -> None:
    one = folders(root)[0]
    other = root / "runs" / "1999-01-01" / one.name
    shutil.copytree(one, other)
    rewrite(other, lambda d: d["run"].update(cell_id="another"))
    found = {d.kind: d for d in check(root).damages}
    assert "different content" in found["two of one id"].what and one.name in found["two of one id"].what
    assert found["foreign"].path == other, "not in the folder of its day"


def test_what_is_no_run_is_named_and_left(root: Path) -> None:
    (root / "runs" / "stray.txt").write_text("x")
    (folders(root)[0].parent / "stray.json").write_text("{}")
    assert sorted(kinds(root)) == [("foreign", "stray.json"), ("foreign", "stray.txt")]


def test_a_run_without_the_newer_checksum_is_sound(root: Path) -> None:
    """Runs written before run.json had a checksum of itself."""
    rewrite(folders(root)[0], lambda d: d.pop("sha256"))
    assert kinds(root) == []


def test_the_day_is_that_of_the_id(root: Path) -> None:
    assert all(folder == run_folder(root, folder.name) for folder in folders(root))


def verify(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "profiler", "results", "verify", *map(str, words)], capture_output=True, text=True)


def test_the_command_names_damage_and_exits_1(root: Path) -> None:
    sound = verify("--results", root)
    assert sound.returncode == 0 and sound.stdout == "3 of 3 runs as written\n", sound.stderr
    os.truncate(folders(root)[2] / "requests.parquet", 10)
    damaged = verify("--results", root.as_uri())
    assert damaged.returncode == 1 and not damaged.stderr
    assert f"damaged: {folders(root)[2]}/requests.parquet: is 10 bytes long" in damaged.stdout
    plain = json.loads(verify("--results", root, "--json").stdout)
    assert (plain["runs"], plain["sound"], plain["recovered"], plain["measuring"], plain["left"]) == (3, 2, [], 0, [])
    assert [(d["kind"], d["run_id"]) for d in plain["damages"]] == [("damaged", folders(root)[2].name)]


def test_a_folder_without_permission_is_named(root: Path, open_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]]) -> None:
    shutil.copytree(root, open_folder / "r")
    day = next((open_folder / "r" / "runs").iterdir())
    day.chmod(0)
    with as_nobody():
        found = [(d.kind, d.path.name) for d in check(open_folder / "r").damages]
    assert found == [("no permission", day.name)]


def test_no_such_folder_and_no_such_storage(tmp_path: Path) -> None:
    missing = verify("--results", tmp_path / "nowhere")
    assert missing.returncode == 1 and "no such results folder" in missing.stderr
    remote = verify("--results", "s3://bucket/results")
    assert remote.returncode == 2 and "no storage for s3:// yet" in remote.stderr

"""Push and pull: whole runs, compared by checksum, twice the same is nothing, and no run is ever replaced."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pytest

from profiler.errors import StoreError, UsageError
from profiler.store.copying import check_apart, copy
from profiler.store.place import Folder, Putting, at, folder_of
from profiler.store.store import Store


@pytest.fixture
def full(tmp_path: Path, make_record: Any, make_document: Any) -> Path:
    for number in range(3):
        Store(tmp_path / "full").keep(make_document(cell_id=f"c{number}"), [make_record(i) for i in range(4)])
    return tmp_path / "full"


def content(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.glob("runs/*/*/*"))}


def ids(root: Path) -> list[str]:
    return sorted(folder.name for folder in root.glob("runs/*/*"))


def test_a_copy_is_the_same_to_the_byte_and_a_second_one_copies_nothing(full: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    done = copy(Folder(full), Folder(target))
    assert done.copied == ids(full) and done.complete and content(target) == content(full)
    times = {p: p.stat().st_mtime_ns for p in target.glob("runs/*/*/*")}
    again = copy(Folder(full), Folder(target))
    assert (again.copied, again.known) == ([], ids(full)) and {p: p.stat().st_mtime_ns for p in times} == times
    assert not Store(target).warnings and len(Store(target).requests()) == 12


def test_stores_that_differ_become_the_same_by_push_and_pull(full: Path, tmp_path: Path, make_record: Any, make_document: Any) -> None:
    other = tmp_path / "other"
    Store(other).keep(make_document(cell_id="elsewhere"), [make_record(1)])
    assert len(copy(Folder(full), Folder(other)).copied) == 3 and len(copy(Folder(other), Folder(full)).copied) == 1
    assert content(full) == content(other)


def test_one_id_with_two_contents_is_a_conflict_and_both_stay(full: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    copy(Folder(full), Folder(target))
    run_json = next(target.glob(f"runs/*/{ids(full)[1]}/run.json"))
    run_json.write_text(run_json.read_text().replace('"cell_id": "c1"', '"cell_id": "c9"'))
    before = content(full), content(target)
    done = copy(Folder(full), Folder(target))
    assert done.conflicts == [ids(full)[1]] and len(done.known) == 2 and not done.complete
    assert (content(full), content(target)) == before


def test_a_damaged_run_is_named_and_not_copied(full: Path, tmp_path: Path) -> None:
    one, two, three = (next(full.glob(f"runs/*/{run_id}")) for run_id in ids(full))
    data = bytearray((one / "requests.parquet").read_bytes())
    data[50] ^= 1
    (one / "requests.parquet").write_bytes(data)
    (two / "run.json").write_text(json.dumps(json.loads((two / "run.json").read_text()) | {"schema_version": 99}))
    (three / "requests.parquet").unlink()
    done = copy(Folder(full), Folder(tmp_path / "copy"))
    why = dict(done.damaged)
    assert "checksum" in why[one.name] and "run.json" in why[two.name] and "cannot be read" in why[three.name]
    assert ids(tmp_path / "copy") == [] and [p.name for p in (tmp_path / "copy" / ".incoming").iterdir()] == [".lock"]


def test_a_run_json_that_names_a_file_elsewhere_takes_nothing_there(full: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    path = next(full.glob(f"runs/*/{ids(full)[0]}/run.json"))
    document = json.loads(path.read_text())
    del document["sha256"]
    document["files"]["../../../../secret"] = {"bytes": 4, "sha256": hashlib.sha256(b"mine").hexdigest()}
    path.write_text(json.dumps(document))
    done = copy(Folder(full), Folder(tmp_path / "copy"))
    assert [run_id for run_id, _ in done.damaged] == [path.parent.name] and "outside its folder" in done.damaged[0][1]


def test_a_copy_that_was_killed_leaves_nothing_and_is_done_by_the_next(full: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    code = "import os, sys; from pathlib import Path; from profiler.store import copying; from profiler.store.place import Folder\n"
    code += "Path.rename = lambda a, b: os.kill(os.getpid(), 9)\ncopying.copy(Folder(Path(sys.argv[1])), Folder(Path(sys.argv[2])))"
    assert subprocess.run([sys.executable, "-c", code, str(full), str(target)]).returncode == -9
    assert ids(target) == [] and any((target / ".incoming").iterdir())
    assert not Store(target).warnings, "a copy cut short is no interrupted cell"
    assert copy(Folder(full), Folder(target)).copied == ids(full)
    assert [p.name for p in (target / ".incoming").iterdir()] == [".lock"] and content(target) == content(full)


def test_copies_at_once_do_each_run_once(full: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "profiler", "results", "push", str(tmp_path / "copy"), "--json", "--results", str(full)]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in several]
    assert {p.returncode for p in several} == {0} and content(tmp_path / "copy") == content(full)
    assert sorted(run_id for one in told for run_id in one["copied"]) == ids(full)
    assert all(sorted([*one["copied"], *one["known"]]) == ids(full) and not one["conflicts"] for one in told)


class Bucket:
    """A store of another kind, as an object storage would be: names and bytes, a run exists when its run.json does."""

    url = "memory:"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def run_ids(self) -> list[str]:
        return sorted(key.split("/")[0] for key in self.objects if key.endswith("/run.json"))

    def open(self, run_id: str, name: str) -> IO[bytes]:
        if f"{run_id}/{name}" not in self.objects:
            raise FileNotFoundError(2, "no such object")
        return BytesIO(self.objects[f"{run_id}/{name}"])

    def size(self, run_id: str, name: str) -> int | None:
        found = self.objects.get(f"{run_id}/{name}")
        return None if found is None else len(found)

    @contextmanager
    def putting(self, run_id: str) -> Iterator[Putting]:
        files: dict[str, BytesIO] = {}

        class Writing:
            def write(self, name: str) -> IO[bytes]:
                files[name] = BytesIO()
                files[name].close = lambda: None  # type: ignore[method-assign]
                return files[name]

        yield Writing()
        for name in sorted(files, key=lambda name: name == "run.json"):
            self.objects[f"{run_id}/{name}"] = files[name].getvalue()


def test_the_interface_carries_a_store_that_is_no_folder(full: Path, tmp_path: Path) -> None:
    bucket = Bucket()
    assert copy(Folder(full), bucket).copied == ids(full)
    assert copy(Folder(full), bucket).known == ids(full)
    assert copy(bucket, Folder(tmp_path / "back")).complete and content(tmp_path / "back") == content(full)


def test_urls(tmp_path: Path) -> None:
    assert folder_of("file:///srv/my%20results") == folder_of(Path("file:/srv/my results")) == Path("/srv/my results")
    assert folder_of("results") == Path("results") and folder_of("./a:b/c") == Path("a:b/c")
    assert at(tmp_path).url == tmp_path.as_uri()
    with pytest.raises(UsageError, match="no storage for s3:// yet"):
        at("s3://bucket/x")
    with pytest.raises(UsageError, match="not a folder of this machine"):
        folder_of("file://host/x")
    with pytest.raises(StoreError, match="into itself"):
        check_apart(at(tmp_path), at(tmp_path.as_uri()))


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "profiler", "results", *map(str, words)], capture_output=True, text=True)


def test_the_commands_and_their_exit_codes(full: Path, tmp_path: Path) -> None:
    pushed = command("push", (tmp_path / "copy").as_uri(), "--results", full)
    assert pushed.returncode == 0 and pushed.stdout.startswith("3 runs copied to file://"), pushed.stderr
    pulled = command("pull", full, "--results", tmp_path / "copy")
    assert pulled.returncode == 0 and "0 runs copied" in pulled.stdout and "3 known already" in pulled.stdout
    run_json = next((tmp_path / "copy").glob("runs/*/*/run.json"))
    run_json.write_text(run_json.read_text().replace('"cell_id": "c', '"cell_id": "d'))
    conflict = command("push", tmp_path / "copy", "--results", full)
    assert conflict.returncode == 1 and f"conflict: {run_json.parent.name}" in conflict.stdout
    assert command("pull", tmp_path / "nowhere", "--results", full).returncode == 1
    assert command("push", "s3://bucket", "--results", full).returncode == 2

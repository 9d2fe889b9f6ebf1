"""What an evaluation writes: any text that a server says, all or nothing, and with --again the old one whole until the new one is there."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiler.analyse import quality_store
from profiler.errors import StoreError
from profiler.quality import documents, top_k, verifying
from profiler.quality.copying import copy

KEY = documents.key_of("x")
HALF = "half of a pair: \ud83d"


def document(top: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    drift = {"windows": [[-0.5, -1.25]], "digest": "d", "reason": None, "top": top, "top_reason": None}
    named = {"backend": {"name": "b", "engine": "e"}, "model": {"name": "m"}, "variant": {"variant_id": "v"}}
    return {"made_at": "2026-11-24T10:00:00+00:00", **named, "drift": drift, "tasks": None, **more}


def names(results: Path) -> list[str]:
    return sorted(path.name for path in (results / "quality").iterdir())


def test_half_a_surrogate_pair_is_kept_as_text_that_utf_8_can_hold(tmp_path: Path) -> None:
    examples = [{"id": "e", "passed": False, "answer": HALF, "reason": None}]
    documents.keep_part(tmp_path, KEY, {"examples": examples})
    assert documents.load_part(tmp_path, KEY)["examples"][0]["answer"] == "half of a pair: ?"
    documents.keep(tmp_path, KEY, document(tasks={"digest": "x", "examples": examples}))
    assert names(tmp_path) == [f"{KEY}.json"], "no file of half a writing"
    found = documents.load(tmp_path, KEY)
    assert found is not None and found["tasks"]["examples"][0]["answer"] == "half of a pair: ?"
    assert verifying.check(tmp_path).sound == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_ends_a_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    for write in (lambda: documents.keep(tmp_path, KEY, document()), lambda: top_k.keep(tmp_path, KEY, [[1]], [[-1.0]])):
        with pytest.raises((KeyboardInterrupt, StoreError)):
            write()
    assert names(tmp_path) == []


@pytest.mark.parametrize("damage", ["NaN", "-Infinity", "1e999", '"\\ud83d"', "[" * 100_000])
def test_a_document_that_is_no_json_is_named_and_the_others_are_read(tmp_path: Path, damage: str) -> None:
    documents.keep(tmp_path, documents.key_of("sound"), document())
    path = documents.keep(tmp_path, KEY, document())
    path.write_text(path.read_text().replace("-1.25", damage))
    with pytest.raises(StoreError, match=KEY):
        documents.load(tmp_path, KEY)
    assert [one["key"] for one in documents.load_sound(tmp_path)] == [documents.key_of("sound")]
    assert [one.kind for one in verifying.check(tmp_path).damages] == ["unreadable"]
    found = quality_store.open_all(tmp_path)
    assert len(found.found) == len(found.problems) == 1
    (tmp_path / "quality" / f"{KEY}.part").write_text('{"examples": ' + damage)
    assert documents.load_part(tmp_path, KEY) == {}


def evaluated(results: Path, log_prob: float, then: Callable[[], object] = lambda: None) -> None:
    """As an evaluation with --again writes: its list hours before its document."""
    documents.forget_part(results, KEY)
    documents.keep_part(results, KEY, {"load": {}})
    top = top_k.keep(results, KEY, [[1, 2]], [[log_prob, -3.0]])
    documents.keep_part(results, KEY, {"drift": {"top": top}})
    then()
    documents.keep(results, KEY, document(top))


def test_again_leaves_the_old_document_whole_until_the_new_one_is_there(tmp_path: Path) -> None:
    results = tmp_path / "results"
    evaluated(results, -0.5)
    first = documents.load(results, KEY)
    assert first is not None
    digest = first["drift"]["top"]["sha256"]
    assert names(results) == [f"{KEY}.{digest[:8]}.top.npz", f"{KEY}.json"]
    killed = tmp_path / "killed"

    def underway() -> None:
        found = verifying.check(results)
        assert (found.sound, found.underway, found.damages) == (1, 1, [])
        assert copy(results, tmp_path / "other").copied == [KEY]
        assert top_k.load(results, first)[1] is None
        shutil.copytree(results, killed)

    evaluated(results, -0.25, underway)
    second = documents.load(results, KEY)
    assert second is not None and second["drift"]["top"]["sha256"] != digest
    assert names(results) == sorted([second["drift"]["top"]["file"], f"{KEY}.json"]), "the old one's file went with it"
    assert not verifying.check(results).damages

    assert not verifying.check(killed).damages, "and it stays so"
    documents.forget_part(killed, KEY)
    assert names(killed) == [first["drift"]["top"]["file"], f"{KEY}.json"], "what was broken off is begun anew"
    assert not verifying.check(killed).damages


def test_a_document_replaced_while_it_is_verified_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(tmp_path, -0.5)
    real, once = verifying._file_faults, [True]

    def slow(path: Path, sha256: str) -> Any:
        if once.pop() if once else False:
            evaluated(tmp_path, -0.25)
        return real(path, sha256)

    monkeypatch.setattr(verifying, "_file_faults", slow)
    assert list(verifying.faults(tmp_path / "quality" / f"{KEY}.json")) == []


def test_a_lock_that_went_away_while_one_waited_for_it_is_nobodys(tmp_path: Path) -> None:
    lock = tmp_path / "quality" / f".{KEY}.lock"
    inside: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with documents.alone(tmp_path, KEY, waits.set):
            inside.append("second")
            assert lock.exists(), "a third one waits at it"

    waiting = threading.Thread(target=second)
    with documents.alone(tmp_path, KEY, lambda: None):
        waiting.start()
        assert waits.wait(60)
        inside.append("first")
    waiting.join(60)
    assert inside == ["first", "second"] and names(tmp_path) == []


def test_the_name_of_the_first_evaluations_is_read_verified_copied_and_replaced(tmp_path: Path) -> None:
    results, other = tmp_path / "results", tmp_path / "other"
    kept = top_k.keep(results, KEY, [[1, 2]], [[-0.5, -3.0]])
    old = (results / "quality" / kept["file"]).rename(results / "quality" / f"{KEY}.top.npz")
    documents.keep(results, KEY, document(kept | {"file": old.name}))
    found = documents.load(results, KEY)
    assert found is not None and top_k.load(results, found)[0] is not None and not verifying.check(results).damages
    assert copy(results, other).complete and names(other) == [f"{KEY}.json", old.name]
    assert hashlib.sha256((other / "quality" / old.name).read_bytes()).hexdigest() == kept["sha256"]
    evaluated(results, -0.25)
    assert (
        old.name not in names(results) and json.loads((results / "quality" / f"{KEY}.json").read_text())["drift"]["top"]["file"] != old.name
    )

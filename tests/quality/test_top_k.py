"""The file of the most probable tokens: what goes in comes out, and what is not what was written is a reason."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.analyse.quality_rows import rows
from profiler.errors import StoreError
from profiler.quality import top_k

IDS = [[7, 3, 49151], [1, 0, 2]]
LOG_PROBS = [[-0.25, -1.5, -9.0], [-0.125, -3.0, -11.5]]


def document(top: dict[str, Any] | None, key: str = "a", **more: Any) -> dict[str, Any]:
    drift = {"windows": [[-0.5, -0.25]], "digest": "d", "reason": None, "top": top, "top_reason": None, **more}
    backend = {"name": key, "engine": "vllm"}
    return {"key": key, "backend": backend, "variant": {"variant_id": "bf16"}, "drift": drift, "tasks": None}


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    kept = top_k.keep(tmp_path, "a", IDS, LOG_PROBS)
    assert kept["k"] == 3 and kept["file"] == f"a.{kept['sha256'][:8]}.top.npz"
    raw = (tmp_path / "quality" / kept["file"]).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == kept["sha256"]
    assert [path.name for path in (tmp_path / "quality").iterdir()] == [kept["file"]], "nothing is left beside it"
    found, why = top_k.load(tmp_path, document(kept))
    assert why is None and found is not None
    assert found[0].dtype == np.int32 and found[1].dtype == np.float32
    assert found[0].tolist() == IDS and found[1].tolist() == LOG_PROBS


@pytest.mark.parametrize("damage", ["gone", "cut", "another"])
def test_another_file_is_a_reason_and_no_error(tmp_path: Path, damage: str) -> None:
    kept = top_k.keep(tmp_path, "a", IDS, LOG_PROBS)
    path = tmp_path / "quality" / kept["file"]
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.write_bytes((tmp_path / "quality" / top_k.keep(tmp_path, "a", IDS[::-1], LOG_PROBS)["file"]).read_bytes())
    found, why = top_k.load(tmp_path, document(kept))
    assert found is None and kept["file"] in str(why)


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"PK\x03\x04 and no more"])
def test_a_hash_that_fits_does_not_make_it_an_array(tmp_path: Path, raw: bytes) -> None:
    kept = top_k.keep(tmp_path, "a", IDS, LOG_PROBS)
    (tmp_path / "quality" / kept["file"]).write_bytes(raw)
    found, why = top_k.load(tmp_path, document(kept | {"sha256": hashlib.sha256(raw).hexdigest()}))
    assert found is None and "cannot be read" in str(why)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "quality").write_text("a file")
    with pytest.raises(StoreError, match=r"a\.[0-9a-f]{8}\.top\.npz"):
        top_k.keep(tmp_path, "a", IDS, LOG_PROBS)


def test_a_row_says_which_of_both_has_no_list(tmp_path: Path) -> None:
    with_list = document(top_k.keep(tmp_path, "a", IDS, LOG_PROBS), "a")
    without = document(None, "b", top_reason="the server gives the log-probability of the given token only")
    reference, variant = rows([with_list, without], with_list, None, None, tmp_path)
    assert reference.kl is None and "kl" not in reference.missing, "it is no nearer to itself"
    assert variant.kl is variant.top1 is None and variant.missing["kl"].startswith("the server gives")
    assert [(part.first, part.last, part.kl) for part in variant.by_position] == [(1, 2, None)], "the drift needs no list"
    other = rows([with_list], without, None, None, tmp_path)[0]
    assert other.missing["top1"].startswith("the reference: the server gives")
    elsewhere = rows([with_list], document(with_list["drift"]["top"], "c"), None, None)[0]
    assert elsewhere.drift is not None and elsewhere.missing["kl"] == "the results folder was not given"


def test_an_evaluation_from_before_the_lists_says_how_to_get_them(tmp_path: Path) -> None:
    old = document(None, "a")
    del old["drift"]["top"], old["drift"]["top_reason"]
    row = rows([old], document(None, "b"), None, None, tmp_path)[0]
    assert row.drift is not None and "--again" in row.missing["kl"]


def test_lists_of_other_places_are_not_compared(tmp_path: Path) -> None:
    one = document(top_k.keep(tmp_path, "a", IDS, LOG_PROBS), "a")
    short = document(top_k.keep(tmp_path, "b", IDS[:1], LOG_PROBS[:1]), "b")
    row = rows([short], one, None, None, tmp_path)[0]
    assert row.kl is None and "1 and 2 places for 2 tokens" in row.missing["kl"]
    same = rows([document(one["drift"]["top"], "c")], one, None, None, tmp_path)[0]
    assert same.kl is not None and same.kl.value == 0 and same.top1 is not None and same.top1.value == 1

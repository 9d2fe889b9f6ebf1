"""Which evaluation speaks for a run, and the verdict of quality and QoS together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse import margins, quality_store
from profiler.analyse.joint import both, joint
from profiler.analyse.limit import Limit, Probe
from profiler.analyse.margins import NONE_STATED, Margins
from profiler.errors import SpecError
from profiler.quality import documents

WINDOWS = 12
RUN = {"model": "m", "model_hash": "aa", "backend": "b-int8", "variant": "int8", "machine_id": "here", "provenance_class": "measured"}
STATED = Margins(0.1, 0.02)


def keep(results: Path, precision: str, worse: float = 0.0, failed: int = 0, key: str = "", **changes: Any) -> None:
    """`worse`: nats per token above the reference's, the same in each window but for a ripple; `failed`: of 40 examples, the last ones."""
    windows = [[-1.0 - worse - 0.001 * (w % 3) * bool(worse)] * 20 for w in range(WINDOWS)]
    examples = [{"id": f"e{k}", "scorer": "exact", "passed": k < 40 - failed, "answer": "", "reason": None} for k in range(40)]
    document = {
        "made_at": "2026-11-24T10:00:00+00:00",
        "model": {"name": "m", "content_hash": "aa"},
        "backend": {"name": f"b-{precision}", "engine": "e", "options": {"cache_size_gb": 2, "prefix_caching": False}},
        "variant": {"variant_id": precision, "precision": precision, "size_bytes": 100},
        "machine": {"machine_id": "here"},
        "demonstration_only": None,
        "drift": {"text": "t", "digest": "d", "windows": windows, "reason": None, "top1": None, "top1_reason": "not given"},
        "tasks": {"tasks": "mine", "digest": "x", "too_small": False, "examples": examples},
    }
    documents.keep(results, key or f"k-{precision}", document | changes)


def test_an_evaluation_is_found_by_model_content_backend_and_variant(tmp_path: Path) -> None:
    keep(tmp_path, "bf16")
    keep(tmp_path, "int8", worse=0.005)
    found = quality_store.open_all(tmp_path, STATED)
    row = found.of(RUN).row
    assert row is not None and row.verdict == "NON-INFERIOR" and row.drift is not None and 1.005 < row.drift.ratio < 1.008
    reference = found.of(RUN | {"backend": "b-bf16", "variant": "bf16"}).row
    assert reference is not None and reference.is_reference
    for change, why in (
        ({"model_hash": "bb"}, "evaluated with another model"),
        ({"variant": "int4"}, "evaluated as another variant (int8)"),
        ({"backend": "other"}, "not evaluated"),
    ):
        standing = found.of(RUN | change)
        assert standing.row is None and standing.reason == why
        assert standing.command is not None and standing.command.startswith("profile evaluate --model m --backend ")
    keep(tmp_path, "int8", key="another model's", model={"name": "n", "content_hash": "bb"}, variant={"variant_id": "int2"})
    assert quality_store.open_all(tmp_path).of(RUN | {"variant": "int4"}).reason == "evaluated as another variant (int8)"
    missing = found.of(RUN | {"backend": "b int4"})
    assert (
        missing.command is not None
        and "--backend 'b int4' --reference b-bf16" in missing.command
        and missing.command.endswith("--margin 10%")
    )


def test_options_that_can_change_an_answer_keep_an_evaluation_away(tmp_path: Path) -> None:
    keep(tmp_path, "int8")
    found = quality_store.open_all(tmp_path)
    assert found.of(RUN, {"cache_size_gb": 9, "prefix_caching": True, "max_num_seqs": 4}).row is not None
    other = found.of(RUN, {"cache_size_gb": 2, "kv_cache_precision": "u8"})
    assert other.row is None and "other options" in str(other.reason)


def test_imported_rows_and_engines_without_a_model_have_no_command(tmp_path: Path) -> None:
    found = quality_store.open_all(tmp_path)
    assert found.of(RUN | {"provenance_class": "imported"}).command is None
    assert found.of(RUN | {"model": None, "engine": "null"}).reason == "the null serves no model"
    assert found.found == () and found.of(RUN).reason == "not evaluated"


def test_an_endpoint_is_known_by_its_name(tmp_path: Path) -> None:
    keep(tmp_path, "int8", model={"name": "served", "content_hash": None})
    found = quality_store.open_all(tmp_path)
    assert found.of(RUN | {"model": "served", "model_hash": None}).row is not None
    assert found.of(RUN | {"model": "another", "model_hash": None}).row is None


def test_the_reference_is_the_widest_or_the_named_one(tmp_path: Path) -> None:
    keep(tmp_path, "int8")
    keep(tmp_path, "int4")
    assert not any(e.row.is_reference for e in quality_store.open_all(tmp_path).found)
    named = quality_store.open_all(tmp_path, Margins(reference="b-int8"))
    assert [e.row.backend for e in named.found if e.row.is_reference] == ["b-int8"]
    keep(tmp_path, "fp16")
    keep(tmp_path, "bf16")
    assert [e.row.backend for e in quality_store.open_all(tmp_path).found if e.row.is_reference] == ["b-bf16"]
    with pytest.raises(SpecError, match="'b-int3': it was not evaluated"):
        quality_store.open_all(tmp_path, Margins(reference="b-int3"))


def test_the_newest_that_can_be_compared_speaks(tmp_path: Path) -> None:
    keep(tmp_path, "bf16")
    keep(tmp_path, "int8", worse=0.01, key="old")
    keep(tmp_path, "int8", worse=0.02, key="new", made_at="2026-11-24T11:00:00+00:00")
    keep(tmp_path, "int8", key="elsewhere", made_at="2026-11-24T12:00:00+00:00", drift=None, tasks=None)
    standing = quality_store.open_all(tmp_path).of(RUN)
    assert standing.evaluation is not None and standing.evaluation.document["key"] == "new"


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"backend": {"name": 3}},
        {"drift": {"windows": [["a"]]}},
        {"tasks": {"digest": "x", "examples": [{}]}},
        {"variant": {}},
    ],
)
def test_what_is_no_evaluation_is_named_and_the_rest_read(tmp_path: Path, change: dict[str, Any]) -> None:
    keep(tmp_path, "bf16")
    keep(tmp_path, "int8", **change)
    (tmp_path / "quality" / "torn.json").write_text('{"format"')
    (tmp_path / "quality" / "other.part").write_text("underway")
    found = quality_store.open_all(tmp_path)
    assert [e.row.backend for e in found.found] == ["b-bf16"] and len(found.problems) == 2
    assert all(".json" in problem for problem in found.problems)


def limit(*results: str) -> dict[Any, Limit]:
    probes = tuple(Probe(float(k + 1), result, "why", 1, (), {}) for k, result in enumerate(results))  # type: ignore[arg-type]
    fits = [p.load for p in probes if p.result == "FITS"]
    return {"rate": Limit("rate", max(fits, default=None), None, "measured", "why", probes)}


def test_a_backend_fits_only_where_quality_and_qos_hold(tmp_path: Path) -> None:
    keep(tmp_path, "bf16")
    keep(tmp_path, "int8", worse=0.005)
    keep(tmp_path, "int4", worse=0.2, failed=20)
    found = quality_store.open_all(tmp_path, STATED)
    runs = {name: RUN | {"backend": f"b-{name}", "variant": name} for name in ("bf16", "int8", "int4", "int3")}
    results = {name: joint(limit("FITS"), found.of(run), STATED) for name, run in runs.items()}
    assert {name: one.result for name, one in results.items()} == {"bf16": "FITS", "int8": "FITS", "int4": "FAILS", "int3": "UNDECIDED"}
    assert results["int3"].decide and results["int3"].decide[0].startswith("profile evaluate")
    assert "perplexity at least" in results["int4"].reason and results["int4"].decide == ()
    assert joint(limit("FAILS", "FAILS"), found.of(runs["int8"]), STATED).result == "FAILS"
    assert joint(limit("UNDECIDED"), found.of(runs["int8"]), STATED).result == "UNDECIDED"
    alone = joint(limit("FITS"), quality_store.open_all(tmp_path).of(runs["int4"]), NONE_STATED)
    assert (alone.result, alone.of, alone.quality) == ("FITS", "QoS", None)


def test_a_part_that_was_not_asked_leaves_it_undecided_and_says_which(tmp_path: Path) -> None:
    keep(tmp_path, "bf16")
    keep(tmp_path, "int8", worse=0.005, tasks=None)
    found = joint(limit("FITS"), quality_store.open_all(tmp_path, STATED).of(RUN), STATED)
    assert found.result == "UNDECIDED" and "no pairs: no examples of both" in found.reason
    only_drift = Margins(drift_margin=0.02)
    assert joint(limit("FITS"), quality_store.open_all(tmp_path, only_drift).of(RUN), only_drift).result == "FITS"


@given(st.sampled_from(["FITS", "FAILS", "UNDECIDED"]), st.sampled_from([None, "NON-INFERIOR", "INFERIOR", "UNDECIDED"]))
def test_both_is_never_better_than_either(qos: Any, quality: Any) -> None:
    made = both(qos, quality)
    assert (made == "FITS") == (qos == "FITS" and quality in (None, "NON-INFERIOR"))
    assert (made == "FAILS") == (qos == "FAILS" or quality == "INFERIOR")


def test_margins_of_a_file_and_of_options(tmp_path: Path) -> None:
    file = tmp_path / "target.toml"
    file.write_text('[qos]\nttft_p95 = "<=1s"\n[quality]\nmargin = "5%"\ndrift_margin = 0.02\nreference = "b"\n')
    assert margins.of_target(str(file)) == Margins(0.05, 0.02, "b")
    assert margins.given("3%").over(margins.of_target(str(file))) == Margins(0.03, 0.02, "b")
    assert margins.of_target("ttft_p95<=1s") == NONE_STATED and not NONE_STATED.stated
    for text, says in (
        ('margin = "lots"', "quality.margin"),
        ("margn = 0.1", "did you mean"),
        ("margin = true", "not a share"),
        ("reference = 1", "name of a"),
    ):
        file.write_text(f"[quality]\n{text}\n")
        with pytest.raises(SpecError) as stop:
            margins.of_target(str(file))
        assert says in f"{stop.value.message} {stop.value.hint}", json.dumps(str(stop.value))

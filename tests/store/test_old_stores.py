"""Stores of every schema version still open, report and answer queries, and their files stay as they are. And stores of a newer one."""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from synthetic import document, record

from profiler.cli.main import cli
from profiler.errors import StoreError
from profiler.report import html
from profiler.report.selection import select
from profiler.store import migrate, schema, schema_docs
from profiler.store.store import NewerSchema, Store

ROOT = Path(__file__).resolve().parents[2]
OLD = Path(__file__).parent / "old"
VERSIONS = sorted(int(path.name.removeprefix("v")) for path in OLD.glob("v*"))
# Of v1 as the program of that time kept it, by pyarrow alone: requests, stamps and the sum of their offsets in µs.
V1 = {
    "20261124T134626.423976Z-ce4f2a": (18, 1080, 193110724),
    "20261124T134633.968229Z-b9cb80": (52, 3072, 548543032),
    "20261124T134643.028633Z-b15894": (18, 1083, 193505697),
}


@pytest.fixture(params=VERSIONS, ids="v{}".format)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy: even a reader that is not meant to write must not reach the kept one."""
    return Path(shutil.copytree(OLD / f"v{request.param}", tmp_path / "results"))


def hashes(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in (root / "runs").rglob("*") if p.is_file()}


def test_a_store_of_every_version_before_this_one_is_kept() -> None:
    assert list(range(1, schema.SCHEMA_VERSION)) == VERSIONS[: schema.SCHEMA_VERSION - 1]
    assert sorted(migrate.STEPS) == list(range(2, schema.SCHEMA_VERSION + 1))


def test_an_old_store_opens_reports_and_answers_queries(old: Path, tmp_path: Path) -> None:
    before = hashes(old)
    store = Store(old)
    assert len(store.runs()) == 3 and list(store.runs()) == [c.name for c in schema.RUNS]
    assert set(store.runs().status) == {"done"} and store.runs().output_tps.notna().all()
    frame = store.requests()
    assert list(frame) == [c.name for c in schema.REQUESTS]
    answered = frame[frame.error_kind.isna()]
    assert all(offsets[-1] * 1000 == pytest.approx(last - sent, abs=500) for offsets, last, sent in zip(
        answered.arrival_offsets_us, answered.last_token_ns, answered.sent_ns, strict=True
    ))  # fmt: skip
    assert len(store.records(store.runs().run_id)) == 3
    (counted,) = store.sql("select count(*) as n from tokens").n
    assert counted == sum(map(len, frame.arrival_offsets_us))
    page = html.write(select(store), tmp_path / "report.html").read_text()
    assert "quickstart-chat" in page
    assert not store.warnings and hashes(old) == before


def test_the_stamps_of_version_1_are_those_it_wrote() -> None:
    store = Store(OLD / "v1")
    for run_id, (requests, stamps, total) in V1.items():
        (path,) = OLD.glob(f"v1/runs/*/{run_id}/requests.parquet")
        assert "arrival_offsets_us" in pq.read_schema(path).names, "the file is of version 1"
        frame = store.requests([run_id])
        assert (len(frame), sum(map(len, frame.arrival_offsets_us)), sum(map(sum, frame.arrival_offsets_us))) == (requests, stamps, total)
        found = store.sql(f"select sum(t_offset_us) as total, count(*) as n from tokens where run_id = '{run_id}'")
        assert (found.n[0], found.total[0]) == (stamps, total)


def test_old_and_new_runs_are_one_store(old: Path) -> None:
    store = Store(old)
    made = store.keep(document(cell_id="new"), [record(1, arrival_offsets_us=(10, 30, 35), arrival_tokens=(1, 1, 1))])
    assert json.loads((made / "run.json").read_text())["schema_version"] == schema.SCHEMA_VERSION
    frame = Store(old).requests()
    assert list(frame.arrival_offsets_us.iloc[-1]) == [10, 30, 35] and frame.run_id.nunique() == 4
    tokens = Store(old).sql("select run_id, t_offset_us from tokens")
    assert list(tokens[tokens.run_id == made.name].t_offset_us) == [10, 30, 35]
    assert tokens.run_id.nunique() == 4
    assert all(a <= b for offsets in frame.arrival_offsets_us for a, b in pairwise(offsets))


def test_the_chain_of_migrations_is_followed_step_by_step(monkeypatch: pytest.MonkeyPatch, old: Path) -> None:
    """With two versions to come, of which each renames a key of run.json: a run of version 1 goes through all of them, in order."""

    def renamed(before: str, after: str) -> Any:
        def step(found: dict[str, Any]) -> dict[str, Any]:
            run = {key: value for key, value in found["run"].items() if key not in (before, after)}
            return {**found, "run": run | {after: found["run"][before]}}

        return step

    coming = {3: migrate.Step(renamed("backend", "halfway")), 4: migrate.Step(renamed("halfway", "arrivals"))}
    monkeypatch.setattr(migrate, "STEPS", {**migrate.STEPS, **coming})
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 4)
    store = Store(old)
    assert set(store.runs().arrivals) == {"null"} and store.runs().backend.isna().all()
    assert len(store.requests()) == 88


# ---- stores of a newer schema


def newer(root: Path, run: Path) -> None:
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": schema.SCHEMA_VERSION + 1}))


def test_a_store_of_a_newer_schema_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    runs = [Store(tmp_path).keep(document(cell_id=f"c{i}"), [record(1)]) for i in range(3)]
    for run in runs:
        newer(tmp_path, run)
    for look in (Store.runs, Store.requests, Store.rows, lambda store: store.sql("select 1 from runs")):
        with pytest.raises(NewerSchema, match=f"schema version {schema.SCHEMA_VERSION + 1}"):
            look(Store(tmp_path))
    for command in (["results", "ls"], ["report"], ["results", "sql", "select 1 from runs"]):
        done = CliRunner().invoke(cli, [*command, "--results", str(tmp_path)])
        assert isinstance(done.exception, StoreError) or done.exit_code == 1
        if isinstance(done.exception, StoreError):
            assert done.exception.hint == "update slm-profiler" and "\n" not in done.exception.message
    assert not (tmp_path / "report.html").exists() and len(list((tmp_path / "runs").glob("*/*"))) == 3


def test_newer_runs_among_others_are_one_warning(tmp_path: Path) -> None:
    runs = [Store(tmp_path).keep(document(cell_id=f"c{i}")) for i in range(4)]
    for run in runs[:3]:
        newer(tmp_path, run)
    store = Store(tmp_path)
    assert list(store.runs().cell_id) == ["c3"]
    (warning,) = store.warnings
    assert "and 2 more" in warning and "run skipped" in warning


# ---- the JSON Schema of run.json


def test_run_json_is_of_its_json_schema(tmp_path: Path) -> None:
    shipped = json.loads((ROOT / schema_docs.JSON_SCHEMA).read_text())
    checked = jsonschema.Draft202012Validator(shipped)
    checked.check_schema(shipped)
    written = Store(tmp_path).keep(document(cell_id="x"), [record(1)]) / "run.json"
    paths = [written, *OLD.glob("v*/runs/*/*/run.json"), *(ROOT / "results" / "reference").glob("runs/*/*/run.json")]
    assert len(paths) > 10
    for path in paths:
        checked.validate(json.loads(path.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": schema.SCHEMA_VERSION + 1},
        {"schema_version": "1"},
        {"files": {"requests.parquet": {"bytes": 1}}},
        {"run": {"cell_id": None}},
        {"run": {"load": "four"}},
        {"run": {"n_cohort": 1.5}},
        {"run": {"status": "perhaps"}},
        {"run": {"a_column_nobody_knows": 1}},
    ],
    ids=str,
)
def test_the_json_schema_refuses_what_is_wrong(tmp_path: Path, change: dict[str, Any]) -> None:
    good = json.loads((Store(tmp_path).keep(document()) / "run.json").read_text())
    jsonschema.validate(good, schema_docs.json_schema())
    bad = good | change | ({"run": good["run"] | change["run"]} if "run" in change else {})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema_docs.json_schema())

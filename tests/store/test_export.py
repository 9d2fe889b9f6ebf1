"""Out of the store and back: Parquet is equal, CSV says the same, llm-d-planner's NOT NULL columns are all there. Nothing is overwritten."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import synthetic
from click.testing import CliRunner

from profiler.cli.main import cli
from profiler.errors import StoreError
from profiler.store import schema
from profiler.store.export import PLANNER_NEEDED, export_planner, export_table, table_of
from profiler.store.store import Store

# scripts/schema.sql of llm-d-planner: what is NOT NULL and has no default, without what its loader fills in (id, config_id, type, dates).
NOT_NULL = [
    "model_hf_repo",
    "ttft_mean",
    "ttft_p90",
    "ttft_p95",
    "ttft_p99",
    "e2e_mean",
    "e2e_p90",
    "e2e_p95",
    "e2e_p99",
    "requests_per_second",
    "tokens_per_second",
    "mean_input_tokens",
    "mean_output_tokens",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "r")
    known = {
        "provenance_class": "measured", "model": "org/model", "device": "a box", "device_source": "observed", "request_rate": 2.0,
        "output_tps": 8.0, "isl_mean": 128.0, "osl_mean": 4.0, "validity_reasons": ["one, with a comma", 'and "quotes"'],
    }  # fmt: skip
    requests = [synthetic.record(i, intended_ms=10 * i, ttft_ms=100 + i) for i in range(100)]
    made.keep(synthetic.document(**known), requests)
    made.keep(synthetic.document(**known | {"device": None, "cell_id": "c2"}), requests)
    made.keep(synthetic.document(**known | {"validity": "invalid", "cell_id": "c3"}), requests)
    return Store(tmp_path / "r")


@pytest.mark.parametrize("table", ["runs", "requests"])
def test_parquet_comes_back_equal(store: Store, table: str, tmp_path: Path) -> None:
    export_table(store, table, tmp_path / "out.parquet", "parquet")
    back = pq.read_table(tmp_path / "out.parquet")
    assert back.equals(table_of(store, table))
    assert back.schema.field("run_id" if table == "runs" else "ttft_s").metadata[b"definition"]


@pytest.mark.parametrize("table", ["runs", "requests"])
def test_csv_says_the_same(store: Store, table: str, tmp_path: Path) -> None:
    export_table(store, table, tmp_path / "out.csv", "csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = table_of(store, table).to_pylist()
    assert len(rows) == len(wanted) == (3 if table == "runs" else 300)
    types = {c.name: c.type for c in schema.TABLES[table]}
    for row, want in zip(rows, wanted, strict=True):
        for name, kind in types.items():
            text, value = row[name], want[name]
            if value is None:
                assert text == ""
            elif kind.startswith("list<"):
                assert json.loads(text) == value
            elif kind == "bool":
                assert text == str(value).lower()
            else:
                assert text == value if kind == "string" else float(text) == value


def test_requests_are_those_of_the_runs_files(store: Store) -> None:
    table = table_of(store, "requests")
    assert table.column("ttft_s").to_pylist()[:100] == [(100 + i) / 1e3 for i in range(100)]
    assert table.column("arrival_offsets_us").to_pylist()[3] == [103_000, 123_000, 143_000, 163_000]


def test_the_planner_gets_its_columns_in_ms(store: Store, tmp_path: Path) -> None:
    done = export_planner(store, tmp_path / "b.json")
    whole = json.loads((tmp_path / "b.json").read_text())
    (row,) = whole["benchmarks"]
    assert set(NOT_NULL) <= set(PLANNER_NEEDED) and all(row[name] is not None for name in PLANNER_NEEDED)
    assert (row["ttft_p90"], row["ttft_p95"], row["ttft_p99"]) == pytest.approx((189.0, 194.0, 198.0))  # of 100 … 199 ms
    assert (row["itl_mean"], row["hardware"], row["hardware_count"]) == (pytest.approx(20.0), "a box", 1)
    assert (row["prompt_tokens"], row["output_tokens"], row["tokens_per_second"]) == (128, 4, 8.0)
    assert done.left_out == {"no hardware, which the schema needs": 1, "not done, or invalid": 1}


def test_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(StoreError, match="is there already"):
        export_table(store, "runs", taken, "csv")
    with pytest.raises(StoreError, match="is there already"):
        export_planner(store, taken)
    assert taken.read_text() == "mine"


WAYS: list[Callable[[Store, Path], Any]] = [
    lambda store, path: export_table(store, "requests", path, "csv"),
    lambda store, path: export_table(store, "requests", path, "parquet"),
    export_planner,
]


@pytest.mark.parametrize("way", WAYS, ids=["csv", "parquet", "planner"])
def test_a_disk_that_fills_midway_leaves_nothing(store: Store, tmp_path: Path, way: Callable[[Store, Path], Any]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with synthetic.files_end_at(100), pytest.raises(StoreError, match="out/x: cannot be written: File too large") as failed:
        way(store, folder / "x")
    assert failed.value.hint == "give another --out" and list(folder.iterdir()) == []
    way(store, folder / "x")
    assert [path.name for path in folder.iterdir()] == ["x"]


@pytest.mark.parametrize("way", WAYS, ids=["csv", "parquet", "planner"])
def test_the_hint_is_about_the_file(store: Store, tmp_path: Path, way: Callable[[Store, Path], Any]) -> None:
    with pytest.raises(StoreError, match="missing/x: cannot be written: No such file or directory") as failed:
        way(store, tmp_path / "missing" / "x")
    assert failed.value.hint == "give another --out"


def test_a_file_that_came_meanwhile_is_kept(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    monkeypatch.setattr("pyarrow.csv.write_csv", lambda table, where: path.write_text("mine"))
    with pytest.raises(StoreError, match="is there already"):
        export_table(store, "runs", path, "csv")
    assert path.read_text() == "mine" and not list(tmp_path.glob(".x*"))


def test_a_file_system_without_hard_links(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    export_planner(store, tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["benchmarks"] and not list(tmp_path.glob(".b*"))


def test_the_planners_file_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    made = Store(tmp_path / "r")
    known = {"provenance_class": "measured", "model": "modèle", "device": "d", "device_source": "observed", "request_rate": 1.0}
    made.keep(synthetic.document(**known, output_tps=4.0, isl_mean=1.0, osl_mean=4.0), [synthetic.record(i) for i in range(100)])
    code = "import sys; from pathlib import Path; from profiler.store import export, store; export.export_planner(store.Store(Path('r')), Path('b.json'))"
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ascii_only, check=True, timeout=120)
    assert json.loads((tmp_path / "b.json").read_bytes())["benchmarks"][0]["model_hf_repo"] == "modèle"


def test_the_command_says_what_it_wrote(store: Store, tmp_path: Path) -> None:
    runner, results = CliRunner(), ["--results", str(store.path), "--json"]
    done = runner.invoke(cli, ["results", "export", "--format", "parquet", "--out", str(tmp_path / "x.parquet"), *results])
    assert json.loads(done.output) == {"file": str(tmp_path / "x.parquet"), "rows": 3, "left_out": {}}
    assert runner.invoke(cli, ["results", "export", "--format", "llm-d-planner", "--table", "requests", *results]).exit_code != 0


def test_failures_count_in_the_planners_percentiles(tmp_path: Path) -> None:
    """Three of a hundred failed: the p99 lies among them, and a run without it is not exported."""
    made = Store(tmp_path / "r")
    lost = {"error_kind": "timeout", "done_ns": None, "ttft_s": None}
    requests = [synthetic.record(i, **(lost if i < 3 else {})) for i in range(100)]
    known = {"provenance_class": "measured", "model": "m", "device": "d", "device_source": "observed", "request_rate": 1.0}
    made.keep(synthetic.document(**known, output_tps=4.0, isl_mean=1.0, osl_mean=4.0), requests)
    assert export_planner(Store(tmp_path / "r"), tmp_path / "b.json").left_out == {"no ttft_p99, which the schema needs": 1}

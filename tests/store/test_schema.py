"""The tables of columns, and what is made from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from profiler.store import schema, schema_docs
from profiler.store.store import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", schema_docs.MADE)
def test_what_is_made_from_the_schema_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == schema_docs.MADE[path](), "make it again: python -m profiler.store.schema_docs"


def test_every_column_stands_in_the_docs_with_its_five_facts() -> None:
    lines = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8").splitlines()
    rows = {tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines if line.startswith("| `")}
    for columns in [*schema.TABLES.values(), *map(schema.stored, schema.STORED)]:
        for c in columns:
            assert (f"`{c.name}`", c.type, c.unit, c.definition.replace("|", "·"), str(c.since)) in rows, c.name
    for version, what in schema.HISTORY.items():
        assert f"| {version} | {what} |" in lines


@pytest.mark.parametrize("table", schema.TABLES)
def test_columns_are_defined_once_with_their_unit(table: str) -> None:
    columns = schema.TABLES[table]
    assert [name for name, count in Counter(c.name for c in columns).items() if count > 1] == []
    for column in columns:
        assert column.definition and "\n" not in column.definition
        assert 1 <= column.since <= schema.SCHEMA_VERSION
        for ending, unit in {"_ns": "ns", "_us": "µs", "_bytes": "bytes", "_tps": "tokens/s", "_j": "J"}.items():
            assert not column.name.endswith(ending) or column.unit == unit, column.name
        if column.name.removesuffix("_lo").removesuffix("_hi").endswith("_s"):
            assert column.unit == "s" and column.type == "float64", column.name


def test_every_schema_version_says_what_it_brought() -> None:
    assert sorted(schema.HISTORY) == list(range(1, schema.SCHEMA_VERSION + 1))


# Columns other programs build on keep their names (the metric dictionary); more may come.
PROMISED = """run_id sweep_id cell_id repeat status validity validity_reasons provenance_class model variant backend engine device device_source machine_id
workload workload_version load_kind load window_s n_requests n_errors start_id ready_s load_s peak_memory_bytes request_rate output_tps total_tps goodput
ttft_p50_s ttft_p99_s ttft_p95_s_lo ttft_p95_s_hi tpot_p50_s tpot_p99_s energy_j energy_scope started_at"""


def test_promised_columns_are_there() -> None:
    assert set(PROMISED.split()) <= {c.name for c in schema.RUNS}


def test_an_empty_store_has_typed_frames(tmp_path: Path) -> None:
    store = Store(tmp_path / "not there yet")
    runs, requests = store.runs(), store.requests()
    assert list(runs) == [c.name for c in schema.RUNS] and list(requests) == [c.name for c in schema.REQUESTS]
    assert len(runs) == len(requests) == 0
    assert str(runs.load.dtype) == "float64" and str(runs.n_requests.dtype) == "Int64"
    assert str(requests.sent_ns.dtype) == "Int64" and str(requests.turn.dtype) == "Int32" and str(requests.warmup.dtype) == "boolean"
    assert str(requests.ttft_s.dtype) == "float64"
    assert store.measured() == set() and store.next_repeat(["c"]) == 0
    assert not (tmp_path / "not there yet").exists(), "reading creates nothing"


@pytest.mark.parametrize("view", ["runs", "requests", "tokens", "telemetry", "engine_metrics"])
def test_an_empty_store_has_typed_views(tmp_path: Path, view: str) -> None:
    described = Store(tmp_path).sql(f"describe {view}")
    got = dict(zip(described.column_name, described.column_type, strict=True))
    if view == "tokens":
        assert got == {"run_id": "VARCHAR", "request_id": "VARCHAR", "t_offset_us": "INTEGER", "tokens": "INTEGER"}
    else:
        assert got == {c.name: schema.DUCKDB_TYPES[c.type] for c in schema.TABLES[view]}
    assert Store(tmp_path).sql(f"select count(*) as n from {view}").n[0] == 0

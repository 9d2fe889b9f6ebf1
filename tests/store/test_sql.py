"""One SELECT over the views, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import StoreError
from profiler.records import RequestRecord
from profiler.store.store import Store


@pytest.fixture
def store(tmp_path: Path, make_record: Callable[..., RequestRecord], make_document: Callable[..., dict[str, Any]]) -> Store:
    made = Store(tmp_path / "it's [my] *results*")  # a quote for SQL, a pattern for whoever globs
    made.keep(make_document(backend="a", output_tps=10.0), [make_record(i, arrival_tokens=(1, 1, 2, 4)) for i in range(3)])
    made.keep(make_document(backend="b", cell_id="c2"), [make_record(9, gaps_ms=()), make_record(10, sent_ns=None, error_kind="connect")])
    return made


def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    return list(store.sql(query).itertuples(index=False, name=None))


def test_views_join_on_the_run(store: Store) -> None:
    assert rows(store, "select backend, count(*) from runs join requests using (run_id) group by backend order by backend") == [
        ("a", 3),
        ("b", 2),
    ]


def test_tokens_are_the_reads_of_the_requests(store: Store) -> None:
    assert rows(store, "select request_id, t_offset_us, tokens from tokens where request_id = 'r0001' order by t_offset_us") == [
        ("r0001", 100_000, 1),
        ("r0001", 120_000, 1),
        ("r0001", 140_000, 2),
        ("r0001", 160_000, 4),
    ]
    assert rows(store, "select sum(tokens) from tokens join runs using (run_id) where backend = 'a'") == [(24,)]


def test_missing_is_null(store: Store) -> None:
    assert rows(store, "select count(*), count(output_tps) from runs") == [(2, 1)]
    assert rows(store, "select count(*) from requests where sent_ns is null and error_kind = 'connect'") == [(1,)]
    assert rows(store, "select count(*) from telemetry") == [(0,)]


@pytest.mark.parametrize(
    "query",
    [
        "FROM runs",
        "with good as (select * from runs) select count(*) from good",
        "values (1)",
        "describe requests",
        "summarize runs",
        "show tables",
        "select 1;",
        "-- a comment\nselect 1",
    ],
)
def test_what_counts_as_a_select(store: Store, query: str) -> None:
    assert len(store.sql(query)) >= 1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   -- only a comment",
        "select 1; select 2",
        "select 1; drop view runs",
        "insert into runs select * from runs",
        "update runs set load = 1",
        "delete from requests",
        "drop view runs",
        "create table t (a int)",
        "copy runs to '{out}'",
        "copy (select 1) to '{out}'",
        "explain analyze copy (select 1) to '{out}'",
        "export database '{out}'",
        "attach '{out}'",
        "set threads = 1",
        "pragma version",
        "install httpfs",
        "load httpfs",
        "selct 1",
        "select nothing from runs",
        "select * from frame",
    ],
)
def test_anything_else_is_refused_in_one_line_and_writes_nothing(store: Store, tmp_path: Path, query: str) -> None:
    frame = object()  # noqa: F841 - a query must not see Python's variables
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError) as caught:
        store.sql(query.format(out=tmp_path / "out"))
    assert caught.value.message.startswith("SQL: ") and "\n" not in caught.value.message and "runs, requests" in str(caught.value.hint)
    assert sorted(tmp_path.rglob("*")) == before
    assert len(store.sql("select * from runs")) == 2

"""What goes into the files comes out of them: read back by pyarrow and DuckDB themselves, which share no code with the writer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import StoreError
from profiler.records import RequestRecord
from profiler.store import schema
from profiler.store.store import Store
from profiler.store.writer import json_safe, run_document, write_json, write_requests

NS = st.integers(0, 2**63 - 1)
SECONDS = st.floats(0, 1e9)
COUNT = st.integers(0, 2**31 - 1)
TEXT = st.text(max_size=20)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


ARRIVALS = st.lists(st.tuples(COUNT, st.integers(1, 100)), max_size=30)
KINDS = st.sampled_from(["connect", "send", "reset", "timeout", "stalled", "http_status", "bad_stream", "server_error", "truncated"])
RECORDS = st.builds(
    lambda arrivals, **rest: RequestRecord(
        arrival_offsets_us=tuple(o for o, _ in arrivals), arrival_tokens=tuple(t for _, t in arrivals), **rest
    ),
    arrivals=ARRIVALS,
    request_id=TEXT,
    session_id=maybe(TEXT),
    turn=COUNT,
    intended_ns=NS,
    **{name: maybe(NS) for name in ("sent_ns", "first_token_ns", "last_token_ns", "done_ns")},
    **{name: maybe(SECONDS) for name in ("ttft_s", "ttft_sched_s", "tpot_s", "e2e_s", "e2e_sched_s", "max_icl_s")},
    **{name: maybe(COUNT) for name in ("prompt_tokens", "output_tokens", "asked_output_tokens", "http_status")},
    **{f"server_{name}_s": maybe(SECONDS) for name in ("queue", "prefill", "decode", "ttft")},
    server_cached_tokens=maybe(COUNT),
    finish_reason=maybe(TEXT),
    error_kind=maybe(KINDS),
    error=maybe(TEXT),
    warmup=st.booleans(),
    in_window=st.booleans(),
    connection_reused=maybe(st.booleans()),
    token_count_source=maybe(st.sampled_from(["token_ids", "usage"])),
    text=maybe(TEXT),
)


def expected(record: RequestRecord) -> dict[str, Any]:
    row = asdict(record)
    del row["text"]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}


def offsets_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the file with the arrivals that its gaps stand for."""
    return row | {"arrival_offsets_us": list(accumulate(row.pop("arrival_gaps_us")))}


@settings(max_examples=60)
@given(st.lists(RECORDS, max_size=8))
def test_records_round_trip(records: list[RequestRecord]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "requests.parquet"
        write_requests(path, "run", records)
        rows = [offsets_of(row) for row in pq.read_table(path).to_pylist()]
        assert [{k: v for k, v in row.items() if k != "run_id"} for row in rows] == [expected(record) for record in records]
        assert all(row["run_id"] == "run" for row in rows)
        if records and not any("\0" in (r.request_id + (r.error or "")) for r in records):
            with duckdb.connect() as connection:
                counted = connection.execute(
                    "select count(*), count(sent_ns), sum(list_sum(arrival_tokens)), max(intended_ns) from read_parquet(?)", [str(path)]
                ).fetchone()
            assert counted is not None
            tokens = sum(sum(r.arrival_tokens) for r in records)
            sent = sum(r.sent_ns is not None for r in records)
            assert (counted[0], counted[1], counted[2] or 0, counted[3]) == (
                len(records),
                sent,
                tokens,
                max(r.intended_ns for r in records),
            )


@settings(max_examples=25)
@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_frames_keep_nulls_and_nanoseconds(records: list[RequestRecord]) -> None:
    """A NULL among nanoseconds must not turn the column into floats: they hold 53 bits, a clock of a machine up for 104 days needs 54."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.keep({"run": {"cell_id": "c", "environment_hash": "e", "repeat": 0, "status": "done", "validity": "valid"}}, records)
        frame = store.requests()
        for name in ("intended_ns", "sent_ns", "first_token_ns", "prompt_tokens", "warmup", "connection_reused"):
            got = [None if value is frame[name].dtype.na_value else value for value in frame[name]]
            assert got == [getattr(record, name) for record in records], name
        for name in ("ttft_s", "tpot_s"):
            assert [None if math.isnan(value) else value for value in frame[name]] == [getattr(record, name) for record in records]
        assert [list(offsets) for offsets in frame.arrival_offsets_us] == [list(record.arrival_offsets_us) for record in records]


def test_answers_texts_stay_out_of_the_parquet(tmp_path: Path, make_record: Callable[..., RequestRecord]) -> None:
    write_requests(tmp_path / "r.parquet", "run", [make_record(1, text="a secret")])
    assert "text" not in pq.read_schema(tmp_path / "r.parquet").names
    assert b"a secret" not in (tmp_path / "r.parquet").read_bytes()


def test_half_a_surrogate_pair_from_a_server_does_not_lose_the_run(tmp_path: Path, make_record: Callable[..., RequestRecord]) -> None:
    half = json.loads('"\\ud83e"')
    folder = Store(tmp_path).keep(
        {"run": {"cell_id": "c", "environment_hash": "e", "repeat": 0, "status": "failed", "validity": "invalid", "status_reason": half}},
        [make_record(1, error=half)],
    )
    assert pq.read_table(folder / "requests.parquet")["error"].to_pylist() == ["?"]
    assert Store(tmp_path).runs().status_reason[0] == "?"


def test_the_file_explains_itself(tmp_path: Path, make_record: Callable[..., RequestRecord]) -> None:
    write_requests(tmp_path / "r.parquet", "run", [make_record(1)])
    written = pq.read_schema(tmp_path / "r.parquet")
    assert written.metadata[b"slm_profiler_schema"] == str(schema.SCHEMA_VERSION).encode()
    assert written.metadata[b"table"] == b"requests"
    for column in schema.stored("requests"):
        kept = written.field(column.name).metadata
        assert kept[b"unit"] == column.unit.encode() and kept[b"since"] == str(column.since).encode()
        assert kept[b"definition"] == column.definition.encode()
    offsets = next(
        c
        for i in range(64)
        if (c := pq.ParquetFile(tmp_path / "r.parquet").metadata.row_group(0).column(i)).path_in_schema.startswith("arrival_gaps_us")
    )
    assert "BYTE_STREAM_SPLIT" in offsets.encodings and offsets.compression == "ZSTD"


def test_every_field_of_a_record_is_a_column() -> None:
    assert {f.name for f in fields(RequestRecord)} - {"text"} == {c.name for c in schema.REQUESTS} - {"run_id"}


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.characters(categories=["Cs"])
    | st.sampled_from([np.float64("nan"), np.float32("inf"), np.int64(7), np.bool_(True), Path("a/b"), datetime(2026, 1, 1)]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_LIKE)
def test_json_safe_is_strict_json_and_changes_nothing_twice(value: Any) -> None:
    safe = json_safe(value)
    assert json.loads(json.dumps(safe, allow_nan=False, ensure_ascii=False).encode()) == safe
    assert json_safe(safe) == safe


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (np.float64("nan"), None),
        (np.float32("-inf"), None),
        (np.float64(0.5), 0.5),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),
        ((1, (2.0, math.nan)), [1, [2.0, None]]),
        ({1: {"x": np.float32(0.25)}}, {"1": {"x": 0.25}}),
        (Path("/a"), "/a"),
        (0.0, 0.0),
        (False, False),
    ],
)
def test_json_safe_values(value: Any, safe: Any) -> None:
    assert json_safe(value) == safe and type(json_safe(value)) is type(safe)


def test_run_json_has_every_column_typed_and_nothing_else(tmp_path: Path, make_document: Callable[..., dict[str, Any]]) -> None:
    given = make_document(load=np.float64(4), window_open_ns=np.int64(2**60), output_tps=math.nan, goodput=np.float32("inf"), ready_s=3)
    written = run_document(given, "run-1", {})
    write_json(tmp_path / "run.json", written)
    run = json.loads((tmp_path / "run.json").read_text(), parse_constant=lambda text: pytest.fail(f"{text} in JSON"))["run"]
    assert list(run) == [c.name for c in schema.RUNS]
    assert (run["load"], run["window_open_ns"], run["output_tps"], run["goodput"]) == (4.0, 2**60, None, None)
    assert isinstance(run["ready_s"], float) and run["validity_reasons"] == []


@pytest.mark.parametrize(("wrong", "near"), [("outptu_tps", "output_tps"), ("ttft_p95", "ttft_p95_s"), ("qzx", "schema.py")])
def test_an_unknown_column_is_refused_with_the_nearest(make_document: Callable[..., dict[str, Any]], wrong: str, near: str) -> None:
    with pytest.raises(StoreError) as caught:
        run_document(make_document(**{wrong: 1}), "run-1", {})
    assert wrong in caught.value.message and near in str(caught.value.hint)

"""Arrival stamps: what is written is what is read, to the microsecond, by every way into the store."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import document, record

from profiler.records import RequestRecord
from profiler.store import stamps
from profiler.store.store import Store
from profiler.store.writer import write_requests

OFFSETS = st.lists(st.lists(st.integers(0, stamps.LARGEST_US), max_size=12), max_size=6)
GROWING = st.lists(st.lists(st.integers(0, 50_000_000), max_size=40).map(sorted), min_size=1, max_size=6)


@given(OFFSETS)
def test_gaps_are_undone_exactly(lists: list[list[int]]) -> None:
    offsets = pa.array(lists, pa.list_(pa.int32()))
    gaps = stamps.to_gaps(offsets)
    # The oracle is the standard library's running sum.
    assert [list(accumulate(own)) for own in gaps.to_pylist()] == lists
    assert stamps.to_offsets(gaps).to_pylist() == lists
    assert gaps.type == stamps.to_offsets(gaps).type == offsets.type


@given(st.lists(st.none() | st.lists(st.integers(0, stamps.LARGEST_US), max_size=4), min_size=1, max_size=8), st.data())
def test_a_slice_and_a_null_are_lists_like_others(lists: list[list[int] | None], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(lists)))
    cut = pa.array(lists, pa.list_(pa.int32())).slice(at)
    assert stamps.to_offsets(stamps.to_gaps(cut)).to_pylist() == lists[at:]


@settings(max_examples=25, deadline=None)
@given(GROWING)
def test_every_way_into_the_store_gives_the_same_stamps(lists: list[list[int]]) -> None:
    records = [record(i, arrival_offsets_us=tuple(own), arrival_tokens=(1,) * len(own)) for i, own in enumerate(lists)]
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.keep(document(), records)
        assert [list(own) for own in store.requests().arrival_offsets_us] == lists
        assert [list(own) for own in store.requests(columns=["arrival_offsets_us"]).arrival_offsets_us] == lists
        by_sql = store.sql("select arrival_offsets_us from requests order by request_id").arrival_offsets_us
        assert [list(own) for own in by_sql] == lists
        tokens = store.sql("select request_id, t_offset_us from tokens order by request_id, t_offset_us")
        assert list(tokens.t_offset_us) == [offset for own in lists for offset in own]


def test_the_bare_file_has_gaps_and_says_what_they_are(tmp_path: Path, make_record: Callable[..., RequestRecord]) -> None:
    path = tmp_path / "r.parquet"
    write_requests(path, "run", [make_record(1, arrival_offsets_us=(100, 120, 150), arrival_tokens=(1, 1, 1))])
    with duckdb.connect() as connection:
        assert connection.execute("select arrival_gaps_us from read_parquet(?)", [str(path)]).fetchall() == [([100, 20, 30],)]
    field = pq.read_schema(path).field("arrival_gaps_us")
    assert b"running sum" in field.metadata[b"definition"] and field.metadata[b"since"] == b"2"
    assert "arrival_offsets_us" not in pq.read_schema(path).names


def test_offsets_beyond_their_type_stop_growing(tmp_path: Path, make_record: Callable[..., RequestRecord]) -> None:
    store = Store(tmp_path)
    store.keep(document(), [make_record(1, arrival_offsets_us=(5, 2**31, 2**40), arrival_tokens=(1, 1, 1))])
    assert [list(own) for own in store.requests().arrival_offsets_us] == [[5, 2**31 - 1, 2**31 - 1]]


@pytest.mark.parametrize("spread_us", [100, 5_000])
def test_a_stamp_takes_less_than_three_bytes(tmp_path: Path, spread_us: int) -> None:
    """Of a thousand requests with tokens about every 20 ms at jittered times; the figures of real engines are in docs/store-scale.md."""
    import random

    random.seed(spread_us)
    records = []
    for i in range(1000):
        offsets = accumulate([random.randint(80_000, 400_000), *(max(1, round(random.gauss(20_000, spread_us))) for _ in range(99))])
        records.append(record(i, arrival_offsets_us=tuple(offsets), arrival_tokens=(1,) * 100))
    write_requests(tmp_path / "r.parquet", "run", records)
    group = pq.ParquetFile(tmp_path / "r.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    size = sum(c.total_compressed_size for c in columns if c.path_in_schema.startswith("arrival_"))
    assert size / 100_000 <= 3

"""The columns of a run, recomputed from requests.parquet by plain SQL (DuckDB), and small cases worked out by hand."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from synthetic import drive as make_window
from synthetic import record

from profiler.analyse.latency import summarise
from profiler.analyse.qos import parse
from profiler.records import DriveResult, RequestRecord
from profiler.store.schema import RUNS
from profiler.store.store import Store

S = 10**9
MakeRecord = Callable[..., RequestRecord]
MakeDrive = Callable[..., DriveResult]


def random_requests(seed: int) -> tuple[list[RequestRecord], DriveResult]:
    """Requests as a driver would record them: bursts of tokens, failures, warm-up, stragglers over both edges of the window."""
    draw = random.Random(seed)
    window = make_window(window_open_ns=5 * S, window_close_ns=25 * S, ended_ns=40 * S)
    requests = []
    for number in range(draw.randint(30, 250)):
        intended = draw.randrange(0, 30 * S)
        sent = intended + draw.randrange(0, 3_000_000)
        reads = draw.randint(1, 40)
        offsets, at = [], draw.randrange(20_000, 2_000_000)
        for _ in range(reads):
            offsets.append(at)
            at += draw.randrange(1_000, 400_000)
        tokens = [draw.randint(1, 4) for _ in offsets]
        first, last, done = sent + offsets[0] * 1000, sent + offsets[-1] * 1000, sent + offsets[-1] * 1000 + 5000
        failed = draw.random() < 0.03
        after_first = sum(tokens) - tokens[0]
        requests.append(
            record(
                number,
                intended_ns=intended,
                sent_ns=sent,
                first_token_ns=first,
                last_token_ns=last,
                done_ns=None if failed else done,
                ttft_s=(first - sent) / S,
                ttft_sched_s=(first - intended) / S,
                tpot_s=(last - first) / S / after_first if after_first else None,
                e2e_s=None if failed else (done - sent) / S,
                e2e_sched_s=None if failed else (done - intended) / S,
                prompt_tokens=draw.randint(10, 500),
                output_tokens=sum(tokens),
                error_kind="reset" if failed else None,
                warmup=intended < 5 * S,
                in_window=5 * S <= intended < 25 * S,
                arrival_offsets_us=tuple(offsets),
                arrival_tokens=tuple(tokens),
            )
        )
    return requests, window


# Order statistic: the row whose number is ceil(p n). A failed request sorts behind every other (NULLS LAST) and counts in n.
PERCENTILE = """
WITH cohort AS (SELECT CASE WHEN error_kind IS NULL THEN {column} END AS value FROM '{file}' WHERE in_window AND ({keep})),
     ranked AS (SELECT value, row_number() OVER (ORDER BY value NULLS LAST) AS place, count(*) OVER () AS n FROM cohort)
SELECT value FROM ranked WHERE place = (n * {percent} + 99) // 100
"""
OUTPUT_TPS = """
WITH gaps AS (SELECT request_id, sent_ns, unnest(arrival_gaps_us) AS gap_us, unnest(arrival_tokens) AS tokens,
                     unnest(range(len(arrival_tokens))) AS place FROM '{file}'),
     reads AS (SELECT sent_ns, tokens, sum(gap_us) OVER (PARTITION BY request_id ORDER BY place) AS offset_us FROM gaps)
SELECT sum(tokens) / 20.0 FROM reads WHERE sent_ns + offset_us::BIGINT * 1000 >= 5000000000 AND sent_ns + offset_us::BIGINT * 1000 < 25000000000
"""
INPUT_TPS = "SELECT sum(prompt_tokens) / 20.0 FROM '{file}' WHERE first_token_ns >= 5000000000 AND first_token_ns < 25000000000"
GOODPUT = (
    "SELECT count(*) / 20.0 FROM '{file}' WHERE in_window AND error_kind IS NULL AND ttft_sched_s <= 1.2 AND coalesce(tpot_s <= 0.15, true)"
)


@pytest.mark.parametrize("seed", range(12))
def test_columns_agree_with_the_parquet_recomputed_by_sql(tmp_path: Path, seed: int, make_document: Callable[..., dict[str, Any]]) -> None:
    requests, drive = random_requests(seed)
    columns = summarise(requests, drive, parse("ttft_p95<=1.2s, tpot_p95<=150ms"))
    folder = Store(tmp_path).keep(make_document(**columns), requests)
    file = folder / "requests.parquet"

    def ask(sql: str, **values: Any) -> Any:
        with duckdb.connect() as connection:
            return connection.execute(sql.format(file=file, **values)).fetchall()[0][0]

    stored = Store(tmp_path).runs().iloc[0]
    for metric, column in (("ttft", "ttft_s"), ("ttft_sched", "ttft_sched_s"), ("tpot", "tpot_s"), ("e2e_sched", "e2e_sched_s")):
        keep = "error_kind IS NOT NULL OR tpot_s IS NOT NULL" if metric == "tpot" else "true"
        for percent in (50, 90, 95, 99):
            expected = ask(PERCENTILE, column=column, keep=keep, percent=percent)
            found = stored[f"{metric}_p{percent}_s"]
            assert (expected is None and math.isnan(found)) or found == pytest.approx(expected, rel=1e-12), (metric, percent)
    assert stored["output_tps"] == pytest.approx(ask(OUTPUT_TPS))
    assert stored["total_tps"] == pytest.approx(ask(OUTPUT_TPS) + ask(INPUT_TPS))
    assert stored["goodput"] == pytest.approx(ask(GOODPUT))
    assert stored["n_cohort"] == ask("SELECT count(*) FROM '{file}' WHERE in_window")
    assert stored["n_errors"] == ask("SELECT count(*) FROM '{file}' WHERE in_window AND error_kind IS NOT NULL")
    assert stored["request_rate"] == ask("SELECT count(*) / 20.0 FROM '{file}' WHERE done_ns >= 5000000000 AND done_ns < 25000000000")
    assert stored["send_lag_p99_s"] == pytest.approx(ask(SEND_LAG))


SEND_LAG = """
WITH lags AS (SELECT (sent_ns - intended_ns) / 1e9 AS lag FROM '{file}' WHERE in_window)
SELECT list_sort(list(lag))[(count(*) * 99 + 99) // 100] FROM lags
"""


def test_every_column_is_one_of_the_schema(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    assert set(summarise([make_record(1)], make_drive())) <= {column.name for column in RUNS}


def test_tokens_count_by_their_own_arrival_not_by_their_request(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    before = make_record(
        1, intended_ns=-S, sent_ns=-S, arrival_offsets_us=(900_000, 1_000_000, 1_100_000), arrival_tokens=(1, 2, 4), in_window=False
    )
    after = make_record(2, intended_ns=0, sent_ns=0, arrival_offsets_us=(999_999, 1_000_000), arrival_tokens=(8, 16))
    columns = summarise([before, after], make_drive())  # the window is [0, 1 s)
    assert columns["output_tps"] == 2 + 4 + 8


def test_input_tokens_count_at_the_first_token(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    columns = summarise([make_record(1, ttft_ms=500), make_record(2, ttft_ms=1500)], make_drive())
    assert columns["total_tps"] == columns["output_tps"] + 128


def test_failed_requests_are_infinitely_late(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i, ttft_ms=100 + i) for i in range(90)] + [
        make_record(i, error_kind="reset", done_ns=None) for i in range(90, 100)
    ]
    columns = summarise(requests, make_drive())
    assert columns["ttft_p90_s"] == pytest.approx(0.189)  # the 90th of 100, and the last that was answered
    assert columns["ttft_p95_s"] is None and columns["ttft_p95_s_hi"] is None  # among those that failed
    assert columns["ttft_p95_s_lo"] == pytest.approx(0.189)  # a lower bound may still lie among the answered
    assert (columns["n_cohort"], columns["n_requests"], columns["n_errors"]) == (100, 90, 10)


def test_bounds_enclose_and_are_absent_where_n_is_too_small(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    columns = summarise([make_record(i, ttft_ms=100 + i) for i in range(100)], make_drive())
    assert columns["ttft_p50_s_lo"] < columns["ttft_p50_s"] < columns["ttft_p50_s_hi"]
    assert columns["ttft_p99_s_lo"] is not None and columns["ttft_p99_s_hi"] is None  # p99 needs 368 for a two-sided 95 %


def test_single_token_answers_have_no_tpot(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    columns = summarise([make_record(1, gaps_ms=()), make_record(2, gaps_ms=(30,))], make_drive())
    assert columns["n_tpot"] == 1 and columns["tpot_p99_s"] == pytest.approx(0.03)
    assert summarise([make_record(1, gaps_ms=())], make_drive())["tpot_p50_s"] is None


def test_goodput_needs_a_target(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(1), make_record(2, ttft_ms=900)]
    assert summarise(requests, make_drive())["goodput"] is None
    assert summarise(requests, make_drive(), parse("ttft_p95<=500ms"))["goodput"] == 1.0


def test_nothing_measured_is_null_not_zero(make_drive: MakeDrive, make_record: MakeRecord) -> None:
    empty = summarise([], make_drive(window_close_ns=0))
    assert empty["output_tps"] is None and empty["ttft_p50_s"] is None and empty["tokens_per_read"] is None
    uncounted = [make_record(1, output_tokens=None, arrival_offsets_us=(), arrival_tokens=(), token_count_source=None)]
    assert summarise(uncounted, make_drive())["output_tps"] is None
    assert summarise([make_record(1, prompt_tokens=None)], make_drive())["total_tps"] is None


def test_warm_up_and_cool_down_are_not_of_the_cohort(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(1), make_record(2, ttft_ms=5000, in_window=False, warmup=True), make_record(3, ttft_ms=7000, in_window=False)]
    columns = summarise(requests, make_drive())
    assert columns["n_cohort"] == 1 and columns["ttft_p99_s"] == pytest.approx(0.1)


def test_records_stay_as_they_were(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i) for i in range(3)]
    before = [dataclasses.asdict(r) for r in requests]
    summarise(requests, make_drive(), parse("chat"))
    assert [dataclasses.asdict(r) for r in requests] == before

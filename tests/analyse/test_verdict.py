from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from profiler.analyse.qos import parse
from profiler.analyse.verdict import judge
from profiler.records import DriveResult, RequestRecord, Validity

MakeRecord = Callable[..., RequestRecord]
MakeDrive = Callable[..., DriveResult]
SLOW_MS, FAST_MS = 900, 100


def cohort(make_record: MakeRecord, n: int, misses: int, **changes: Any) -> list[RequestRecord]:
    return [make_record(i, ttft_ms=SLOW_MS if i < misses else FAST_MS, **changes) for i in range(n)]


@pytest.mark.parametrize(
    ("n", "misses", "percentile", "result"),
    [
        (58, 0, "p95", "UNDECIDED"),
        (59, 0, "p95", "FITS"),
        (92, 1, "p95", "UNDECIDED"),
        (93, 1, "p95", "FITS"),
        (298, 0, "p99", "UNDECIDED"),
        (299, 0, "p99", "FITS"),
        (60, 3, "p95", "UNDECIDED"),
        (60, 7, "p95", "FAILS"),
        (60, 60, "p50", "FAILS"),
        (1, 1, "p95", "UNDECIDED"),
        (0, 0, "p95", "UNDECIDED"),
    ],
)
def test_exact_binomial_verdicts(make_record: MakeRecord, make_drive: MakeDrive, n: int, misses: int, percentile: str, result: str) -> None:
    verdict = judge(parse(f"ttft_{percentile}<=500ms"), cohort(make_record, n, misses), "concurrency", 4, make_drive())
    assert verdict.result == result
    (constraint,) = verdict.constraints
    assert (constraint.n, constraint.misses) == (n, misses)
    assert (constraint.decide == "") == (result != "UNDECIDED")


def test_failed_requests_are_misses_and_their_percentile_is_unknown(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i, error_kind="timeout", done_ns=None) if i < 20 else make_record(i) for i in range(100)]
    verdict = judge(parse("ttft_p95<=500ms, ttft_p50<=500ms, error_rate<=10%"), requests, "concurrency", 4, make_drive())
    assert [c.result for c in verdict.constraints] == ["FAILS", "FITS", "FAILS"]
    assert [c.misses for c in verdict.constraints] == [20, 20, 20]
    assert verdict.constraints[0].observed_s is None and verdict.constraints[0].margin is None
    assert verdict.constraints[1].observed_s == pytest.approx(0.101)
    assert verdict.result == "FAILS" and "20 of 100 miss" in verdict.reason


def test_only_the_cohort_counts(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = cohort(make_record, 60, 0) + cohort(make_record, 60, 60, in_window=False, warmup=True)
    assert judge(parse("ttft_p95<=500ms"), requests, "concurrency", 4, make_drive()).result == "FITS"


def test_joint_attainment_is_not_the_marginal_percentiles(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    # 4 % miss TTFT and another 4 % miss TPOT: each p95 holds, "95 % meet both" does not.
    slow_first = [make_record(i, ttft_ms=SLOW_MS) for i in range(40)]
    slow_after = [make_record(i, gaps_ms=(200, 200)) for i in range(40)]
    requests = slow_first + slow_after + [make_record(i) for i in range(920)]
    assert judge(parse("ttft_p95<=500ms, tpot_p95<=80ms"), requests, "concurrency", 4, make_drive()).result == "UNDECIDED"
    marginal = judge(parse("ttft_p94<=500ms, tpot_p94<=80ms"), requests, "concurrency", 4, make_drive())
    joint = judge(parse("94% of requests: ttft<=500ms, tpot<=80ms"), requests, "concurrency", 4, make_drive())
    assert (marginal.result, joint.result) == ("FITS", "FAILS")
    assert joint.constraints[0].misses == 80


def test_fits_needs_all_and_fails_needs_one_at_a_stricter_level(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = cohort(make_record, 60, 6)
    alone = judge(parse("ttft_p95<=500ms"), requests, "concurrency", 4, make_drive())
    assert alone.result == "UNDECIDED" or alone.constraints[0].miss_lo > 0.05
    many = judge(parse("ttft_p95<=500ms, tpot_p95<=80ms, e2e_p95<=10s"), requests, "concurrency", 4, make_drive())
    assert many.constraints[0].miss_lo < alone.constraints[0].miss_lo  # alpha / 3
    assert many.constraints[1].miss_hi == pytest.approx(1 - 0.05 ** (1 / 60))  # alpha
    assert [c.result for c in many.constraints][1:] == ["FITS", "FITS"]
    assert many.result != "FITS"


@pytest.mark.parametrize(("validity", "result"), [("valid", "FITS"), ("suspect", "UNDECIDED"), ("invalid", "UNDECIDED")])
def test_what_a_run_may_prove(make_record: MakeRecord, make_drive: MakeDrive, validity: Validity, result: str) -> None:
    verdict = judge(parse("ttft_p95<=500ms"), cohort(make_record, 60, 0), "concurrency", 4, make_drive(), validity)
    assert verdict.result == result
    if validity != "valid":
        assert validity in verdict.reason


def test_an_invalid_run_does_not_fail_either(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = cohort(make_record, 60, 60)
    assert judge(parse("ttft_p95<=500ms"), requests, "concurrency", 4, make_drive(), "invalid").result == "UNDECIDED"
    suspect = judge(parse("ttft_p95<=500ms"), requests, "concurrency", 4, make_drive(), "suspect")
    assert suspect.result == "FAILS" and "suspect" in suspect.reason


def test_it_says_what_would_decide(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    verdict = judge(parse("ttft_p95<=500ms"), cohort(make_record, 40, 0), "concurrency", 4, make_drive())
    assert verdict.constraints[0].needed_n == 59
    assert "about 19 more requests (59 in all) prove FITS if none misses" in verdict.reason
    close = judge(parse("ttft_p95<=500ms"), cohort(make_record, 100, 5), "concurrency", 4, make_drive())
    assert close.constraints[0].needed_n is None and "too close" in close.reason
    failing = judge(parse("ttft_p95<=500ms"), cohort(make_record, 20, 3), "concurrency", 4, make_drive())
    assert "prove FAILS" in failing.reason


def test_a_verdict_names_load_loop_and_start(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = cohort(make_record, 60, 0)
    closed = judge(parse("ttft_p95<=500ms"), requests, "concurrency", 8, make_drive())
    assert closed.load == "8 concurrent users, closed loop"
    assert any("cannot prove a fit at a Poisson rate" in note for note in closed.notes)
    opened = judge(parse("ttft_p95<=500ms"), requests, "rate", 0.5, make_drive())
    assert opened.load == "0.5 requests/s, open loop (Poisson)"
    for verdict in (closed, opened):
        assert verdict.starts == 1 and any("one engine start" in note for note in verdict.notes)


def test_margin_and_bounds_of_a_percentile(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i, ttft_ms=i + 1) for i in range(100)]
    (constraint,) = judge(parse("ttft_p95<=192ms"), requests, "concurrency", 4, make_drive()).constraints
    assert constraint.observed_s == pytest.approx(0.096)  # the 95th of 2..101 ms
    assert constraint.margin == pytest.approx(0.5)
    assert constraint.observed_lo_s is not None and constraint.observed_hi_s is not None
    assert constraint.observed_lo_s < 0.096 < constraint.observed_hi_s


def test_strict_error_rate(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = cohort(make_record, 299, 0)
    assert judge(parse("error_rate<1%"), requests, "concurrency", 4, make_drive()).result == "FITS"


def test_to_dict_is_json(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i, error_kind="reset", done_ns=None) for i in range(30)]
    for kind in ("rate", "concurrency"):
        verdict = judge(parse("ttft_p95<=1s; 99% of requests: tpot<=1s; error_rate<=1%"), requests, kind, 1, make_drive())  # type: ignore[arg-type]
        text = json.dumps(verdict.to_dict(), allow_nan=False)
        assert json.loads(text)["constraints"][2]["text"] == "error_rate<=1%"


def test_a_growing_backlog_is_no_fit(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    drive = make_drive(window_close_ns=60 * 10**9, ended_ns=100 * 10**9)
    # Two servers of 1 s each and 3 requests/s: every answer takes as long as the one before, and half a request more waits each second.
    requests = [make_record(i, intended_ms=i * 1000 // 3, done_ns=(1 + i // 2) * 10**9, ttft_s=0.1, ttft_sched_s=0.1) for i in range(180)]
    verdict = judge(parse("ttft_p95<=500ms"), requests, "rate", 3, drive)
    assert verdict.result == "UNDECIDED" and "backlog grows" in verdict.reason
    assert judge(parse("ttft_p95<=500ms"), requests, "concurrency", 2, drive).result == "FITS"

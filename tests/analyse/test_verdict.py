from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from profiler.analyse.backlog import CRITICAL_S, PARTS, backlog, mann_kendall_s
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


def steady(make_record: MakeRecord, drive: DriveResult, rate: float, service_s: float, servers: int, seed: int) -> list[RequestRecord]:
    """An M/D/c queue walked through by hand."""
    draw = random.Random(seed)
    free = [0.0] * servers
    requests, t = [], 0.0
    end_s = drive.window_close_ns / 1e9
    while (t := t + draw.expovariate(rate)) < end_s:
        server = min(range(servers), key=lambda k: free[k])
        free[server] = max(free[server], t) + service_s
        intended = int(t * 1e9)
        requests.append(
            make_record(len(requests), intended_ns=intended, sent_ns=intended, done_ns=int(free[server] * 1e9), ttft_sched_s=0.1)
        )
    return requests


def test_backlog_grows_over_capacity_and_not_below(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    drive = make_drive(window_close_ns=60 * 10**9, ended_ns=100 * 10**9)
    grows = {rate: sum(_grows(make_record, drive, rate, seed) for seed in range(20)) for rate in (1.0, 2.4, 3.0)}
    assert grows[3.0] == 20  # 1.5 times the capacity of two servers at 1 s
    assert grows[2.4] >= 15  # 1.2 times
    assert grows[1.0] <= 2  # half the capacity


def _grows(make_record: MakeRecord, drive: DriveResult, rate: float, seed: int) -> bool:
    found = backlog(steady(make_record, drive, rate, 1.0, 2, seed), drive)
    assert found is not None
    return found.grows


def test_a_growing_backlog_is_no_fit(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    drive = make_drive(window_close_ns=60 * 10**9, ended_ns=100 * 10**9)
    requests = steady(make_record, drive, 2.4, 1.0, 2, 1)
    verdict = judge(parse("ttft_p95<=500ms"), requests, "rate", 2.4, drive)
    assert verdict.result == "UNDECIDED" and "backlog grows" in verdict.reason
    assert judge(parse("ttft_p95<=500ms"), requests, "concurrency", 2, drive).result == "FITS"


def test_refused_requests_are_not_backlog_and_hung_ones_are(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    drive = make_drive()
    refused = [make_record(i, intended_ms=10 * i, error_kind="connect", done_ns=None) for i in range(100)]
    hung = [make_record(i, intended_ms=10 * i, error_kind="timeout", done_ns=None) for i in range(100)]
    nothing, growing = backlog(refused, drive), backlog(hung, drive)
    assert nothing is not None and growing is not None
    assert (nothing.last, nothing.grows) == (0, False)
    assert growing.grows and growing.in_flight[-1] == pytest.approx(95, abs=1)


def test_mean_in_flight_is_a_time_average(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    drive = make_drive(window_close_ns=10 * 10**9)
    found = backlog([make_record(1, intended_ns=0, done_ns=5 * 10**9), make_record(2, intended_ns=-(10**9), done_ns=5 * 10**8)], drive)
    assert found is not None and found.in_flight == pytest.approx((1.5, 1, 1, 1, 1, 0, 0, 0, 0, 0))
    assert backlog([], make_drive(window_close_ns=0)) is None


def test_critical_value_of_the_trend_test() -> None:
    """S = pairs - 2 * inversions; the number of permutations of ten with k inversions is the coefficient of a product of polynomials."""
    counts = [1]
    for size in range(2, PARTS + 1):
        counts = [sum(counts[k - j] for j in range(size) if 0 <= k - j < len(counts)) for k in range(len(counts) + size - 1)]
    pairs = math.comb(PARTS, 2)

    def reached(s: int) -> float:
        return sum(count for k, count in enumerate(counts) if pairs - 2 * k >= s) / math.factorial(PARTS)

    assert reached(CRITICAL_S) <= 0.05 < reached(CRITICAL_S - 2)
    assert mann_kendall_s(range(PARTS)) == pairs
    brute = [mann_kendall_s(p) for p in itertools.permutations(range(4))]
    assert sum(brute) == 0 and max(brute) == 6

"""Block-bootstrap intervals against series of known quantiles; never tighter than what independence would allow."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse.bootstrap import memory, quantile_bounds, share_bounds
from profiler.analyse.bounds import Bounds
from profiler.analyse.latency import summarise
from profiler.analyse.percentiles import order_statistic, share_lower, share_upper
from profiler.analyse.qos import parse
from profiler.analyse.verdict import judge
from profiler.records import DriveResult, RequestRecord

MakeRecord = Callable[..., RequestRecord]
MakeDrive = Callable[..., DriveResult]


def autoregressive(n: int, correlation: float, draw: np.random.Generator) -> list[float]:
    noise = draw.standard_normal(n + 100) * math.sqrt(1 - correlation**2)
    x, values = 0.0, []
    for e in noise:
        x = correlation * x + e
        values.append(x)
    return values[100:]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_intervals_hold_on_correlated_series(correlation: float) -> None:
    """Two-sided 95 % for the median (0 by construction), one-sided 95 % bounds for the share above the p80."""
    draw, runs = np.random.default_rng(5), 100
    missed = above = below = 0
    for _ in range(runs):
        values = autoregressive(300, correlation, draw)
        lo, hi = quantile_bounds(values, 0.5, 0.025, 0.025)
        missed += (lo is not None and lo > 0) or (hi is not None and hi < 0)
        lower, upper = share_bounds([v > 0.8416 for v in values], 0.05, 0.05)
        above, below = above + (lower > 0.2), below + (upper < 0.2)
    assert missed <= 12 and above <= 12 and below <= 12  # 5 % and three standard deviations


def test_independent_bounds_would_not_hold_there() -> None:
    draw = np.random.default_rng(5)
    series = [autoregressive(300, 0.8, draw) for _ in range(100)]
    counts = [sum(v > 0.8416 for v in values) for values in series]
    assert sum(share_lower(c, 300) > 0.2 or share_upper(c, 300) < 0.2 for c in counts) > 25


def test_memory_of_a_series() -> None:
    draw = np.random.default_rng(1)
    short, long = memory(autoregressive(1000, 0.0, draw)), memory(autoregressive(1000, 0.9, draw))
    assert short.block <= 3 and short.independent > 700
    assert long.block > 10 and long.independent < 200
    assert memory([1.0] * 50).block == 1


@given(st.lists(st.floats(0, 10) | st.just(math.inf), max_size=60), st.sampled_from([0.5, 0.9, 0.95]))
def test_bounds_enclose_the_percentile_and_are_repeatable(values: list[float], p: float) -> None:
    lo, hi = quantile_bounds(values, p, 0.025, 0.025)
    middle = order_statistic(values, p)
    assert (lo is None or middle is None or lo <= middle) and (hi is None or middle is None or hi >= middle)
    assert (lo, hi) == quantile_bounds(values, p, 0.025, 0.025)


@given(st.lists(st.booleans(), min_size=1, max_size=120))
def test_a_share_is_never_surer_than_independence_allows(misses: list[bool]) -> None:
    lower, upper = share_bounds(misses, 0.05, 0.05)
    count, n = sum(misses), len(misses)
    assert 0 <= lower <= count / n <= upper <= 1
    assert upper >= share_upper(count, n) - 1e-9 and lower <= share_lower(count, n) + 1e-9


def test_no_miss_in_a_trace_is_no_proof_below_59(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    target = parse("ttft_p95<=500ms")
    results = []
    for n in (58, 59):
        requests = [make_record(i, intended_ms=i) for i in range(n)]
        results.append(judge(target, requests, "rate", 1, make_drive(), arrivals="trace x", bounds=Bounds(blocks=True)).result)
    assert results == ["UNDECIDED", "FITS"]


def test_a_trace_is_judged_whole(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i, intended_ms=10 * i, ttft_ms=100 + 5 * i) for i in range(100)]  # it only gets slower
    verdict = judge(parse("ttft_p50<=10s"), requests, "rate", 5, make_drive(), arrivals="trace azure x0.1", bounds=Bounds(blocks=True))
    assert verdict.backlog is None and verdict.load == "5 requests/s, open loop (trace azure x0.1)"
    assert any("judged whole" in note for note in verdict.notes) and any("blocks" in note for note in verdict.notes)
    json.dumps(verdict.to_dict(), allow_nan=False)
    exact, blocks = summarise(requests, make_drive()), summarise(requests, make_drive(), bounds=Bounds(blocks=True))
    assert (exact["bounds_method"], blocks["bounds_method"]) == ("order-statistic-binomial-95", "moving-block-bootstrap-95")
    assert blocks["ttft_p50_s"] == exact["ttft_p50_s"]
    assert blocks["ttft_p50_s_lo"] is None or blocks["ttft_p50_s_lo"] < exact["ttft_p50_s_lo"]

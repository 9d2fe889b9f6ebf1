"""The backlog test keeps its stated confidence on queues below capacity and sees those above it; the queues share no code with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from queues import CAPACITY, NS, batching_server, parallel_servers

from profiler.analyse.backlog import PARTS, T_CRITICAL, backlog, is_constant
from profiler.records import DriveResult, RequestRecord

MakeRecord = Callable[..., RequestRecord]
MakeDrive = Callable[..., DriveResult]
RUNS = 100


def grown(make_drive: MakeDrive, rate: float, warm_s: float, window_s: float, queue: Callable[[float, int], list[RequestRecord]]) -> int:
    """In how many of RUNS the backlog is said to grow."""
    end_s = warm_s + window_s
    drive = make_drive(window_open_ns=int(warm_s * NS), window_close_ns=int(end_s * NS), ended_ns=int((end_s + 60) * NS))
    found = [backlog(queue(end_s, seed), drive, rate) for seed in range(RUNS)]
    return sum(1 for one in found if one is not None and one.grows)


# 5 % of 100 runs, and three standard deviations of the binomial: a true 5 % stays below 12 in 99.6 % of cases.
MOST_FALSE = 11


@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("requests", [60, 300])
def test_a_batching_server_below_capacity_is_rarely_called_growing(make_drive: MakeDrive, utilisation: float, requests: int) -> None:
    rate = utilisation * CAPACITY
    assert grown(make_drive, rate, 3.0, requests / rate, lambda end_s, seed: batching_server(end_s, seed, rate=rate)) <= MOST_FALSE


@pytest.mark.parametrize("utilisation", [0.8, 0.95])
@pytest.mark.parametrize("fixed", [False, True])
def test_servers_in_parallel_below_capacity(make_drive: MakeDrive, utilisation: float, fixed: bool) -> None:
    rate = utilisation * 4
    count = grown(make_drive, rate, 3.0, 200 / rate, lambda end_s, seed: parallel_servers(rate, 4, 1.0, end_s, seed, fixed))
    assert count <= MOST_FALSE


def test_bursts_below_capacity(make_drive: MakeDrive) -> None:
    rate = 0.7 * CAPACITY  # gamma arrivals with a coefficient of variation of 2
    assert grown(make_drive, rate, 3.0, 300 / rate, lambda end_s, seed: batching_server(end_s, seed, rate=rate, cv2=4.0)) <= MOST_FALSE


@pytest.mark.parametrize(("utilisation", "requests", "at_least"), [(1.1, 300, 85), (1.1, 1000, 97), (1.3, 120, 75)])
def test_a_batching_server_above_capacity_is_called_growing(
    make_drive: MakeDrive, utilisation: float, requests: int, at_least: int
) -> None:
    rate = utilisation * CAPACITY
    assert grown(make_drive, rate, 3.0, requests / rate, lambda end_s, seed: batching_server(end_s, seed, rate=rate)) >= at_least


def test_the_bounds_of_the_growth_hold_above_capacity(make_drive: MakeDrive) -> None:
    rate, end_s = 1.3 * CAPACITY, 43.0
    drive = make_drive(window_open_ns=3 * NS, window_close_ns=int(end_s * NS), ended_ns=int((end_s + 60) * NS))
    found = [backlog(batching_server(end_s, seed, rate=rate), drive, rate) for seed in range(40)]
    held = sum(1 for one in found if one is not None and one.growth_lo <= 0.3 * CAPACITY <= one.growth_hi)
    assert held >= 34  # 95 % of 40 less three standard deviations


def test_refused_requests_are_not_backlog_and_hung_ones_are(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    drive = make_drive()
    refused = [make_record(i, intended_ms=10 * i, error_kind="connect", done_ns=None) for i in range(100)]
    hung = [make_record(i, intended_ms=10 * i, error_kind="timeout", done_ns=None) for i in range(100)]
    nothing, growing = backlog(refused, drive, 100), backlog(hung, drive, 100)
    assert nothing is not None and growing is not None
    assert (nothing.last, nothing.grows) == (0, False)
    assert growing.grows and growing.in_flight[-1] == pytest.approx(95, abs=1)
    assert growing.growth == pytest.approx(100)


def test_mean_in_flight_is_a_time_average(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    drive = make_drive(window_close_ns=10 * NS)
    found = backlog([make_record(1, intended_ns=0, done_ns=5 * NS), make_record(2, intended_ns=-NS, done_ns=NS // 2)], drive, 0.1)
    assert found is not None and found.in_flight == pytest.approx((1.5, 1, 1, 1, 1, 0, 0, 0, 0, 0))
    assert backlog([], make_drive(window_close_ns=0), 1) is None


def test_a_chance_shortfall_without_more_requests_in_flight_is_no_growth(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    # 50 of the 100 requests that the rate promises came, and each left at once: nothing piles up.
    requests = [make_record(i, intended_ns=i * NS // 50, done_ns=i * NS // 50 + 1000) for i in range(50)]
    found = backlog(requests, make_drive(), 100)
    assert found is not None and found.growth == pytest.approx(50) and not found.grows


def test_critical_value() -> None:
    from scipy.stats import t

    assert pytest.approx(float(t.ppf(0.975, PARTS - 1)), abs=1e-3) == T_CRITICAL


def test_loads_that_change_by_design() -> None:
    assert [is_constant(a) for a in ("closed", "poisson", "gamma cv=2", "ramp 1..4", "step", "trace azure x0.1")] == [True] * 3 + [
        False
    ] * 3

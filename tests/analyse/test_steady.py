"""MSER-5 against its definition, the drift test against simulated series and queues that share no code with it, the cut, whole runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queues import CAPACITY, NS, batching_server

from profiler.analyse import steady
from profiler.analyse.steady import BATCHES, P_DRIFT, Steadiness, contrast, cut, drift, examine, mser
from profiler.records import DriveResult, RequestRecord

MakeRecord = Callable[..., RequestRecord]
MakeDrive = Callable[..., DriveResult]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60), st.integers(0, 29))
def test_mser_minimises_the_standard_error_of_what_is_left(values: list[float], longest: int) -> None:
    longest = min(longest, len(values) // 2)
    found = mser(np.array(values), longest)

    def error(first: int) -> float:
        rest = values[first:]
        mean = sum(rest) / len(rest)
        return sum((x - mean) ** 2 for x in rest) / len(rest) ** 2

    assert 0 <= found <= longest
    assert error(found) <= min(error(k) for k in range(longest + 1)) + 1e-6


def autoregressive(runs: int, n: int, correlation: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    noise = draw.standard_normal((runs, n + 200))
    series, x = np.zeros((runs, n)), np.zeros(runs)
    for i in range(n + 200):
        x = correlation * x + noise[:, i]
        if i >= 200:
            series[:, i - 200] = x
    return series


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5, 0.7])
def test_the_drift_test_keeps_its_size_on_correlated_batches(correlation: float) -> None:
    """Stated: two series and two contrasts together err in at most 5 %, up to a correlation of 0.7. Without the size of a change that matters."""
    runs = 1000
    pairs = autoregressive(2 * runs, BATCHES, correlation, 7).reshape(runs, 2, BATCHES) * 0.01 + 100
    thirds = (BATCHES // 3, BATCHES - BATCHES // 3)
    wrong = sum(1 for pair in pairs if any(contrast(x, borders)[0] < P_DRIFT for x in pair for borders in ((BATCHES // 2,), thirds)))
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_a_plain_comparison_of_means_would_not_keep_it() -> None:
    """Why the correction is there: Welch's test of the same two halves, at the same level, on batches that correlate by 0.7."""
    from scipy.stats import ttest_ind

    series = autoregressive(1000, BATCHES, 0.7, 7)
    p = ttest_ind(series[:, : BATCHES // 2], series[:, BATCHES // 2 :], axis=1, equal_var=False).pvalue
    corrected = sum(contrast(x + 1000, (BATCHES // 2,))[0] < P_DRIFT for x in series)
    assert (p < P_DRIFT).sum() > 4 * corrected


@pytest.mark.parametrize(
    ("shape", "noise"),
    [
        ("step", lambda t: (t >= 0.5) * 0.3),
        ("late step", lambda t: (t >= 0.7) * 0.3),
        ("ramp", lambda t: t * 0.3),
        ("fall", lambda t: t * -0.3),
    ],
)
def test_drifts_are_seen(shape: str, noise: Callable[[np.ndarray], np.ndarray]) -> None:
    draw = np.random.default_rng(3)
    level = 100 * (1 + noise(np.arange(BATCHES) / BATCHES))
    seen = sum(drift(level + draw.normal(0, 7, BATCHES)).unsteady for _ in range(100))
    assert seen >= 85, shape


def test_a_drift_that_is_sure_but_small_does_not_matter() -> None:
    found = drift(np.repeat([100.0, 101.0], BATCHES // 2) + np.random.default_rng(1).normal(0, 0.01, BATCHES))
    assert found.p < 1e-6 and not found.unsteady and found.change == pytest.approx(0.01, abs=0.001)


def test_constant_series_are_steady() -> None:
    assert drift(np.full(BATCHES, 16.0)) == drift(np.zeros(BATCHES)) == steady.Drift(1.0, 0.0, False)
    assert drift(np.repeat([8.0, 16.0], BATCHES // 2)).unsteady


def run(make_drive: MakeDrive, requests: list[RequestRecord], warm_s: float, window_s: float) -> tuple[list[RequestRecord], DriveResult]:
    end = int((warm_s + window_s) * NS)
    drive = make_drive(window_open_ns=int(warm_s * NS), window_close_ns=end, ended_ns=end + 60 * NS)
    inside = [drive.window_open_ns <= r.intended_ns < end for r in requests]
    before = [r.intended_ns < drive.window_open_ns for r in requests]
    return [replace(r, in_window=i, warmup=b) for r, i, b in zip(requests, inside, before, strict=True)], drive


@pytest.mark.parametrize("users", [1, 4, 16])
def test_a_closed_loop_is_steady(make_drive: MakeDrive, users: int) -> None:
    for seed in range(10):
        found = examine(*run(make_drive, batching_server(12.0, seed, users=users), 2.0, 10.0), "concurrency", users, "closed")
        assert (found.stability, found.reason) == ("steady", "")
        assert found.transient_end_s is not None and found.drift_p is not None


@pytest.mark.parametrize("utilisation", [0.3, 0.5, 0.8])
def test_an_open_loop_below_capacity_is_steady(make_drive: MakeDrive, utilisation: float) -> None:
    rate = utilisation * CAPACITY
    found = [
        examine(*run(make_drive, batching_server(33.0, s, rate=rate), 3.0, 30.0), "rate", rate, "poisson").stability for s in range(60)
    ]
    assert found.count("steady") >= 60 - 8  # three tests share 5 % + 5 %, of which 6 runs are the mean; queues at 0.8 are nearer to none


def test_an_open_loop_above_capacity_is_unstable(make_drive: MakeDrive) -> None:
    found = examine(*run(make_drive, batching_server(33.0, 1, rate=1.2 * CAPACITY), 3.0, 30.0), "rate", 1.2 * CAPACITY, "poisson")
    assert found.stability == "unstable" and "backlog grows (95% confidence)" in found.reason
    assert found.backlog is not None and found.backlog.growth > 0


def test_a_transient_in_the_window_is_found_and_cut(make_drive: MakeDrive) -> None:
    requests, drive = run(make_drive, batching_server(32.0, 1, users=8, slow_until_s=6.0), 2.0, 30.0)
    found = examine(requests, drive, "concurrency", 8, "closed")
    assert found.stability == "unsteady" and "settled only" in found.reason
    assert found.transient_end_s == pytest.approx(4.0, abs=1.6)  # 6 s less 2 s of warm-up, in batches of 0.75 s
    shorter = cut(requests, drive, found)
    assert shorter is not None
    kept, opened = shorter
    assert opened.window_open_ns == drive.window_open_ns + round(found.transient_end_s * NS)
    for r in kept:
        assert r.in_window == (opened.window_open_ns <= r.intended_ns < opened.window_close_ns)
        assert r.warmup == (r.intended_ns < opened.window_open_ns)
    assert opened.client_cpu_s / drive.client_cpu_s == pytest.approx(1 - found.transient_end_s / 30)
    assert examine(kept, opened, "concurrency", 8, "closed").stability == "steady"


def test_too_little_left_is_not_cut(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i, intended_ns=i * NS) for i in range(30)]
    drive = make_drive(window_close_ns=30 * NS)
    assert cut(requests, drive, Steadiness("unsteady", "", 11.0, True)) is None  # 19 would remain
    assert cut(requests, drive, Steadiness("unsteady", "", 10.0, True)) is not None
    assert cut(requests, drive, Steadiness("steady", "", 10.0, False)) is None


def test_a_machine_that_slows_down_never_becomes_steady(make_drive: MakeDrive) -> None:
    first, second = batching_server(17.0, 1, users=8), batching_server(17.0, 2, users=8, speed=0.7)
    moved = [
        replace(r, **{name: getattr(r, name) + 17 * NS for name in ("intended_ns", "sent_ns", "done_ns") if getattr(r, name)})
        for r in second
    ]
    found = examine(*run(make_drive, first + moved, 2.0, 30.0), "concurrency", 8, "closed")
    assert found.stability == "unsteady" and "never became steady: output tokens/s" in found.reason


@pytest.mark.parametrize("arrivals", ["trace azure-conv x0.1", "ramp 1..4/s", "step 1,3/s"])
def test_loads_that_change_by_design_are_not_judged(make_drive: MakeDrive, arrivals: str) -> None:
    found = examine(*run(make_drive, batching_server(33.0, 1, rate=1.2 * CAPACITY), 3.0, 30.0), "rate", CAPACITY, arrivals)
    assert found.stability == "not judged" and arrivals in found.reason and not found.transient_matters


def test_a_short_window_is_not_judged(make_drive: MakeDrive) -> None:
    found = examine(*run(make_drive, batching_server(3.0, 1, users=2), 1.5, 1.5), "concurrency", 2, "closed")
    assert found.stability == "not judged" and "too short" in found.reason

"""Variance components against simulated starts, and what is said of too few of them."""

from __future__ import annotations

import random
from statistics import fmean
from typing import Any

import pytest

from profiler.analyse.spread import METRICS, by_cell, spread


def simulated(draw: random.Random, sizes: list[int], between: float, within: float) -> dict[str, list[float]]:
    starts = {}
    for number, size in enumerate(sizes):
        level = 100 + draw.gauss(0, between)
        starts[f"s{number}"] = [level + draw.gauss(0, within) for _ in range(size)]
    return starts


@pytest.mark.parametrize(("between", "within"), [(5.0, 2.0), (2.0, 5.0)])
def test_components_are_right_on_average_for_starts_of_different_sizes(between: float, within: float) -> None:
    draw = random.Random(1)
    found = [spread(simulated(draw, [2, 3, 4, 8], between, within)) for _ in range(2000)]
    ours = [(one.cv_within * one.mean, one.cv_between * one.mean) for one in found if one and one.cv_within and one.cv_between is not None]
    assert len(ours) == 2000
    assert fmean(w**2 for w, _ in ours) == pytest.approx(within**2, rel=0.05)
    # Reported at least 0, which lifts the mean a little where the component is small.
    assert between**2 * 0.93 <= fmean(b**2 for _, b in ours) <= between**2 * 1.45


def test_the_interval_over_starts_holds_and_that_of_pooled_runs_would_not() -> None:
    draw = random.Random(2)
    held = pooled = 0
    for _ in range(1000):
        starts = simulated(draw, [4] * 5, 3.0, 1.0)
        one = spread(starts)
        assert one is not None and one.lo is not None and one.hi is not None
        held += one.lo <= 100 <= one.hi
        values = [value for group in starts.values() for value in group]
        error = (sum((v - fmean(values)) ** 2 for v in values) / 19 / 20) ** 0.5
        pooled += abs(fmean(values) - 100) <= 2.09 * error
    assert 930 <= held <= 970 and pooled < 800


def test_a_worked_example() -> None:
    one = spread({"a": [10.0, 12.0], "b": [14.0, 16.0], "c": [12.0]})
    assert one is not None
    assert (one.runs, one.starts, one.lowest, one.highest, one.mean) == (5, 3, 10.0, 16.0, pytest.approx(38 / 3))
    assert one.cv_within == pytest.approx(2**0.5 / one.mean)  # (1 + 1 + 1 + 1) / 2 degrees of freedom
    # Between: mean 12.8; (2*1.8^2 + 2*2.2^2 + 0.8^2) / 2 = 8.4; n0 = (5 - 9/5) / 2 = 1.6; (8.4 - 2) / 1.6 = 4.
    assert one.cv_between == pytest.approx(2 / one.mean)


def test_what_too_few_starts_cannot_say() -> None:
    single = spread({"a": [10.0, 11.0, 12.0]})
    assert single is not None and single.cv_within is not None
    assert single.cv_between is single.lo is single.hi is None
    assert single.note == "one start: the spread between starts was not measured"
    mixed = spread({"a": [10.0], "b": [11.0], "c": [12.0]})
    assert mixed is not None and mixed.cv_within is None and mixed.cv_between == pytest.approx(1 / 11)
    assert "cannot be told apart" in mixed.note and mixed.lo is not None and mixed.hi is not None
    assert mixed.hi - mixed.mean == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert spread({}) is None and spread({"a": []}) is None


def row(**changes: Any) -> dict[str, Any]:
    columns = {"cell_id": "c", "environment_hash": "e", "start_id": "s0", "status": "done", "validity": "valid", "qos_result": "FITS"}
    names = {"backend": "int8", "workload": "chat", "load_kind": "concurrency", "load": 4.0}
    return columns | names | dict.fromkeys(METRICS, 1.0) | changes


def test_rows_of_a_table() -> None:
    runs = [
        row(start_id="s0", output_tps=100.0),
        row(start_id="s1", output_tps=110.0),
        row(start_id="s1", output_tps=112.0, ttft_sched_p95_s=None),
        row(start_id="s2", output_tps=0.0, validity="invalid"),
        row(start_id="s3", status="failed", output_tps=None),
        row(environment_hash="another machine", output_tps=1000.0),
        row(cell_id="run once"),
    ]
    (cell,) = by_cell(runs)
    assert (cell.label, cell.runs, cell.starts, cell.set_aside) == ("int8 · chat · 4 users", 3, 2, 2)
    tps, _, p95, _ = cell.metrics
    assert (tps.metric, tps.lowest, tps.highest, tps.mean) == ("output_tps", 100.0, 112.0, 105.5)
    assert (p95.metric, p95.runs) == ("ttft_sched_p95_s", 2)

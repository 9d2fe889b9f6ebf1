"""What BASE and NEW may be: folders, sweeps, runs, choices by column; and that an arm holds the cohort's latencies as they were stored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler.analyse.compare import compare
from profiler.analyse.compare_source import arm
from profiler.errors import ProfilerError
from profiler.records import RequestRecord
from profiler.store.store import Store


@pytest.fixture
def results(tmp_path: Path, make_record: Callable[..., RequestRecord], make_document: Callable[..., dict[str, Any]]) -> Path:
    """Sweep one: cells c1, c2 with version 1; sweep two: c1 again with version 2, and c2 was there already."""
    store = Store(tmp_path / "results")

    def keep(day: int, sweep: str, cell: str, version: str, load: float) -> None:
        requests = [make_record(k, intended_ms=k, ttft_ms=100 + 10 * k) for k in range(4)]
        requests.append(replace(make_record(4, intended_ms=4, gaps_ms=()), request_id="single"))
        requests.append(replace(make_record(5, intended_ms=5), error_kind="timeout", done_ns=None, request_id="failed"))
        requests.append(replace(make_record(6, intended_ms=6, ttft_ms=9000), in_window=False, request_id="cool-down"))
        columns = {
            "engine_version": version,
            "load": load,
            "workload": "chat",
            "started_at": f"2026-11-{day}T01:00:00+00:00",
            "sweep_name": sweep,
        }
        run = make_document(sweep_id=f"{sweep}-id", cell_id=cell, start_id=f"{sweep}-{cell}-{day}", provenance_class="measured", **columns)
        run["provenance"]["cells"] = ["c1", "c2"]
        store.keep(run, requests)

    keep(20, "one", "c1", "1", 4.0)
    keep(20, "one", "c2", "1", 8.0)
    keep(21, "two", "c1", "2", 4.0)
    return tmp_path / "results"


def versions(text: str, results: Path) -> list[tuple[str, float]]:
    return sorted((run.row["engine_version"], run.row["load"]) for run in arm(text, results).runs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{0}", [("1", 4), ("1", 8), ("2", 4)]),
        ("{0}:engine_version=2", [("2", 4)]),
        ("{0}:engine_version=1,load=8", [("1", 8)]),
        ("engine_version=1", [("1", 4), ("1", 8)]),
        ("sweep:one", [("1", 4), ("1", 8)]),
        ("{0}:sweep=two-i", [("1", 8), ("2", 4)]),  # its second cell had been measured: the one that it measured itself is its own alone
        ("sweep:latest", [("1", 8), ("2", 4)]),
        ("sweep:latest~1", [("1", 4), ("1", 8)]),
        ("one", [("1", 4), ("1", 8)]),
        ("{0}:since=2026-11-21", [("2", 4)]),
        ("{0}:before=2026-11-20T02:00", [("1", 4), ("1", 8)]),
    ],
)
def test_sources(results: Path, text: str, expected: list[tuple[str, float]]) -> None:
    assert versions(text.format(results), results) == expected


def test_an_arm_holds_the_cohort_in_order(results: Path) -> None:
    """Failed requests are +∞, an answer of one token has no TPOT, what is not of the cohort is not there."""
    run = arm("engine_version=1,load=4", results).runs[0]
    assert run.values["ttft"].tolist() == pytest.approx([0.101, 0.111, 0.121, 0.131, 0.101, math.inf])
    assert run.values["tpot"].tolist() == pytest.approx([0.02] * 4 + [math.inf])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere/", "no such results folder"),
        ("sweep:nine", "no sweep called 'nine'"),
        ("run:2", "3 runs begin so"),
        ("run:x", "no run called 'x'"),
        ("load=many", "no run with load 'many'"),
        ("engine=vllm", "there are: none with a value"),
        ("colour=red", "no column of runs called 'colour'"),
        ("load=", "chooses nothing"),
        ("before=2000-01-01", "no run before 2000-01-01"),
    ],
)
def test_what_is_not_there_is_named(results: Path, text: str, says: str) -> None:
    with pytest.raises(ProfilerError) as caught:
        arm(text, results)
    assert says in f"{caught.value.message} {caught.value.hint}" and caught.value.hint


def test_versions_of_one_folder_are_compared_where_both_have_the_cell(results: Path) -> None:
    found = compare(arm("engine_version=1", results), arm("engine_version=2", results), ["ttft_p50 > +5%"])
    (one,) = found.compared
    assert found.only_base == ("null · chat · 8 users",) and "engine version: 1 → 2" in found.changed
    assert one.ratio == pytest.approx(1) and "one start" in one.reason and found.exit_code == 5

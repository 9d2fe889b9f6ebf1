"""Loads that are offered at once share a window, and each is measured beside the other from its first request to its last."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scripted import answer, bodies, meta, plan, serving

from profiler.errors import LoadError
from profiler.records import DriveResult, Endpoint, LoadPlan
from profiler.run.clients import DriveProgress
from profiler.run.decode import decode
from profiler.run.drive import drive
from profiler.run.together import LEAD_NS, Beside, SharedLeader, Together

S = 1_000_000_000
MS = 1_000_000


def test_two_loads_have_one_window(tmp_path: Path) -> None:
    shared = Together(2)
    offsets = tuple(range(0, 20_000 * MS, 25 * MS))
    loads = [
        plan(load=2, warmup_requests=2, cohort_min=40, window_min_s=0.5),
        plan(kind="rate", load=40, offsets_ns=offsets, warmup_s=0.1, cohort_min=5, window_min_s=0.5),
    ]

    def one(number: int, endpoint: Endpoint) -> DriveResult:
        folder = tmp_path / str(number)
        folder.mkdir()
        beside = Beside(shared, number)
        beside.ready()
        return drive(endpoint, "/x", bodies(2000), loads[number], folder, lead=beside.lead)

    with serving(answer(tokens=2, gap_s=0.01)) as a, serving(answer(tokens=2)) as b, ThreadPoolExecutor(2) as pool:
        results = [future.result() for future in [pool.submit(one, 0, a.endpoint), pool.submit(one, 1, b.endpoint)]]
    assert results[0].window_open_ns == results[1].window_open_ns and results[0].window_close_ns == results[1].window_close_ns
    assert {result.stop_reason for result in results} == {"cohort complete"}
    for number, result in enumerate(results):
        requests = decode(tmp_path / str(number), meta(2000), None).requests
        cohort = [r for r in requests if r.in_window]
        assert len(cohort) >= loads[number].cohort_min and all(r.done_ns for r in cohort)
        # The other one's load was there until this one's cohort had ended.
        other = results[1 - number]
        assert max(r.done_ns or 0 for r in cohort) <= other.ended_ns
        assert result.started_ns < result.window_open_ns


def told(**given: int) -> DriveProgress:
    usual = {"sent": 0, "done": 0, "cohort_sent": 0, "cohort_done": 0, "errors": 0, "in_flight": 0}
    return DriveProgress(elapsed_s=0.0, phase="window", **usual | given)


def leaders(load: LoadPlan) -> list[SharedLeader]:
    shared = Together(2)
    return [Beside(shared, k).lead(load, 0) for k in (0, 1)]


def test_the_slower_one_decides() -> None:
    a, b = leaders(plan(warmup_s=1.0, warmup_requests=2, window_min_s=2.0, window_max_s=9.0, cohort_min=10))
    assert a.decide(2 * S, told(done=2), False) is None
    assert b.decide(2 * S, told(done=1), False) is None
    opened = 3 * S + LEAD_NS
    assert b.decide(3 * S, told(done=2), False) == a.decide(3 * S + 1, told(done=3), False) == f"open {opened}"
    assert a.decide(5 * S, told(cohort_sent=50), False) is None
    closed = 6 * S + LEAD_NS
    assert (
        b.decide(6 * S, told(cohort_sent=10), False)
        == a.decide(6 * S + 1, told(cohort_sent=60), False)
        == f"close {closed} cohort complete"
    )
    assert a.decide(8 * S, told(cohort_sent=60), True) is None  # its own cohort has ended: the load goes on
    assert b.decide(9 * S, told(cohort_sent=10), True) == a.decide(9 * S, told(cohort_sent=60), True) == "stop cohort complete"


def test_a_cohort_that_is_never_complete_ends_with_the_window() -> None:
    a, b = leaders(plan(warmup_s=0.0, window_min_s=2.0, window_max_s=4.0, cohort_min=10))
    for leader in (a, b):
        leader.decide(0, told(), False)
    a.decide(0, told(), False)
    assert a.decide(4 * S, told(cohort_sent=99), False) == f"close {4 * S + LEAD_NS} window budget spent"
    assert b.decide(4 * S, told(cohort_sent=1), False) == f"close {4 * S + LEAD_NS} window budget spent"


def test_one_that_fails_ends_both() -> None:
    shared = Together(2)
    leader = Beside(shared, 0).lead(plan(), 0)
    shared.stop("what ran beside it failed")
    assert leader.decide(S, told(), False) == "stop what ran beside it failed"
    with pytest.raises(LoadError, match="what ran beside it failed"):
        Beside(shared, 1).ready()

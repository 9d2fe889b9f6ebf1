"""Several clients offer what one would offer, and their records are one run's."""

from __future__ import annotations

import json
import os

import pytest
from scripted import answer, clients_below, plan, run, serving

from profiler.errors import LoadError
from profiler.run import clients
from profiler.run.clients import DriveProgress, Leader
from profiler.run.drive import drive

MS = 1_000_000
S = 1_000_000_000


def test_two_clients_send_the_same_open_loop_as_one(tmp_path):
    offsets = tuple(range(0, 3000 * MS, 20 * MS))
    load = plan(kind="rate", load=50, offsets_ns=offsets, warmup_s=0.1, window_min_s=0.6, window_max_s=0.6, cohort_min=1000)
    found = []
    for processes in (1, 2):
        with serving(answer(tokens=3, gap_s=0.002)) as server:
            done = run(server.endpoint, load, tmp_path, count=200, processes=processes)
        assert (done.drive.client_processes, done.drive.stop_reason) == (processes, "window budget spent")
        # The schedule is whole and in order; only where the end falls differs.
        assert [r.intended_ns - done.drive.started_ns for r in done.requests] == list(offsets[: len(done.requests)])
        assert done.drive.window_close_ns - done.drive.window_open_ns >= 600 * MS
        found.append([(r.request_id, r.output_tokens, r.error_kind, r.intended_ns - done.drive.started_ns) for r in done.cohort])
    assert found[0] == found[1] and len(found[0]) == 30


def test_two_clients_keep_n_in_flight_and_share_a_window(tmp_path):
    with serving(answer(tokens=3, gap_s=0.01)) as server:
        load = plan(load=3, warmup_requests=3, cohort_min=12)
        done = run(server.endpoint, load, tmp_path, count=400, processes=2)
    assert server.most_at_once == 3
    assert done.drive.stop_reason == "cohort complete" and len(done.cohort) >= 12
    assert all(r.error_kind is None for r in done.cohort)
    own = [json.loads((tmp_path / f"client-{j}" / "result.json").read_text()) for j in range(2)]
    for edge in ("started_ns", "window_open_ns", "window_close_ns"):
        assert own[0][edge] == own[1][edge] == getattr(done.drive, edge)
    opened, closed = done.drive.window_open_ns, done.drive.window_close_ns
    assert [r.in_window for r in done.requests] == [opened <= r.intended_ns < closed for r in done.requests]
    assert sum(r.done_ns is not None and r.done_ns <= opened for r in done.requests) >= 3
    assert len({r.request_id for r in done.requests}) == len(done.requests)


def test_enough_closes_the_window_of_both(tmp_path):
    with serving(answer(tokens=1, ttft_s=0.01)) as server:
        load = plan(load=2, cohort_min=100_000, window_max_s=60.0)
        done = run(server.endpoint, load, tmp_path, processes=2, enough=lambda told: told.cohort_done >= 5)
    assert done.drive.stop_reason == "precise enough"


def test_a_client_that_stops_stops_the_others(tmp_path):
    with serving(answer(tokens=1)) as server:

        def kill(progress: DriveProgress) -> None:
            if progress.cohort_done >= 10:
                server.stop()

        done = run(server.endpoint, plan(load=2, cohort_min=10**6, window_max_s=60.0), tmp_path, processes=2, on_progress=kill)
    assert done.drive.stop_reason == "server gone"
    assert done.kinds()[None] >= 10


def test_one_that_fails_is_an_error(tmp_path):
    from profiler.records import Endpoint

    with pytest.raises(LoadError, match="cannot resolve"):
        drive(Endpoint("host.invalid", 9, "m"), "/x", [b"{}"], plan(), tmp_path, processes=2)


def told(**given: int) -> DriveProgress:
    usual = {"sent": 0, "done": 0, "cohort_sent": 0, "cohort_done": 0, "errors": 0, "in_flight": 0}
    return DriveProgress(elapsed_s=0.0, phase="window", **usual | given)


def test_the_leader_keeps_the_rules_and_always_speaks_ahead():
    leader = Leader(plan(warmup_s=1.0, warmup_requests=4, window_min_s=5.0, window_max_s=9.0, cohort_min=10), 0)
    assert leader.decide(2 * S, told(done=3), False) is None
    opened = 2 * S + clients.LEAD_NS
    assert leader.decide(2 * S, told(done=4), False) == f"open {opened}"
    assert leader.decide(3 * S, told(cohort_sent=9), False) is None
    assert leader.decide(4 * S, told(cohort_sent=10), False) == f"close {opened + 5 * S} cohort complete"  # not before its least length
    assert leader.decide(5 * S, told(cohort_sent=10), False) is None
    assert leader.decide(9 * S, told(cohort_sent=10), True) == "stop cohort complete"
    leader = Leader(plan(kind="rate", warmup_s=1.0, window_min_s=2.0, window_max_s=9.0, cohort_min=10), 0)
    assert leader.decide(9 * S, told(cohort_sent=5), False) is None
    assert leader.decide(10 * S - MS, told(cohort_sent=5), False) == f"close {10 * S} window budget spent"


def test_a_second_client_only_where_it_pays():
    assert clients.processes_for(10**6, cores=2) == 1
    assert clients.processes_for(clients.TOKENS_PER_S, cores=64) == 1
    assert clients.processes_for(clients.TOKENS_PER_S + 1, cores=64) == 2
    assert clients.processes_for(10**6, cores=8) == 2  # never more than a quarter of the cores


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no process")
def test_a_client_runs_where_it_was_told_to(tmp_path):
    wanted = max(os.sched_getaffinity(0))
    seen = []

    def look(progress: DriveProgress) -> None:
        seen.extend(client.cpu_affinity() for client in clients_below())

    with serving(answer(tokens=1, ttft_s=0.01)) as server:
        run(server.endpoint, plan(load=1, window_min_s=0.7, cohort_min=1), tmp_path, cpus=[wanted], on_progress=look)
    assert seen and all(affinity == [wanted] for affinity in seen)

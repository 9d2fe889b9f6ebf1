"""Several servers behind one workload: who gets what, with one client process and with two; and what a dead one does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from scripted import answer, bodies, meta, plan, serving

from profiler import plan as planning
from profiler.engines import registry, replicas
from profiler.errors import EngineError
from profiler.machine.placement import Placement
from profiler.plan import Cell
from profiler.records import Slot
from profiler.run import start as starts
from profiler.run.counters import hit_rate
from profiler.run.decode import decode
from profiler.run.drive import drive
from profiler.spec import BackendSpec, SweepSpec, validate_spec

MS = 1_000_000


OLD_IDS = ("b01d635f1e88d4c7", "aaac63e09dea68a1")


def backend(n: int, **options: object) -> BackendSpec:
    options = {"ttft_ms": 5.0, "itl_ms": 1.0} | options
    raw = {"name": "two", "summary": "s", "engine": "null", "device": "cpu", "precision": "none", "replicas": n, "options": options}
    return validate_spec(raw, BackendSpec, "test")


@pytest.mark.parametrize("processes", [1, 2])
def test_request_i_goes_to_endpoint_i_mod_n(tmp_path: Path, processes: int) -> None:
    """The oracle is what each of the servers read."""
    offsets = tuple(range(0, 1500 * MS, 20 * MS))
    load = plan(kind="rate", load=50, offsets_ns=offsets, window_min_s=0.8, window_max_s=0.8, cohort_min=1000)
    with serving(answer(tokens=2)) as a, serving(answer(tokens=2)) as b, serving(answer(tokens=2)) as c:
        drive([a.endpoint, b.endpoint, c.endpoint], "/completions", bodies(200), load, tmp_path, processes=processes)
        decoded = decode(tmp_path, meta(200), None)
    for k, server in enumerate((a, b, c)):
        assert server.requests and {request.index % 3 for request in server.requests} == {k}
        sent = {f"r{request.index}" for request in server.requests}
        assert sent == {r.request_id for r in decoded.requests if r.replica == k and r.sent_ns}


def test_a_conversation_stays_with_one_server(tmp_path: Path) -> None:
    parents = tuple(() if i % 3 == 0 else (i - 1,) for i in range(60))  # chains of three
    load = plan(load=3, parents=parents, delays_ns=(0,) * 60, cohort_min=20)
    with serving(answer(tokens=2)) as a, serving(answer(tokens=2)) as b:
        drive([a.endpoint, b.endpoint], "/completions", bodies(60), load, tmp_path)
        seen = [{request.index // 3 for request in server.requests} for server in (a, b)]
    assert seen[0] and seen[1] and not seen[0] & seen[1]
    assert all(chain % 2 == k for k in (0, 1) for chain in seen[k])


def test_the_host_of_each_request_is_its_servers(tmp_path: Path) -> None:
    from profiler.run.client import request_head

    with serving(answer(tokens=1)) as server:
        head = request_head(server.endpoint, "/x", {})
    assert head == f"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode()
    assert b"Host: mine\r\n" in request_head(server.endpoint, "/x", {"host": "mine"})


def test_one_server_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    with serving(answer(tokens=1)) as alive, serving(answer(tokens=1)) as dead:
        dead.stop()
        result = drive([alive.endpoint, dead.endpoint], "/x", bodies(400), plan(load=4, cohort_min=10**6, window_max_s=60.0), tmp_path)
    assert result.stop_reason == "server gone"


def test_replicas_of_an_engine(tmp_path: Path) -> None:
    engine, two = registry.get("null"), backend(2)
    cpu = min(os.sched_getaffinity(0))
    with replicas.started(
        engine, engine.prepare(None, two, print), two, tmp_path / "log.log", print, (Slot((cpu,)), Slot((cpu,)))
    ) as running:
        pids, ends = replicas.pids_of(running), replicas.endpoints_of(running)
        assert len(set(pids)) == 2 and len({end.port for end in ends}) == 2 and running.alive()
        facts = replicas.facts_of(running)
        assert [fact["cpus"] for fact in facts] == [str(cpu)] * 2
        peaks = [part.peak_memory_bytes() for part in replicas.parts_of(running)]
        assert None not in peaks and running.peak_memory_bytes() == sum(peak or 0 for peak in peaks)
        assert {name for name in running.metrics() if 'replica="1"' in name}
        assert (tmp_path / "log.log").is_file() and (tmp_path / "log-1.log").is_file()
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(EngineError, match="replica 1 of 2 died"):
            while True:
                replicas.check_alive(running)
    assert not Path(f"/proc/{pids[0]}").exists()


def test_one_that_does_not_start_ends_all_of_them(tmp_path: Path) -> None:
    engine = registry.get("null")
    with serving(answer()) as taken:
        two = backend(2, port=taken.port - 1)  # the second one's is taken
        with (
            pytest.raises(EngineError, match=r"replica 1 of 2: two: port \d+ .* in use"),
            replicas.started(engine, engine.prepare(None, two, print), two, tmp_path / "log", print),
        ):
            pass


def test_the_run_of_a_dead_replica_says_so(tmp_path: Path) -> None:
    engine, two = registry.get("null"), backend(2)
    spec = validate_spec({"backends": ["null"], "isl": 8, "osl": 4, "concurrency": [2], "window_min_s": 30.0}, SweepSpec, "test")
    cell: Cell = planning.make(spec).cells[0]
    cell = planning.replace(cell, backend=two)
    variant = engine.prepare(None, two, print)
    with replicas.started(engine, variant, two, tmp_path / "log.log", print) as running:

        def kill(_: Cell, now: object) -> None:
            os.kill(replicas.pids_of(running)[1], signal.SIGKILL)

        watch = starts.Watch(print, lambda _: None, kill)
        where = Placement((Slot(), Slot()), (), "")
        folder = tmp_path / "run"
        folder.mkdir()
        outcome = starts.measure_one(cell, running, variant, None, None, tmp_path / "log.log", lambda _: folder, watch, None, where)
    assert outcome.failure is not None and "replica 1 of 2 died" in outcome.failure
    assert (folder / "engine.log").is_file() and (folder / "engine-1.log").is_file()


def test_metrics_keep_the_replicas_apart_and_add_up() -> None:
    assert replicas.labelled("a", 1) == 'a{replica="1"}'
    assert replicas.labelled('a{b="c"}', 0) == 'a{replica="0",b="c"}'
    names = [f"vllm:prefix_cache_{what}_total" for what in ("hits", "queries")]
    before = {replicas.labelled(name, k): 0.0 for name in names for k in (0, 1)}
    after = {replicas.labelled(name, k): (10.0 if "hits" in name else 40.0) * (k + 1) for name in names for k in (0, 1)}
    assert hit_rate(before, after)[0] == pytest.approx(0.25)


def test_ids_of_older_cells_are_what_they_were() -> None:
    """Recorded before replicas and placement existed."""
    spec = validate_spec({"backends": ["null"], "isl": 8, "osl": 4, "concurrency": [4], "rates": [2.0]}, SweepSpec, "test")
    assert set(planning.make(spec).cell_ids) == set(OLD_IDS)
    two = planning.make_cell(spec, backend(2), planning.make(spec).cells[0].workload, "concurrency", 4.0, None)
    one = planning.make_cell(spec, backend(1), planning.make(spec).cells[0].workload, "concurrency", 4.0, None)
    assert two.cell_id != one.cell_id

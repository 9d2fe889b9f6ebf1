"""Looks at a run that is still going: real sockets, a real client; what is seen is the cohort from its first request on, never a quick part."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import scripted

from profiler import catalog, plan
from profiler.analyse.enough import rule_of
from profiler.engines import registry
from profiler.records import RequestRecord
from profiler.run.cell import measure
from profiler.run.decode import decode, decode_so_far
from profiler.run.drive import DriveProgress
from profiler.run.enough import NICE, Looks, Rule
from profiler.spec import SweepSpec, validate_spec

SLOW_S = 1.2


def watched(rule: Rule, folder: Path, script: scripted.Script) -> tuple[Looks, scripted.Run]:
    looks = Looks(rule, folder, scripted.meta(400), None)
    with scripted.serving(script) as server:
        done = scripted.run(server.endpoint, scripted.plan(load=4, cohort_min=rule.most, window_max_s=30.0), folder, 400, enough=looks)
    looks.finish()
    return looks, done


def test_a_look_sees_the_first_of_the_cohort_and_ends_the_run(tmp_path: Path) -> None:
    seen: list[Sequence[RequestRecord]] = []
    nice: list[int] = []

    def decide(cohort: Sequence[RequestRecord]) -> str | None:
        seen.append(cohort)
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return "seen enough" if len(seen) == 2 else None

    looks, done = watched(Rule(10, decide), tmp_path, scripted.answer(3, ttft_s=0.1))
    assert (looks.reason, looks.taken, done.drive.stop_reason) == ("seen enough", 2, "precise enough")
    assert [len(cohort) for cohort in seen] == [10, 20]
    first = sorted(done.cohort, key=lambda r: r.intended_ns)[:20]
    assert {r.request_id for r in seen[1]} == {r.request_id for r in first}
    by_id = {r.request_id: r for r in done.cohort}
    for r in seen[1]:
        final = by_id[r.request_id]
        assert (r.done_ns, r.ttft_s, r.output_tokens, r.error_kind) == (final.done_ns, final.ttft_s, final.output_tokens, None)
    assert 20 <= len(done.cohort) < 160
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice == [min(19, max(before, NICE))] * 2 and os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_straggler_among_the_first_is_waited_for(tmp_path: Path) -> None:
    def script(peer: scripted.Peer, request: scripted.Request) -> None:
        scripted.answer(3, ttft_s=SLOW_S if request.index == 6 else 0.2)(peer, request)

    seen: list[Sequence[RequestRecord]] = []
    _, done = watched(Rule(4, lambda cohort: seen.append(cohort) or "enough"), tmp_path, script)  # type: ignore[func-returns-value]
    first = sorted(done.cohort, key=lambda r: r.intended_ns)[:4]
    assert [{r.request_id for r in cohort} for cohort in seen] == [{r.request_id for r in first}]
    assert max(r.ttft_s or 0.0 for r in seen[0]) >= SLOW_S
    assert len(done.cohort) > 4  # others had ended meanwhile


def test_without_a_decision_the_last_look_is_the_end(tmp_path: Path) -> None:
    looks, done = watched(Rule(2, lambda _: None), tmp_path, scripted.answer(2, ttft_s=0.2))
    assert looks.reason is None and looks.taken <= 4
    assert done.drive.stop_reason == "cohort complete" and len(done.cohort) >= 32


def test_what_goes_wrong_in_a_look_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        watched(Rule(4, lambda cohort: str(1 // (len(cohort) - 4))), tmp_path, scripted.answer(3, ttft_s=0.1))


def test_a_spool_in_the_middle_of_a_write_gives_a_beginning(tmp_path: Path) -> None:
    with scripted.serving(scripted.answer(3)) as server:
        scripted.run(server.endpoint, scripted.plan(cohort_min=12), tmp_path, 400)
    path = tmp_path / "spool.bin"
    whole = path.read_bytes()
    full = sorted(decode(tmp_path, scripted.meta(400), None).requests, key=lambda r: r.intended_ns)
    lengths = []
    for size in range(0, len(whole), max(1, len(whole) // 97)):
        path.write_bytes(whole[:size])
        part = decode_so_far(tmp_path, scripted.meta(400), None, 0)
        assert [r.intended_ns for r in part] == [r.intended_ns for r in full[: len(part)]]
        lengths.append(len(part))
    assert lengths == sorted(lengths) and lengths[-1] > 0
    assert len(decode_so_far(tmp_path, scripted.meta(400), None, 3)) <= max(0, len(full) - 3)


def test_a_look_under_way_is_not_waited_for(tmp_path: Path) -> None:
    release, decoded = threading.Event(), threading.Event()

    def decide(_: Sequence[RequestRecord]) -> str | None:
        decoded.set()
        release.wait(30)
        return "enough"

    with scripted.serving(scripted.answer(3)) as server:
        scripted.run(server.endpoint, scripted.plan(cohort_min=12), tmp_path, 400)
    looks = Looks(Rule(2, decide), tmp_path, scripted.meta(400), None)
    line = DriveProgress(1.0, "window", 12, 12, 12, 12, 0, 0)
    assert not looks(line) and decoded.wait(30)
    assert not looks(line)  # and comes back at once, though the look still thinks
    release.set()
    looks.finish()
    assert looks(line) and looks.reason == "enough"


@pytest.mark.parametrize(
    ("keys", "stop", "looks"),
    [
        ({"until": "decided", "qos": "ttft_p50<=1ms"}, "target decided", 1),
        ({"until": "decided", "qos": "ttft_p95<=20s"}, "target decided", 1),
        ({"precision": "95%", "requests": 120}, "precise enough", 1),
        ({"until": "decided", "qos": "ttft_p95<=20s", "window_max_s": 1.0, "window_min_s": 0.5}, "window budget spent", 0),
    ],
)
def test_a_cell_says_why_it_ended(tmp_path: Path, keys: dict[str, object], stop: str, looks: int) -> None:
    spec = {"backends": ["null"], "isl": 8, "osl": 4, "concurrency": [4], "window_min_s": 0.5, "warmup_s": 0.2, "seed": 3}
    (cell,) = plan.make(validate_spec(spec | keys, SweepSpec, "test")).cells
    backend = catalog.backend("null").model_copy(update={"options": {"ttft_ms": 80.0, "itl_ms": 1.0}})
    engine = registry.get("null")
    variant = engine.prepare(None, backend, lambda _: None)
    with engine.start(variant, backend, tmp_path / "log", lambda _: None) as running:
        measured = measure(cell, running.endpoint, None, None, tmp_path, rule=rule_of(cell), engine_pid=running.pid)
    assert measured.drive.stop_reason == stop and measured.looks >= looks  # a busy machine may spread what is measured: another look
    assert measured.cell is cell and measured.drive.repeated_prompts == 0
    assert measured.system is not None and measured.system.engine_cpu_cores is not None

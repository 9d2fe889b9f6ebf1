"""From a sweep's words to cells and to what is sent when; and the same over real sockets, against the paced server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from profiler import catalog, plan
from profiler.cli.sweep_spec import read_spec
from profiler.engines import registry
from profiler.errors import SpecError
from profiler.plan import Cell
from profiler.records import Endpoint, LoadPlan
from profiler.run.cell import Measured, load_plan, measure, messages_of, prompt_count
from profiler.run.schedule import Schedule
from profiler.spec import SweepSpec
from profiler.units import load_label
from profiler.workload import prompts

WORKLOAD = 'version = 1\nsummary = "s"\nsource = "t"\n'
LENGTHS = '[lengths]\nkind = "fixed"\nisl = 24\nosl = 4\n'
ROWS = [(i * 40, 32 * (1 + i % 3), 1 + i % 4, [0, *([100 + i] if i % 3 else []), *([200 + i] if i % 3 == 2 else [])]) for i in range(25)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain.toml").write_text(WORKLOAD + LENGTHS)
    (tmp_path / "talk.toml").write_text(WORKLOAD + LENGTHS + '[sessions]\nturns = 3\nthink = "30ms"\n')
    (tmp_path / "agent.toml").write_text(WORKLOAD + LENGTHS + "[agentic]\nsteps = 3\nbranches = 3\nresult_tokens = 8\n")
    (tmp_path / "half.toml").write_text(WORKLOAD + LENGTHS + "[prompts]\nhit_rate = 0.5\n")
    (tmp_path / "moon.toml").write_text(WORKLOAD + '[trace]\nfile = "moon.jsonl"\ndivide_lengths = 16\n')
    rows = [f'{{"timestamp": {t}, "input_length": {n * 16}, "output_length": {o * 16}, "hash_ids": {b}}}' for t, n, o, b in ROWS]
    (tmp_path / "moon.jsonl").write_text("\n".join(rows))
    return tmp_path


def cells(folder: Path, *workloads: str, **more: Any) -> tuple[Cell, ...]:
    raw = {"backends": ["null"], "workloads": [str(folder / f"{w}.toml") for w in workloads], "concurrency": [], **more}
    return plan.make(SweepSpec.model_validate(raw)).cells


def plan_of(cell: Cell) -> Any:
    return load_plan(cell, prompts.build(cell.workload, None, prompt_count(cell), cell.prompt_seed, None))


def test_load_points_in_words(folder: Path) -> None:
    def words(**more: Any) -> set[tuple[str, float, str]]:
        return {(c.load_kind, c.load, c.arrivals) for c in cells(folder, "plain", **more)}

    assert words(rates=[2.0]) == {("rate", 2.0, "poisson")}
    assert words(rates=[2.0, 3.0], arrivals="gamma:cv=2") == {("rate", 2.0, "gamma cv=2"), ("rate", 3.0, "gamma cv=2")}
    assert words(concurrency=[2], think="exponential:1s") == {("concurrency", 2.0, "closed, think exponential 1s")}
    assert words(concurrency=[2], arrivals="step:1x10s,4x30s") == {
        ("concurrency", 2.0, "closed"),
        ("rate", 3.25, "step 1/s for 10s, 4/s for 30s"),
    }
    assert words(arrivals="ramp:from=1,to=3", window_min_s=20) == {("rate", 2.0, "ramp 1 to 3/s")}


def test_labels() -> None:
    assert load_label("concurrency", 1.0) == "1 user" and load_label("rate", 2.0) == "2/s Poisson"
    assert load_label("concurrency", 2.0, "closed, think 2s") == "2 users, think 2s"
    assert load_label("rate", 0.2266666, "trace a.csv x2") == "0.227/s trace a.csv x2"


def test_loads_that_contradict_are_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match="rates: arrivals 'ramp' bring their own"):
        cells(folder, "plain", rates=[1.0], arrivals="ramp:from=1,to=3")
    with pytest.raises(SpecError, match="concurrency: a trace brings its own times"):
        cells(folder, "moon", concurrency=[1])
    with pytest.raises(SpecError, match="arrivals: 'poison'"):
        cells(folder, "plain", rates=[1.0], arrivals="poison")
    with pytest.raises(SpecError, match="think: '1'"):
        cells(folder, "plain", concurrency=[1], think="1")
    assert len(cells(folder, "moon", "plain", concurrency=[1])) == 2  # the load is the other workload's


def test_flags(folder: Path) -> None:
    base = {"backends": ["null"], "workloads": [str(folder / "plain.toml")]}
    spec = read_spec(None, {**base, "arrivals": "step:1x10s"})
    assert spec.arrivals == "step:1x10s" and spec.concurrency == ()
    with pytest.raises(SpecError, match="arrivals: 'constant' without a rate"):
        plan.make(read_spec(None, {**base, "arrivals": "constant"}))
    with pytest.raises(SpecError, match="think: only a closed loop pauses"):
        plan.make(read_spec(None, {**base, "rates": "1", "think": "2s"}))
    made = plan.make(read_spec(None, {"backends": ["null"], "trace": str(folder / "moon.jsonl")}))
    assert [cell.workload.name for cell in made.cells] == ["moon"] and made.cells[0].arrivals == "trace moon.jsonl x1"
    other = folder / "copy.jsonl"
    other.write_text((folder / "moon.jsonl").read_text())
    both = plan.make(read_spec(None, {"backends": ["null"], "workloads": [str(folder / "moon.toml")], "trace": str(other)}))
    assert both.cells[0].arrivals == "trace copy.jsonl x1 lengths/16"
    # What was measured is the content, not where it lay.
    assert both.cells[0].cell_id == cells(folder, "moon", concurrency="auto")[0].cell_id


def test_a_cell_is_another_when_its_load_is(folder: Path) -> None:
    ids = {
        cells(folder, "plain", **more)[0].cell_id
        for more in (
            {"rates": [2.0]},
            {"rates": [2.0], "arrivals": "constant"},
            {"rates": [2.0], "arrivals": "gamma:cv=2"},
            {"concurrency": [2]},
            {"concurrency": [2], "think": "1s"},
        )
    }
    assert len(ids) == 5
    before = cells(folder, "moon")[0].cell_id
    text = (folder / "moon.jsonl").read_text()
    (folder / "moon.jsonl").write_text(text.replace('"output_length": 16', '"output_length": 17'))
    assert cells(folder, "moon")[0].cell_id != before


def test_what_is_sent_when(folder: Path) -> None:
    (cell,) = cells(folder, "plain", rates=[5.0], arrivals="constant", warmup_s=1, window_max_s=10, request_timeout_s=2)
    offered = plan_of(cell)
    assert {round((b - a) / 1e9, 6) for a, b in pairwise(offered.offsets_ns)} == {0.2} and offered.offsets_ns[-1] >= 12.7e9
    (cell,) = cells(folder, "plain", arrivals="step:0x5s,50x5s", warmup_s=1, request_timeout_s=2)
    offered = plan_of(cell)
    assert (offered.window_min_s, offered.window_max_s, offered.cohort_min) == (10, 10, 1)
    assert min(offered.offsets_ns) > 6e9 and 13e9 > max(offered.offsets_ns) > 11e9  # warm-up, five seconds of nothing; then until the drain
    (cell,) = cells(folder, "plain", concurrency=[2], think="exponential:100ms")
    offered = plan_of(cell)
    assert offered.think_s == 0.1 and sum(offered.thinks_ns) / len(offered.thinks_ns) == pytest.approx(1e8, rel=0.05)
    assert offered.offsets_ns == () and offered.parents == ()


def test_pauses_that_differ_are_taken_in_turn() -> None:
    from dataclasses import replace

    base = LoadPlan("concurrency", 2.0, 0, 0, 1, 1, 1, 1, think_s=9.0)
    schedule = Schedule(replace(base, thinks_ns=(5, 7, 11)), 10, 100)
    starts = []
    for now in (1000, 2000, 3000, 4000):
        intended, body, chain = schedule.take()
        starts.append(intended)
        schedule.ended(body, chain, now, answered=True)
    # Two slots begin at once; pauses 5, 7, 11 and 5 again follow the answers at 1000, 2000, 3000, 4000.
    assert starts == [100, 100, 1005, 2007] and schedule.take()[0] == 3011 and schedule.take()[0] == 4005
    fixed = Schedule(base, 10, 100)
    _, body, chain = fixed.take()
    fixed.ended(body, chain, 1000, answered=True)
    fixed.take()
    assert fixed.take()[0] == 1000 + 9 * 10**9


def test_where_requests_wait_for_others_the_rate_is_that_of_all(folder: Path) -> None:
    (cell,) = cells(folder, "talk", rates=[30.0], requests=300, window_max_s=200)
    offered = plan_of(cell)
    assert len(offered.parents) == len(offered.delays_ns) >= 600
    horizon_s = 3 + 200 + 120
    assert len(offered.offsets_ns) == pytest.approx(10 * horizon_s, rel=0.1)  # three requests follow from each


def test_a_trace_is_replayed_whole(folder: Path) -> None:
    (cell,) = cells(folder, "moon")
    offered = plan_of(cell)
    assert (offered.kind, offered.warmup_s, offered.cohort_min) == ("rate", 0.0, 25)
    assert offered.window_min_s == offered.window_max_s == pytest.approx(1.0) and offered.load == pytest.approx(25)
    assert offered.offsets_ns == tuple(t * 10**6 for t, *_ in ROWS)
    assert offered.arrivals == "trace moon.jsonl x1 lengths/16" and plan.cohort_wanted(cell) == 25


@pytest.mark.parametrize("name", catalog.workload_names())
def test_shipped_workloads_have_loads(name: str) -> None:
    made = plan.make(SweepSpec.model_validate({"backends": ["null"], "workloads": [name], "concurrency": [2], "rates": [1.0]}))
    for cell in made.cells:
        assert prompt_count(cell) >= 2 * cell.sweep.requests


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    backend = catalog.backend("null").model_copy(update={"options": {"ttft_ms": 10.0, "itl_ms": 2.0}})
    engine = registry.get("null")
    log = tmp_path_factory.mktemp("null") / "engine.log"
    with engine.start(engine.prepare(None, backend, lambda text: None), backend, log, lambda text: None) as running:
        yield running.endpoint


def measured(cell: Cell, endpoint: Endpoint, tmp_path: Path) -> Measured:
    folder = tmp_path / "cell"
    folder.mkdir()
    return measure(cell, endpoint, None, None, folder)


FAST = {"requests": 30, "window_min_s": 0.5, "window_max_s": 20.0, "warmup_s": 0.1, "request_timeout_s": 20.0}


@pytest.mark.parametrize("more", [{"concurrency": [3]}, {"rates": [60.0]}])
def test_turns_are_sent_after_the_answer_and_the_pause(folder: Path, endpoint: Endpoint, tmp_path: Path, more: dict[str, Any]) -> None:
    (cell,) = cells(folder, "talk", **FAST, **more)
    got = measured(cell, endpoint, tmp_path)
    rows = {(r.session_id, r.turn): r for r in got.requests if r.sent_ns is not None}
    pairs = [(rows[s, t - 1], r) for (s, t), r in rows.items() if t and (s, t - 1) in rows]
    assert len(pairs) >= 15 and {t for _, t in rows} == {0, 1, 2}
    for before, after in pairs:
        assert before.done_ns is not None and after.intended_ns == pytest.approx(before.done_ns + 30_000_000, abs=30_000_000)
        assert after.sent_ns is not None and after.sent_ns > before.done_ns
        assert (before.prompt_tokens, after.prompt_tokens) == (24 + 28 * before.turn, 24 + 28 * after.turn)
    assert got.prefix_bound is not None and 0.2 < got.prefix_bound < 0.6  # (24 + 52) / 156 for whole sessions


def test_branches_run_side_by_side_and_join(folder: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    (cell,) = cells(folder, "agent", concurrency=[2], **FAST)
    got = measured(cell, endpoint, tmp_path)
    chains: dict[str, dict[int, list[Any]]] = {}
    for request in got.requests:
        if request.done_ns is not None and request.error_kind is None:
            chains.setdefault(str(request.session_id), {}).setdefault(request.turn, []).append(request)
    whole = [steps for steps in chains.values() if [len(steps.get(t, ())) for t in range(3)] == [1, 3, 1]]
    assert len(whole) >= 4
    for steps in whole:
        branches = steps[1]
        assert max(r.sent_ns for r in branches) < min(r.done_ns for r in branches)
        assert steps[2][0].sent_ns > max(r.done_ns for r in branches) and steps[2][0].prompt_tokens == 24 + 4 + 3 * (8 + 4) + 8


def test_a_replay_sends_every_request_at_its_time(folder: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    (cell,) = cells(folder, "moon")
    got = measured(cell, endpoint, tmp_path)
    assert len(got.requests) == 25 and all(r.in_window and not r.warmup and r.error_kind is None for r in got.requests)
    by_time = sorted(got.requests, key=lambda r: r.request_id)
    assert [r.intended_ns - got.drive.started_ns for r in by_time] == [t * 10**6 for t, *_ in ROWS]
    assert [(r.prompt_tokens, r.output_tokens) for r in by_time] == [(n, o) for _, n, o, _ in ROWS]
    # The window is the slice, also when the last answer came before its end.
    assert (got.drive.window_close_ns - got.drive.window_open_ns) / 1e9 == pytest.approx(1.0, abs=0.2)
    seen: set[int] = set()
    reused = 0
    for _, _, _, blocks in ROWS:
        reused += sum(32 for block in blocks if block in seen)
        seen.update(blocks)
    assert got.prefix_bound == pytest.approx(reused / sum(n for _, n, _, _ in ROWS))


def test_a_slice_that_ends_quietly_keeps_its_length(folder: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    text = (folder / "moon.toml").read_text()
    (folder / "quiet.toml").write_text(text + 'length = "1s"\nspeed = 0.5\n')
    (folder / "moon.jsonl").write_text("\n".join((folder / "moon.jsonl").read_text().splitlines()[:10]))  # the last at 0.36 s of 1 s
    (cell,) = cells(folder, "quiet")
    got = measured(cell, endpoint, tmp_path)
    assert len(got.requests) == 10 and got.drive.stop_reason == "cohort complete"
    assert got.drive.window_close_ns - got.drive.window_open_ns >= 1_999_000_000


def test_a_declared_hit_rate_is_what_a_cache_could_find(folder: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    (cell,) = cells(folder, "half", rates=[50.0], **FAST)
    got = measured(cell, endpoint, tmp_path)
    assert got.prompts.prefix_declared == 0.5
    assert got.prefix_bound == pytest.approx(0.5)  # the warm-up has seen the prefix


def test_the_record_states_every_factor(folder: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    from profiler.analyse.assess import SweepFacts, assess
    from profiler.run.start import Outcome

    (cell,) = cells(folder, "moon")
    got = measured(cell, endpoint, tmp_path)
    facts = SweepFacts("sweep", (cell.cell_id,), cell.sweep, {"machine_id": "m"})
    document = assess(facts, Outcome(cell, tmp_path, {}, got), 0, "environment", None)
    stated = document["provenance"]["prompts"]
    assert stated["cut_share"] == 0.0 and re.fullmatch("[0-9a-f]{64}", stated["trace"]["sha256"])
    kept = {
        key: stated["trace"][key] for key in ("file", "format", "start", "length", "speed", "thin", "divide_lengths", "requests", "rows")
    }
    assert kept == {"file": "moon.jsonl", "format": "mooncake", "start": "0s", "length": None, "speed": 1.0, "thin": 1.0} | {
        "divide_lengths": 16,
        "requests": 25,
        "rows": 25,
    }
    assert document["run"]["arrivals"] == "trace moon.jsonl x1 lengths/16" and document["run"]["n_cohort"] == 25
    assert document["run"]["prefix_bound"] == got.prefix_bound and document["run"]["prefix_declared"] is None
    assert document["run"]["prefix_hit_rate"] is None and "no cache" in document["run"]["prefix_hit_reason"]


def test_a_history_is_a_dialogue_for_a_chat_endpoint(folder: Path, tokenizer_json: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    made = prompts.build(catalog.workload(str(folder / "talk.toml")), tokenizer_json, 3, 1, None)
    rows = [messages_of(call, p.token_ids, tokenizer) for call, p in zip(made.calls, made.prompts, strict=True)]
    assert [[m["role"] for m in row] for row in rows] == [["user", "assistant"] * turn + ["user"] for turn in range(3)]
    assert rows[2][:3] == rows[1] and rows[1][0] == rows[0][0]
    whole = "".join(m["content"] for m in rows[2])
    assert whole == tokenizer.decode(list(made.prompts[2].token_ids))

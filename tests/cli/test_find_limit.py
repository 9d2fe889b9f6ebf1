"""`profile sweep --find-limit` on a store that knows the cohorts already: what is answered from it, and what has to be measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import queues
import synthetic

from profiler import catalog, plan
from profiler.analyse import assess, qos, verdict
from profiler.analyse.latency import summarise
from profiler.analyse.limit import limits
from profiler.cli import main as program
from profiler.cli import measuring
from profiler.spec import SweepSpec
from profiler.store.store import Store

NS = 10**9
HORIZON_S, STARTS, LOADS = 100.0, 6, (9.977, 10.48, 11.02, 11.57)
FIRST, OTHER = "ttft_p95<=180ms", "ttft_p95<=160ms"
BACKEND = 'version = 1\nsummary = "s"\nengine = "null"\ndevice = "cpu"\nprecision = "none"\n[options]\nttft_ms = 5.0\n'
FLAGS = ["--most-starts", "6", "--isl", "16", "--osl", "32", "--requests", "900", "--rung", "10%", "--json"]


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a backend and a store that holds whole cohorts around the limits of FIRST and OTHER."""
    (tmp_path / "b.toml").write_text('name = "b"\n' + BACKEND)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assess, "environment_hash", lambda *_: "e1")
    spec = SweepSpec(name="command-line", backends=("b.toml",), isl=16, osl=32, requests=900, find_limit=True, rung=0.1, qos=FIRST)
    (workload,) = plan.parts(spec)[1]
    store, backend = Store(tmp_path / "results"), catalog.backend("b.toml")
    for start in range(STARTS):
        for load in LOADS:
            cell = plan.probe(spec, backend, workload, load, start, screen=False)
            requests = answered(load, start)
            drive = synthetic.drive(window_close_ns=int(HORIZON_S * NS), ended_ns=int(4 * HORIZON_S * NS))
            judged = verdict.judge(qos.parse(FIRST), requests, "rate", load, drive)
            run = {"cell_id": cell.cell_id, "repeat": start, "backend": "b", "model": spec.model, "workload": workload.name, "load": load}
            run |= {"load_kind": "rate", "start_id": f"s{start}", "qos": FIRST, "qos_result": judged.result, "request_rate": load}
            run |= {"provenance_class": "measured", "engine": "null", "variant": "none", "device": "cpu", "window_s": HORIZON_S}
            run |= {"window_open_ns": 0, "window_close_ns": int(HORIZON_S * NS), "arrivals": "poisson", "stability": "steady"}
            store.keep(
                synthetic.document(**summarise(requests, drive, None) | run, profiler_version="0.1.0") | {"verdicts": [judged.to_dict()]},
                requests,
            )
    return tmp_path


def answered(load: float, start: int) -> list[Any]:
    found = []
    for k, r in enumerate(r for r in queues.batching_server(HORIZON_S, start, rate=load) if r.done_ns is not None):
        assert r.sent_ns is not None
        first, last = (r.sent_ns + r.arrival_offsets_us[i] * 1000 for i in (0, -1))
        ttft, e2e = (first - r.intended_ns) / NS, (last - r.intended_ns) / NS
        values = {"intended_ns": r.intended_ns, "sent_ns": r.sent_ns, "first_token_ns": first, "last_token_ns": last, "done_ns": last}
        values |= {"ttft_s": ttft, "ttft_sched_s": ttft, "tpot_s": (last - first) / NS / 31, "e2e_s": e2e, "e2e_sched_s": e2e}
        found.append(synthetic.record(k, **values, arrival_offsets_us=r.arrival_offsets_us, arrival_tokens=r.arrival_tokens, text=None))
    return found


def limit_of(target_s: float) -> float:
    """By a walk through the same queue, of five times a cohort."""
    low, high = 9.0, 13.0
    while high - low > 0.1:
        middle = (low + high) / 2
        runs = [answered(middle, 100 + k) for k in range(5)]
        waited = [r.ttft_s > target_s for run in runs for r in run]
        low, high = (middle, high) if sum(waited) <= 0.05 * len(waited) else (low, middle)
    return low


def sweep(capsys: pytest.CaptureFixture[str], target: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        program.main(["sweep", "--find-limit", "--backend", "b.toml", "--qos", target, *FLAGS])
    assert ended.value.code == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["limits"][0]
    return found


def test_the_store_answers_both_targets_without_measuring(
    searched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "measured_runs", no_cell)
    for target, limit_s in ((FIRST, 0.18), (OTHER, 0.16)):
        found = sweep(capsys, target)
        assert found["lower"] <= limit_of(limit_s) < found["upper"] <= found["lower"] * 1.3
    store = Store(searched / "results")
    rows = store.rows()
    assert len(rows) == STARTS * len(LOADS)
    # `profile fit` reads the same from the store.
    (by_kind,) = limits(rows, qos.parse(OTHER), store.records(row["run_id"] for row in rows)).values()
    assert by_kind["rate"].lower is not None and by_kind["rate"].upper is not None
    assert by_kind["rate"].lower <= limit_of(0.16) < by_kind["rate"].upper


def test_a_target_whose_limit_lies_elsewhere_asks_for_new_probes(
    searched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def first_cell(_: Any, cells: Iterable[plan.Cell], *__: Any) -> Iterator[dict[str, Any]]:
        asked.append(next(iter(cells)).load)
        raise KeyboardInterrupt
        yield {}

    monkeypatch.setattr(measuring, "measured_runs", first_cell)
    with pytest.raises(SystemExit) as ended:
        program.main(["sweep", "--find-limit", "--backend", "b.toml", "--qos", "ttft_p95<=800ms", *FLAGS])
    assert ended.value.code != 0
    assert asked and asked[0] > max(LOADS)
    capsys.readouterr()


def test_a_condition_on_the_whole_run_is_not_searched_for(
    searched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "measured_runs", no_cell)
    alone = sweep(capsys, FIRST)
    with pytest.raises(SystemExit) as ended:
        program.main(["sweep", "--find-limit", "--backend", "b.toml", "--qos", f"{FIRST}, output_tps>=1000000", *FLAGS])
    out, err = capsys.readouterr()
    found = json.loads(out)["limits"][0]
    assert ended.value.code == 0 and (found["lower"], found["upper"]) == (alone["lower"], alone["upper"])
    assert "output_tps>=1000000 is about a whole run" in json.loads(out)["notes"][0] and "is about a whole run" in " ".join(err.split())
    for target in ("output_tps>=500", "makespan<=10min for 600 requests"):
        with pytest.raises(SystemExit) as ended:
            program.main(["sweep", "--find-limit", "--backend", "b.toml", "--qos", target, *FLAGS])
        assert ended.value.code == 2 and "gives no highest load" in capsys.readouterr().err


def no_cell(_: Any, cells: Iterable[plan.Cell], *__: Any) -> Iterator[dict[str, Any]]:
    assert next(iter(cells), None) is None, "something is measured"
    return
    yield {}

"""`profile sweep --co-run` against null engines: cells, one window, neighbours that are no strangers, the report's section."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profiler import plan as planning
from profiler.errors import SpecError
from profiler.spec import SweepSpec, validate_spec
from profiler.units import load_label

BACKEND = """
summary = "paced server for tests"
engine = "null"
device = "cpu"
precision = "none"
replicas = {replicas}
[options]
ttft_ms = 5.0
itl_ms = 1.0
"""


@pytest.fixture
def backends(tmp_path: Path) -> list[str]:
    paths = []
    for name, replicas in (("first", 1), ("second", 2)):
        (tmp_path / f"{name}.toml").write_text(BACKEND.format(replicas=replicas))
        paths.append(str(tmp_path / f"{name}.toml"))
    return paths


def spec(backends: list[str], **more: Any) -> SweepSpec:
    usual = {"co_run": backends, "isl": 16, "osl": 8, "concurrency": [1, 2]}
    return validate_spec(usual | more, SweepSpec, "test")


def profile(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SLM_PROFILER_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-m", "profiler", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180)


def test_each_load_alone_and_together(backends: list[str]) -> None:
    plan = planning.make(spec(backends))
    (start,) = plan.starts
    assert [b.name for b in start.backends] == ["first", "second"]
    groups: dict[int, list[planning.Cell]] = {}
    for cell in start.cells:
        groups.setdefault(cell.group, []).append(cell)
    assert sorted(len(group) for group in groups.values()) == [1, 1, 1, 1, 2, 2]
    for group in groups.values():
        if len(group) == 1:
            assert group[0].beside[0][1] == "idle"
        else:
            assert {c.backend.name for c in group} == {"first", "second"} and group[0].load == group[1].load
            assert group[0].beside == (("second", load_label("concurrency", group[0].load)),)
    assert len(set(plan.cell_ids)) == len(start.cells) == 8
    alone = planning.make(validate_spec({"backends": backends, "isl": 16, "osl": 8, "concurrency": [1, 2]}, SweepSpec, "test"))
    assert not set(alone.cell_ids) & set(plan.cell_ids), "what runs beside a cell is part of its id"


def test_loads_of_their_own(backends: list[str]) -> None:
    plan = planning.make(spec({backends[0]: {"concurrency": [1, 2, 4]}, backends[1]: {"rates": [0.5]}}))  # type: ignore[arg-type]
    together = [cell for cell in plan.cells if cell.beside[0][1] != "idle"]
    assert sorted((c.backend.name, c.load) for c in together) == [("first", 1), ("first", 2), ("first", 4)] + [("second", 0.5)] * 3
    assert len({c.cell_id for c in together}) == 6


@pytest.mark.parametrize(
    "wrong", [{"co_run": ["null"]}, {"co_run": ["null", "null"]}, {"until": "decided"}, {"arrivals": "ramp:from=1,to=2,over=9s"}]
)
def test_bad_specs(backends: list[str], wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        planning.make(spec(backends, **wrong))


def test_a_co_run_as_a_user_sees_it(backends: list[str], tmp_path: Path) -> None:
    words = ("sweep", "--co-run", ",".join(backends), "--isl", 16, "--osl", 8, "--concurrency", 2, "--requests", 20, "--duration", "1s")
    dry = profile(*words, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0 and "first beside second" in dry.stdout and "and at once" in dry.stdout, dry.stderr
    done = profile(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(path.read_text())["run"] for path in sorted((tmp_path / "results").glob("runs/*/*/run.json"))]
    assert {(r["backend"], r["co_run_with"], r["co_run_load"]) for r in rows} == {
        ("first", "second", "idle"),
        ("first", "second", "2 users"),
        ("second", "first", "idle"),
        ("second", "first", "2 users"),
    }
    assert all(r["status"] == "done" for r in rows)
    a, b = (r for r in rows if r["co_run_load"] == "2 users")
    assert (a["window_open_ns"], a["window_close_ns"]) == (b["window_open_ns"], b["window_close_ns"])
    for row, other in ((a, b), (b, a)):
        # A neighbour's work is seen as such: what one is given as a neighbour is what the other says of itself.
        assert row["neighbour_cpu_cores"] == pytest.approx(other["engine_cpu_cores"], abs=0.1)
    assert {r["replicas"] for r in rows if r["backend"] == "second"} == {2}
    assert "Sharing the machine" in (tmp_path / "results" / "report.html").read_text()
    assert "already measured" in profile(*words, cwd=tmp_path).stderr

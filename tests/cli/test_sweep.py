"""`profile sweep` as a user runs it, against the null engine: real processes, real sockets, a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import psutil
import pytest

PROFILE = [sys.executable, "-m", "profiler"]

BACKEND = """
summary = "paced server for tests"
engine = "null"
device = "cpu"
precision = "none"
[options]
ttft_ms = 5.0
itl_ms = 1.0
"""

SPEC = """
backends = ["{backend}"]
workloads = []
isl = 16
osl = 8
concurrency = [1, 2]
rates = [40.0]
qos = "ttft_p50<=5s, tpot_p50<=1s"
requests = {requests}
window_min_s = 0.2
window_max_s = 30.0
warmup_s = 0.1
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "fast.toml").write_text(BACKEND)
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(backend=tmp_path / "fast.toml", requests=20))
    return path


def profile(*words: object, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SLM_PROFILER_CACHE": str(cwd / "cache")}
    return subprocess.run([*PROFILE, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def runs(results: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text())["run"] for path in sorted(results.glob("runs/*/*/run.json"))]


def test_sweep_measures_keeps_and_answers(spec: Path, tmp_path: Path) -> None:
    done = profile("sweep", spec, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = runs(tmp_path / "results")
    assert sorted((r["load_kind"], r["load"]) for r in kept) == [("concurrency", 1), ("concurrency", 2), ("rate", 40)]
    assert all(r["status"] == "done" and r["n_requests"] >= 20 for r in kept), kept
    assert len({r["start_id"] for r in kept}) == 1
    # Beside other load a run is suspect and proves no FITS: this machine may be busy.
    assert "FITS" in done.stdout or all("other programs used" in "".join(r["validity_reasons"]) for r in kept)  # type: ignore[arg-type]
    assert (tmp_path / "results" / "report.html").stat().st_size > 100_000


def test_figures_agree_with_the_parquet_recomputed_by_sql(spec: Path, tmp_path: Path) -> None:
    """The oracle is plain SQL over requests.parquet: order statistics and token counts, sharing no code with the product."""
    assert profile("sweep", spec, cwd=tmp_path).returncode == 0
    for folder in (tmp_path / "results").glob("runs/*/*"):
        run = json.loads((folder / "run.json").read_text())["run"]
        sql = f"""
            with cohort as (select * from read_parquet('{folder}/requests.parquet') where in_window),
            ranked as (select ttft_sched_s, row_number() over (order by ttft_sched_s) as i, count(*) over () as n from cohort)
            select (select min(ttft_sched_s) from ranked where i >= ceil(0.50 * n)), (select min(ttft_sched_s) from ranked where i >= ceil(0.95 * n)),
                   (select count(*) from cohort where error_kind is null)
        """
        with duckdb.connect() as connection:
            row = connection.execute(sql).fetchall()[0]
        assert row[0] == pytest.approx(run["ttft_sched_p50_s"], rel=1e-9)
        assert row[1] == pytest.approx(run["ttft_sched_p95_s"], rel=1e-9)
        assert row[2] == run["n_requests"]


def test_second_sweep_of_the_same_spec_measures_nothing(spec: Path, tmp_path: Path) -> None:
    assert profile("sweep", spec, cwd=tmp_path).returncode == 0
    before = {r["run_id"] for r in runs(tmp_path / "results")}
    again = profile("sweep", spec, cwd=tmp_path)
    assert again.returncode == 0 and "already measured" in again.stderr, again.stderr
    assert {r["run_id"] for r in runs(tmp_path / "results")} == before


def test_again_measures_once_more_as_a_repeat(spec: Path, tmp_path: Path) -> None:
    assert profile("sweep", spec, cwd=tmp_path).returncode == 0
    assert profile("sweep", spec, "--again", cwd=tmp_path).returncode == 0
    assert sorted(r["repeat"] for r in runs(tmp_path / "results")) == [0, 0, 0, 1, 1, 1]


@contextmanager
def started(spec: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A sweep whose second cell is under way, and every process below it."""
    environment = {**os.environ, "SLM_PROFILER_CACHE": str(tmp_path / "cache")}
    command = [*PROFILE, "sweep", str(spec)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sweep:
        assert sweep.stderr is not None
        for line in sweep.stderr:
            if line.startswith("[1/3]"):
                yield sweep, psutil.Process(sweep.pid).children(recursive=True)
                return
        raise AssertionError("the sweep ended before its first cell did")


def all_gone(processes: list[psutil.Process]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes if psutil.pid_exists(p.pid)):
            return True
        time.sleep(0.05)  # polling, not a guess at how long it takes
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_mid_sweep_leaves_no_process_and_a_clean_store(spec: Path, tmp_path: Path, how: signal.Signals) -> None:
    spec.write_text(spec.read_text().replace("requests = 20", "requests = 100"))
    with started(spec, tmp_path) as (sweep, below):
        assert below, "no engine process seen"
        sweep.send_signal(how)
        sweep.wait(timeout=30)
    assert all_gone(below)
    listed = profile("results", "ls", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    kept = {r["run_id"] for r in json.loads(listed.stdout)}
    assert 1 <= len(kept) < 3
    assert profile("sweep", spec, cwd=tmp_path).returncode == 0
    now = runs(tmp_path / "results")
    assert len([r for r in now if r["status"] == "done"]) == 3 and kept <= {r["run_id"] for r in now}


def test_two_sweeps_into_one_folder_lose_nothing(spec: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SLM_PROFILER_CACHE": str(tmp_path / "cache")}
    command = [*PROFILE, "sweep", str(spec)]
    logs = [tmp_path / "one.err", tmp_path / "two.err"]
    with logs[0].open("w") as one, logs[1].open("w") as two:
        both = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=log) for log in (one, two)]
        codes = [process.wait(timeout=120) for process in both]
    assert codes == [0, 0], [log.read_text() for log in logs]
    kept = runs(tmp_path / "results")
    assert len({r["cell_id"] for r in kept}) == 3 and all(r["status"] == "done" for r in kept)


def test_a_backend_that_cannot_start_is_recorded_and_the_others_go_on(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "dead.toml").write_text(
        BACKEND.replace('"null"', '"openai"')
        .replace("ttft_ms = 5.0", 'url = "http://127.0.0.1:9/v1"')
        .replace("itl_ms = 1.0", 'model = "x"')
    )
    text = spec.read_text()
    spec.write_text(text.replace("backends = [", f'backends = ["{tmp_path / "dead.toml"}", '))
    done = profile("sweep", spec, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    by_backend: dict[object, set[object]] = {}
    for run in runs(tmp_path / "results"):
        by_backend.setdefault(run["backend"], set()).add(run["status"])
    assert by_backend == {"fast": {"done"}, "dead": {"failed"}}
    assert "Traceback" not in done.stderr


def test_an_engine_that_dies_at_its_start_leaves_its_log_beside_the_failed_run(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "dead.toml").write_text(BACKEND + 'record = "/nowhere/at/all.jsonl"\n')
    spec.write_text(spec.read_text().replace("backends = [", f'backends = ["{tmp_path / "dead.toml"}", '))
    assert profile("sweep", spec, cwd=tmp_path).returncode == 0
    failed = [
        path for path in (tmp_path / "results").glob("runs/*/*/run.json") if json.loads(path.read_text())["run"]["status"] == "failed"
    ]
    assert len(failed) == 3
    for path in failed:
        error = json.loads(path.read_text())["run"]["status_reason"]
        assert "/nowhere/at/all.jsonl" in (path.parent / "engine.log").read_text() and "dead" in error


def test_a_backend_that_this_machine_cannot_run_is_recorded_with_the_reason(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "huge.toml").write_text(BACKEND + '[needs]\nmemory = "900000GiB"\n')
    spec.write_text(spec.read_text().replace("backends = [", f'backends = ["{tmp_path / "huge.toml"}", '))
    done = profile("sweep", spec, cwd=tmp_path)
    assert done.returncode == 0 and "profile list backends" in done.stderr
    errors = {str(r["status_reason"]) for r in runs(tmp_path / "results") if r["status"] == "failed"}
    assert len(errors) == 1 and "it needs 900000GiB of memory, there are" in errors.pop()

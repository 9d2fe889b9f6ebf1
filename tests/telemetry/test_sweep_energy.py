"""A sweep with a GPU and RAPL that are stand-ins: energy in run.json against their own formulas, the file in the store, the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stands

from profiler.store.store import Store

BACKEND = """
summary = "paced server"
engine = "null"
device = "{device}"
precision = "none"
[options]
ttft_ms = 5.0
itl_ms = 1.0
"""
SPEC = """
backends = ["{folder}/cuda.toml", "{folder}/cpu.toml"]
workloads = []
isl = 16
osl = 8
concurrency = [2]
requests = 20
window_min_s = 2.6
window_max_s = 30.0
warmup_s = 0.1
telemetry_period_s = 0.05
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    for device in ("cuda", "cpu"):
        (folder / f"{device}.toml").write_text(BACKEND.format(device=device))
    (folder / "spec.toml").write_text(SPEC.format(folder=folder))
    root = stands.powercap(folder / "powercap")
    environment = {**os.environ, "SLM_PROFILER_CACHE": str(folder / "cache"), "SLM_PROFILER_POWERCAP": str(root)}
    environment["LD_LIBRARY_PATH"] = str(stands.build_nvml(folder / "lib"))
    with stands.running(root):
        command = [sys.executable, "-m", "profiler", "sweep", "spec.toml"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("results/runs/*/*/run.json")]
    return {document["run"]["backend"]: document for document in found}


def test_energy_of_the_window_is_that_of_the_stand_ins(swept: Path) -> None:
    for backend, document in documents(swept).items():
        run = document["run"]
        window_s = (run["window_close_ns"] - run["window_open_ns"]) / 1e9
        gpu_j = stands.stub_energy_j(run["window_open_ns"], run["window_close_ns"])
        packages_j = (stands.RAPL_W["intel-rapl:0"] + stands.RAPL_W["intel-rapl:1"]) * window_s
        assert run["energy_gpu_board_j"] == pytest.approx(gpu_j, rel=0.01), run["energy_reason"]
        # 2.5 s is more than one turn of package-0's counter (2 s): a missed wrap would lack 3000 J.
        assert run["energy_cpu_package_j"] == pytest.approx(packages_j, rel=0.03), document["energy"]
        assert run["energy_dram_j"] == pytest.approx(25.0 * window_s, rel=0.05)
        assert run["energy_wall_j"] is None and run["energy_host_j"] is None
        own = run["energy_gpu_board_j" if backend == "cuda" else "energy_cpu_package_j"]
        assert run["energy_j"] == own and run["energy_scope"] == ("gpu_board" if backend == "cuda" else "cpu_package")
        tokens = run["output_tps"] * window_s
        assert run["energy_per_output_token_j"] == pytest.approx(own / tokens)
        assert run["energy_per_request_j"] == pytest.approx(own / (run["request_rate"] * window_s))
        assert run["idle_power_w"] == pytest.approx(200 if backend == "cuda" else 2500, rel=0.3)
        assert 0 < run["telemetry_cpu_cores"] < 1 and run["telemetry_period_s"] == 0.05


def test_telemetry_is_in_the_store(swept: Path) -> None:
    store = Store(swept / "results")
    counts = store.sql("select source, count(distinct run_id) as runs from telemetry group by source order by source")
    assert dict(zip(counts["source"], counts["runs"], strict=True)) == {"cpu": 2, "nvml": 2, "rapl": 2, "sampler": 2}
    assert {d["run"]["run_id"] for d in documents(swept).values()} == set(store.telemetry()["run_id"])
    engine = store.sql("select max(value) as most from telemetry where device = 'engine' and metric = 'resident_bytes'")
    assert engine.most[0] > 1e6


def test_the_report_shows_energy_with_its_scope_and_telemetry_over_time(swept: Path) -> None:
    page = (swept / "results" / "report.html").read_text()
    assert "telemetry-fixed-16-8" in page and "Power over time" in page
    assert "J/token (gpu_board)" in page and "J/token (cpu_package)" in page
    assert "different scopes" in page, "a GPU's board and a CPU's package are not compared"
    assert "J/token" in (swept / "said.txt").read_text()

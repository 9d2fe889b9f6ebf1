"""NVML through a stub libnvidia-ml.so.1 in C whose energy counter is the exact integral of its power: the oracle is the formula."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import stands

from profiler.analyse import energy

WHILE = """
import json, sys, time
from pathlib import Path
from profiler.machine.telemetry import recording as module
module.IDLE_S = 0.5
with module.recording(Path(sys.argv[1]), (int(sys.argv[2]),), float(sys.argv[3])):
    begin = time.monotonic_ns()
    time.sleep(2.2)
    print(json.dumps([begin, time.monotonic_ns()]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stands.build_nvml(tmp_path_factory.mktemp("nvml"))


def recorded(folder: Path, library: Path | None, period_s: float = 0.05, **environment: str) -> tuple[energy.Telemetry, int, int]:
    """What a process with that library on its path recorded of some two seconds, and their bounds."""
    folder.mkdir()
    env = {**os.environ, "SLM_PROFILER_POWERCAP": str(folder / "none"), **environment}
    if library is not None:
        env["LD_LIBRARY_PATH"] = str(library)
    done = subprocess.run(
        [sys.executable, "-c", WHILE, str(folder), str(os.getpid()), str(period_s)], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    begin, end = json.loads(done.stdout)
    telemetry = energy.load(folder / "telemetry.parquet")
    assert telemetry is not None
    return telemetry, begin, end


def gpu(telemetry: energy.Telemetry, open_ns: int, close_ns: int) -> energy.Energy:
    return next(row for row in energy.by_scope(telemetry, open_ns, close_ns) if row.source == "nvml")


def test_energy_of_a_window_is_the_stubs_own_counter(tmp_path: Path, library: Path) -> None:
    telemetry, begin, end = recorded(tmp_path / "run", library)
    # Windows that begin and end where the power is high, low, rising and falling: 1 % holds for each.
    for a, b in ((0.0, 1.0), (0.1, 0.6), (0.25, 0.95), (0.4, 0.9)):
        open_ns, close_ns = (int(begin + share * (end - begin)) for share in (a, b))
        found = gpu(telemetry, open_ns, close_ns)
        assert found.scope == "gpu_board" and found.devices == ("gpu0",) and found.method == "counter", found.reason
        assert found.energy_j == what_the_stub_counted(telemetry, open_ns, close_ns)
    assert telemetry.idle_ns is not None
    idle_s = (telemetry.idle_ns[1] - telemetry.idle_ns[0]) / 1e9
    idle_w = gpu(telemetry, begin, end).idle_power_w
    assert idle_w is not None and idle_w * idle_s == what_the_stub_counted(telemetry, *telemetry.idle_ns)


def what_the_stub_counted(telemetry: energy.Telemetry, open_ns: int, close_ns: int) -> Any:
    """Within 1 %, and within what a straight line misses between readings that came late, as on a machine without a free core. Readings
    in time (50 ms) add 0.13 J at each end, those of a sampler that was held up (0.2 s) 2 J."""
    stamps = [t_ns for t_ns, _ in telemetry.series["nvml", "gpu0", "energy_j"]]
    gaps_s = [next((b - a) / 1e9 for a, b in pairwise(stamps) if a <= t_ns <= b) for t_ns in (open_ns, close_ns)]
    expected = stands.stub_energy_j(open_ns, close_ns)
    return pytest.approx(expected, abs=0.01 * expected + sum(stands.STEEPEST_W_PER_S * gap_s**2 / 8 for gap_s in gaps_s))


def test_without_the_energy_symbol_power_is_integrated(tmp_path: Path) -> None:
    telemetry, begin, end = recorded(tmp_path / "run", stands.build_nvml(tmp_path / "lib", "-DNO_ENERGY"))
    assert "no such call" in telemetry.missing["nvml"]["gpu0 energy_j"]
    found = gpu(telemetry, begin, end)
    assert found.method == "power"
    assert found.energy_j == pytest.approx(stands.stub_energy_j(begin, end), rel=0.01)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("-DNO_ENERGY", "-DNO_POWER"), "this driver has no such call"),
        (("-DUNSUPPORTED",), "this board cannot tell"),
        (("-DFORBIDDEN",), "may not ask it: check the permissions of /dev/nvidiactl"),
    ],
)
def test_what_the_driver_does_not_tell_is_null_with_the_reason(tmp_path: Path, flags: tuple[str, ...], says: str) -> None:
    telemetry, begin, end = recorded(tmp_path / "run", stands.build_nvml(tmp_path / "lib", *flags))
    found = gpu(telemetry, begin, end)
    assert found.energy_j is None and says in (found.reason or ""), found.reason
    columns, _ = energy.columns(telemetry, begin, end, "cuda", True, 100.0, 10.0)
    assert columns["energy_j"] is None and says in columns["energy_reason"] and columns["energy_scope"] is None
    # What the driver still tells is kept.
    assert ("nvml", "gpu0", "sm_clock_mhz") in telemetry.series or "-DFORBIDDEN" in flags


def test_no_driver_is_said_so(tmp_path: Path) -> None:
    telemetry, begin, end = recorded(tmp_path / "run", None, LD_LIBRARY_PATH="")
    assert "no NVIDIA driver here" in (gpu(telemetry, begin, end).reason or "")


def test_everything_nvml_tells_is_in_the_file(tmp_path: Path, library: Path) -> None:
    child = os.getpid()
    recorded(tmp_path / "run", library, STUB_PID=str(child))
    rows = pq.read_table(tmp_path / "run" / "telemetry.parquet").to_pylist()
    last = {(r["device"], r["metric"]): r["value"] for r in rows if r["source"] == "nvml"}
    expected = {"sm_clock_mhz": 1980, "memory_clock_mhz": 2619, "temperature_c": 61, "throttle_reasons": 4}
    expected |= {"gpu_busy_percent": 87, "memory_busy_percent": 42, "memory_used_bytes": 30 << 30, "memory_total_bytes": 80 << 30}
    assert {metric: last["gpu0", metric] for metric in expected} == expected
    assert last[f"gpu0/pid{child}", "memory_used_bytes"] == last["gpu0", "engine_memory_bytes"] == 5 << 30
    assert {r["run_id"] for r in rows} == {"run"} and all(r["t_ns"] <= time.monotonic_ns() for r in rows)


def test_a_sampler_that_dies_leaves_the_reason_and_what_it_had(tmp_path: Path, library: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    code = f"""
import os, signal, subprocess, sys, time
from pathlib import Path
from profiler.machine.telemetry import recording as module
module.IDLE_S = 0.2
kept = []
make = subprocess.Popen
def popen(*a, **k):
    kept.append(make(*a, **k))
    return kept[-1]
module.subprocess.Popen = popen
with module.recording(Path({str(folder)!r}), (os.getpid(),), 0.05):
    kept[0].send_signal(signal.SIGKILL)
"""
    env = {**os.environ, "LD_LIBRARY_PATH": str(library)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    telemetry = energy.load(folder / "telemetry.parquet")
    assert telemetry is not None and "sampler died" in telemetry.missing["sampler"][""]
    assert telemetry.series, "what it had written before is kept"

"""Energy of a window from series made up here: counters, power, gaps, scopes, and what is missing."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse import energy
from profiler.analyse.energy import Telemetry, by_scope, columns, counted, integrated
from profiler.machine.telemetry.recording import arrow_schema
from profiler.store import schema

S = 1_000_000_000
OPEN, CLOSE = 10 * S, 20 * S
ENERGY, POWER = "energy_j", "power_w"


def counter(watts: float, start: float = 0.0, step_s: float = 1.0) -> list[tuple[int, float]]:
    return [(int(t * step_s * S), start + watts * t * step_s) for t in range(int(30 / step_s))]


def telemetry(series: dict[tuple[str, str, str], list[tuple[int, float]]], **facts: object) -> Telemetry:
    return Telemetry(series, 1.0, **facts)  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1000), min_size=10, max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_power_between_two_times_is_the_integral_of_the_broken_line(watts: list[float], a: float, b: float) -> None:
    """Against a sum over a thousand small steps."""
    series = [(k * S, value) for k, value in enumerate(watts)]
    low, high = sorted((a, b))
    open_ns, close_ns = (int(share * (len(watts) - 1) * S) for share in (low, high))
    steps = [open_ns + (close_ns - open_ns) * k // 1000 for k in range(1001)]

    def value(t_ns: int) -> float:
        k = min(t_ns // S, len(watts) - 2)
        return watts[k] + (watts[k + 1] - watts[k]) * (t_ns - k * S) / S

    want = sum(value((x + y) // 2) * (y - x) for x, y in pairwise(steps)) / S
    got, why = integrated(series, open_ns, close_ns)
    assert why is None and got == pytest.approx(want, rel=1e-2, abs=1.0)


@given(st.floats(0.1, 1000), st.integers(0, 28 * S), st.integers(0, 28 * S))
def test_a_counter_is_read_off_at_both_edges(watts: float, a: int, b: int) -> None:
    open_ns, close_ns = sorted((a, b))
    got, why = counted(counter(watts, start=1e6), open_ns, close_ns)
    assert why is None and got is not None and math.isclose(got, watts * (close_ns - open_ns) / S, rel_tol=1e-3, abs_tol=1e-3)


def test_what_cannot_be_added_up_says_why() -> None:
    reset = [*counter(10)[:15], *((t, value - 140) for t, value in counter(10)[15:])]
    assert "went back" in (counted(reset, OPEN, CLOSE)[1] or "")
    assert "both sides" in (counted(counter(10)[12:], OPEN, CLOSE)[1] or "")
    power = [(k * S, 50.0) for k in range(30)]
    assert "no power reading for 7.0 s" in (integrated(power[:12] + power[18:], OPEN, CLOSE)[1] or "")
    assert "do not span" in (integrated(power[:15], OPEN, CLOSE)[1] or "")
    assert "fewer than two" in (integrated(power[:1], OPEN, CLOSE)[1] or "")


def test_two_packages_add_up_and_half_a_machine_does_not_count() -> None:
    both = {("rapl", "package-0", ENERGY): counter(50), ("rapl", "package-1", ENERGY): counter(30)}
    row = next(r for r in by_scope(telemetry(both), OPEN, CLOSE) if r.scope == "cpu_package")
    assert row.energy_j == pytest.approx(800) and row.power_mean_w == pytest.approx(80) and row.devices == ("package-0", "package-1")
    lost = telemetry({("rapl", "package-0", ENERGY): counter(50)}, missing={"rapl": {"package-1": "RAPL: not read for so long"}})
    row = next(r for r in by_scope(lost, OPEN, CLOSE) if r.scope == "cpu_package")
    assert row.energy_j is None and row.reason == "RAPL: not read for so long"


def test_a_gpu_run_has_the_hosts_rapl_as_rows_of_their_own_scope() -> None:
    series = {
        ("nvml", "gpu0", ENERGY): counter(300, 5e6),
        ("rapl", "package-0", ENERGY): counter(40),
        ("rapl", "dram-0", ENERGY): counter(6),
    }
    row, rows = columns(telemetry(series, idle_ns=(2 * S, 4 * S)), OPEN, CLOSE, "cuda", True, 6000.0, 30.0)
    assert row["energy_scope"] == "gpu_board" and row["energy_j"] == pytest.approx(3000) and row["energy_source"] == "nvml counter"
    assert row["energy_per_output_token_j"] == pytest.approx(0.5) and row["energy_per_request_j"] == pytest.approx(100)
    assert row["energy_cpu_package_j"] == pytest.approx(400) and row["energy_dram_j"] == pytest.approx(60)
    assert row["energy_wall_j"] is None and row["idle_power_w"] == pytest.approx(300)
    assert {(r.scope, r.energy_j is None) for r in rows} >= {("gpu_board", False), ("cpu_package", False), ("dram", False)}
    on_cpu, _ = columns(telemetry(series), OPEN, CLOSE, "cpu", True, 6000.0, 30.0)
    assert on_cpu["energy_scope"] == "cpu_package" and on_cpu["energy_j"] == pytest.approx(400)


def test_of_several_boards_those_with_the_engine_on_them_count() -> None:
    series = {("nvml", f"gpu{k}", ENERGY): counter(100 * (k + 1)) for k in range(3)}
    rows = [r for r in by_scope(telemetry(series), OPEN, CLOSE) if r.source == "nvml"]
    assert rows[0].energy_j == pytest.approx(6000)
    series[("nvml", "gpu1", "engine_memory_bytes")] = [(OPEN, 1e9)]
    rows = [r for r in by_scope(telemetry(series), OPEN, CLOSE) if r.source == "nvml"]
    assert rows[0].energy_j == pytest.approx(2000) and rows[0].devices == ("gpu1",)


def test_an_endpoint_elsewhere_has_no_energy_of_this_machine_but_that_of_a_joined_meter() -> None:
    series = {("rapl", "package-0", ENERGY): counter(40)}
    row, _ = columns(telemetry(series), OPEN, CLOSE, "remote", False, 100.0, 10.0)
    assert row["energy_j"] is None and "not ours" in row["energy_reason"] and row["energy_cpu_package_j"] is None
    series[("meter", "outlet=3", POWER)] = [(k * S, 700.0) for k in range(30)]
    row, _ = columns(telemetry(series, meter_scope="wall"), OPEN, CLOSE, "remote", False, 100.0, 10.0)
    assert (row["energy_j"], row["energy_scope"], row["energy_source"]) == (pytest.approx(7000), "wall", "meter power")


def test_no_tokens_no_energy_per_token() -> None:
    row, _ = columns(telemetry({("rapl", "package-0", ENERGY): counter(40)}), OPEN, CLOSE, "cpu", True, None, 0.0)
    assert row["energy_j"] is not None and row["energy_per_output_token_j"] is None and row["energy_per_request_j"] is None


def test_the_file_has_the_columns_of_the_store(tmp_path: Path) -> None:
    stored = schema.arrow_schema("telemetry")
    assert [(f.name, f.type) for f in arrow_schema()] == [(f.name, f.type) for f in stored]
    assert energy.load(tmp_path / "none.parquet") is None
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    assert energy.load(tmp_path / "bad.parquet") is None

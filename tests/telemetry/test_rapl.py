"""RAPL on a powercap tree of our own: counters that wrap, that may not be read, that are not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import stands
from hypothesis import given
from hypothesis import strategies as st

from profiler.machine.telemetry.rapl import MAX_W, Rapl, Unwrapped
from profiler.machine.telemetry.source import Absent

S = 1_000_000_000


@given(st.lists(st.integers(0, 999_999), min_size=1, max_size=50), st.integers(0, 999_999))
def test_steps_below_the_range_add_up_whatever_wraps(steps: list[int], start: int) -> None:
    counter, true = Unwrapped(1_000_000), start
    assert counter.add(0, start) == 0.0
    for number, step in enumerate(steps, 1):
        true += step
        # A tenth of a millisecond apart: at most 0.2 J of MAX_W, below the range of 1 J.
        assert counter.add(number * 100_000, true % 1_000_000) == pytest.approx((true - start) / 1e6, abs=1e-9)


def test_a_gap_in_which_it_may_have_wrapped_twice_is_not_trusted() -> None:
    range_uj = 262_143_328_850  # of a Xeon: 2^32 units of 61 µJ
    longest_s = int(range_uj / 1e6 / MAX_W)
    assert 100 < longest_s < 200, "a usual period is far below it"
    fine, lost = Unwrapped(range_uj), Unwrapped(range_uj)
    fine.add(0, 10)
    lost.add(0, 10)
    assert fine.add(longest_s * S, 5_000_000) is not None
    assert lost.add((longest_s + 1) * S, 5_000_000) is None


def test_packages_and_dram_are_read_and_parts_of_a_package_are_not(tmp_path: Path) -> None:
    rapl = Rapl(stands.powercap(tmp_path / "cap", range_uj=60_000_000))
    assert {device for device, _, _ in rapl.sample(0)} == {"package-0", "package-1", "dram-0", "dram-1"}
    (tmp_path / "cap" / "intel-rapl:1" / "energy_uj").write_text("4000000\n")  # from 54 J through 60 J to 4 J
    (tmp_path / "cap" / "intel-rapl:0:0" / "energy_uj").write_text("54500000\n")
    now = {device: value for device, _, value in rapl.sample(S // 100)}
    assert now == {"package-0": 0.0, "package-1": 10.0, "dram-0": 0.5, "dram-1": 0.0}


def test_missing_dram_is_said(tmp_path: Path) -> None:
    rapl = Rapl(stands.powercap(tmp_path / "cap", dram=False))
    assert rapl.missing == {"dram": "RAPL: this CPU has no DRAM domain"}


def test_no_tree_is_said(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"no powercap zone .* virtual machines"):
        Rapl(tmp_path)


def test_a_counter_that_vanishes_is_dropped_with_its_reason(tmp_path: Path) -> None:
    rapl = Rapl(stands.powercap(tmp_path / "cap"))
    (tmp_path / "cap" / "intel-rapl:0" / "energy_uj").unlink()
    assert "package-0" not in {device for device, _, _ in rapl.sample(0)}
    assert "could not be read any more" in rapl.missing["package-0"]


def test_a_counter_for_root_only_names_the_way_out() -> None:
    """As the kernel has it since CVE-2020-8694: mode 0400. Root would read it all the same, so root steps down for the test."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        root = stands.powercap(Path(made) / "cap")
        for counter in root.glob("*/energy_uj"):
            counter.chmod(0o400 if os.geteuid() == 0 else 0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(Absent, match=r"root only .*CVE-2020-8694.*sudo chmod a\+r"):
                Rapl(root)
        finally:
            os.seteuid(before)

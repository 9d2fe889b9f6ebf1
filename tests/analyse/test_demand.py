"""Demands: text and TOML that mean none are one error, and what a trace leaves out is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from profiler.analyse.demand import of_trace, parse, read_plan
from profiler.errors import SpecError

MIX = '[[mix]]\nworkload = "a"\nrate = 1.0\n[[mix]]\nworkload = "b"\nrate = 1.0\n'


@pytest.mark.parametrize("text", ["1e400users", "1e400users:30s", "1e400rps", "1e400tps", "1e10users:1s"])
def test_a_demand_beyond_any_fleet(text: str) -> None:
    with pytest.raises(SpecError, match="beyond any fleet"):
        parse(text)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("[demand]\nrate = 1.0\nqos = 5\n", "demand.qos: must be a text or a table"),
        ("[demand]\nrate = 1.0\nworkload = 5\n", "demand.workload: must be a name"),
        (f"[demand]\nrate = 1{'0' * 400}\n", "demand.rate: must be a number"),
        (MIX + "qos = 5\n", "mix 2.qos: must be a text or a table"),
        (MIX.replace('"b"', "5"), "mix 2.workload: must be a name"),
        ("[fleet]\nspares = 2\n" + MIX, "fleet.spares: a mixed fleet has no spares"),
        ("[fleet]\nautoscale = true\n" + MIX, "fleet.autoscale"),
        ("[demand]\ncv = 3.0\n" + MIX, "got demand.cv"),
    ],
)
def test_a_plan_that_cannot_be_meant(tmp_path: Path, body: str, says: str) -> None:
    file = tmp_path / "demand.toml"
    file.write_text(body)
    with pytest.raises(SpecError) as caught:
        read_plan(file)
    assert says in caught.value.message


def test_turns_of_a_trace_that_have_no_time_are_counted_as_left_out(tmp_path: Path) -> None:
    file = tmp_path / "turns.jsonl"
    rows = [{"t_s": 10.0 * n, "isl": 8, "osl": 8, "session": f"u{n}"} for n in range(5)]
    turns = [{"after_s": 1.0, "isl": 8, "osl": 8, "session": f"u{n}"} for n in range(5)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert of_trace(file, "t").note == ""
    file.write_text("\n".join(json.dumps(row) for pair in zip(rows, turns, strict=True) for row in pair))
    found = of_trace(file, "t")
    assert found.rate == pytest.approx(5 / 40) and "5 of 10 requests" in found.note and "2.00 times" in found.note

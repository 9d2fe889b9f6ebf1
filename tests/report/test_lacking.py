"""Reports of runs that lack what a figure wants: every joule of a scope from invalid runs, imports without a count or a throughput."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from profiler.cli.main import cli
from profiler.report import figures, html, telemetry
from profiler.report.selection import Selection, select
from profiler.store.foreign import mapping as mappings
from profiler.store.foreign.bring import bring
from profiler.store.store import Store

GUIDELLM = Path(__file__).resolve().parents[1] / "store" / "foreign" / "guidellm" / "out.json"
UNKNOWN = "n not stated by the source"
MAPPING = """
description = "a table"
[source]
tool = "T"
published = "here"
licence = "own"
date = "2026-11"
[constants]
model = "m"
backend = "b"
device = "d"
workload = "w"
load_kind = "concurrency"
[columns]
users = { to = "load", unit = "users" }
tpot = { to = "tpot_p95_s", unit = "ms", formula = "t", definition = "of a request" }
n = { to = "n_requests", unit = "count" }
"""
TPS = 'tps = { to = "output_tps", unit = "tokens/s", formula = "r", definition = "whole run" }\n'


def imported(folder: Path, table: str, mapping: str) -> Selection:
    (folder / "t.csv").write_text(table)
    (folder / "t.toml").write_text(mapping)
    bring(Store(folder / "r"), folder / "t.csv", mappings.load(str(folder / "t.toml")))
    return select(Store(folder / "r"))


def test_energy_of_invalid_runs_alone_draws_no_figure(tmp_path: Path, keep_run: Callable[..., str]) -> None:
    store = Store(tmp_path / "r")
    energy = {"energy_j": 9.0, "energy_per_output_token_j": 0.05, "energy_reason": None}
    broken = {"validity": "invalid", "validity_reasons": ["late sends"]}
    keep_run(store, "openvino-xeon-int8", "concurrency", 1, energy_scope="dram", **energy, **broken)
    assert telemetry.all_of(select(store), "quickstart-chat")["energy"] == []
    keep_run(store, "openvino-xeon-int8", "concurrency", 2, energy_scope="host", **energy)
    keep_run(store, "openvino-xeon-int8", "concurrency", 4, energy_scope="host", **energy | {"output_tps": None})
    (figure,) = telemetry.all_of(select(store), "quickstart-chat")["energy"]
    assert "scope host" in figure.caption and "n per point 64 requests. " in figure.caption and len(figure.plot.data[0].x) == 1
    assert "0.05 J/token (dram)" in html.render(select(store))


def test_guidellms_benchmarks_by_map_make_a_report(tmp_path: Path) -> None:
    """As `profile results import --map guidellm` and `profile report` make it: its table has no count of requests."""
    whole = json.loads(GUIDELLM.read_text())
    more: dict[str, Any] = json.loads(json.dumps(whole["benchmarks"][0]))
    more["config"]["strategy"]["streams"] = 8
    whole["benchmarks"].append(more)
    (tmp_path / "two.json").write_text(json.dumps(whole))
    results = ["--results", str(tmp_path / "r")]
    done = CliRunner().invoke(cli, ["results", "import", str(tmp_path / "two.json"), "--map", "guidellm", *results], catch_exceptions=False)
    assert "added 2 imported runs" in done.output, done.output
    told = CliRunner().invoke(cli, ["report", *results], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    text = (tmp_path / "r" / "report.html").read_text()
    assert f"Logarithmic upwards. {UNKNOWN}." in text and f"suspect, {UNKNOWN}" in text and "n None" not in text


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (("", ""), f". {UNKNOWN}."),
        (("9", "7"), "n per point 7–9 requests."),
        (("9", ""), f"n per point 9 requests, 1 of 2 points: {UNKNOWN}."),
    ],
)
def test_a_count_that_some_rows_lack(tmp_path: Path, counts: tuple[str, str], says: str) -> None:
    selection = imported(tmp_path, f"users,tpot,n,tps\n1,20,{counts[0]},50\n2,25,{counts[1]},80\n", MAPPING + TPS)
    figure = figures.throughput_latency(selection, "w", "tpot")
    assert figure is not None and figure.caption.endswith(says)
    assert [note[0] for note in figure.plot.data[0].customdata] == [f"not judged, suspect, {f'n {n}' if n else UNKNOWN}" for n in counts]


def test_without_a_throughput_there_is_no_curve(tmp_path: Path) -> None:
    selection = imported(tmp_path, "users,tpot,n\n1,20,9\n2,25,9\n", MAPPING)
    assert figures.throughput_latency(selection, "w", "tpot") is None
    assert "25.0 ms" in html.render(selection)

"""`profiler.open`: frames are the store's tables with their meaning attached, figures are the report's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic

import profiler as pf
from profiler.errors import ProfilerError, ReportError, StoreError, UnknownNameError, UsageError
from profiler.report import figures
from profiler.report.selection import of_cells
from profiler.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "notebooks" / "data" / "closed-loop"
TELEMETRY = ROOT / "notebooks" / "data" / "open-loop"
QOS = "ttft_p95<=1s, tpot_p95<=80ms"
OFFER = ("AMD EPYC=0.096 USD/h 2026-11-24",)


@pytest.fixture(scope="module")
def r() -> pf.Results:
    return pf.open(DATA)


def test_import_profiler_loads_nothing() -> None:
    heavy = "numpy", "pandas", "pyarrow", "duckdb", "plotly", "pydantic", "click", "profiler.frames", "profiler.errors"
    code = f"import sys, profiler; assert 'open' in dir(profiler); print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_runs_are_the_run_json_files(r: pf.Results) -> None:
    documents = [json.loads(path.read_text())["run"] for path in sorted((DATA / "runs").glob("*/*/run.json"))]
    assert list(r.runs.run_id) == [d["run_id"] for d in documents]
    for column in ("load", "output_tps", "ttft_sched_p95_s"):
        assert r.runs[column].tolist() == [d[column] for d in documents]
    assert isinstance(r.runs, pd.DataFrame)


def test_requests_and_tokens_are_the_parquet_files(r: pf.Results) -> None:
    files = sorted((DATA / "runs").glob("*/*/requests.parquet"))
    assert len(r.requests()) == sum(pq.ParquetFile(path).metadata.num_rows for path in files)
    one = r.where(run_id=files[0].parent.name)
    assert one.requests().ttft_s.dropna().tolist() == pq.read_table(files[0]).column("ttft_s").drop_null().to_pylist()
    counted = sum(int(sum(tokens)) for tokens in one.requests().arrival_tokens.dropna())
    assert one.tokens().tokens.sum() == counted > 0


def test_every_frame_says_units_provenance_and_why_values_are_missing(r: pf.Results) -> None:
    made = [r.runs, r.requests(), r.tokens(), r.telemetry(), r.engine_metrics(), r.latency(), r.fit(QOS, "0.5rps", offers=OFFER)]
    made += [r.verdicts(QOS), r.cost(QOS, "0.5rps", offers=OFFER)]
    sampled = pf.open(TELEMETRY)
    for frame in [*made, sampled.runs, sampled.requests(), sampled.telemetry(), sampled.latency()]:
        assert frame.attrs["provenance"], frame.attrs["table"]
        assert set(frame.columns) <= set(frame.attrs["definitions"]) | {"run_id", "request_id"}
        json.dumps(frame.attrs)
        for column, n in frame.isna().sum().items():
            assert sum(frame.attrs["null"].get(column, {}).values()) == n, (frame.attrs["table"], column)
            assert all(reason for reason in frame.attrs["null"].get(column, {}))
    assert r.runs.attrs["units"]["ttft_p95_s"] == "s"
    assert r.runs[["energy_j"]].attrs["null"]["energy_j"] == {r.runs.energy_reason.iloc[0]: len(r)}


def test_latency_is_tidy_and_the_percentiles_are_those_of_the_requests(r: pf.Results) -> None:
    found = r.latency()
    assert len(found) == len(r) * 4 * 4
    requests = r.requests()
    for row in found[(found.metric == "ttft_sched") & (found.statistic == "p95")].itertuples():
        cohort = requests[(requests.run_id == row.run_id) & requests.in_window.astype(bool)]
        values = sorted(cohort.ttft_sched_s.where(cohort.error_kind.isna(), float("inf")).fillna(float("inf")))
        assert row.value_s == values[-(-95 * len(values) // 100) - 1] and row.n == len(values)


def test_where_narrows_by_one_value_or_several_and_knows_its_words(r: pf.Results) -> None:
    some = r.where(load_kind="concurrency", load=[1, 16])
    assert set(some.runs.load) == {1.0, 16.0} and len(some) == len(r)
    assert len(r.where(backend="openvino-xeon-int8").where(load=1).requests()) == len(r.requests(backend="openvino-xeon-int8", load=1))
    with pytest.raises(UnknownNameError, match="no backend among these runs called 'openvino-xeon-int9'") as caught:
        r.where(backend="openvino-xeon-int9")
    assert "openvino-xeon-int8" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="colour"):
        r.where(colour="red")  # type: ignore[call-arg]


def test_arrow_has_the_schema_and_survives_parquet(r: pf.Results, tmp_path: Path) -> None:
    table = r.arrow.requests()
    assert table.schema.field("ttft_s").metadata[b"unit"] == b"s" and table.num_rows == len(r.requests())
    pq.write_table(r.arrow.runs, tmp_path / "runs.parquet")
    ((n,),) = duckdb.sql(f"select count(*) from '{tmp_path / 'runs.parquet'}'").fetchall()
    assert n == len(r)


def test_fit_and_cost_are_the_commands_answers(r: pf.Results) -> None:
    from click.testing import CliRunner

    from profiler.cli.main import cli

    arguments = ["fit", "--json", "--results", str(DATA), "--qos", QOS, "--demand", "0.5rps", "--offer", OFFER[0]]
    said = json.loads(CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout)
    fit, cost = r.fit(QOS, "0.5rps", offers=OFFER), r.cost(QOS, "0.5rps", offers=OFFER)
    for c in said["candidates"]:
        row = fit[(fit.backend == c["backend"]) & (fit.workload == c["workload"])].iloc[0]
        assert (row.limit_lower, row.replicas) == (c["limit"]["lower"], c["capacity"]["replicas"])
        own = cost[(cost.backend == c["backend"]) & (cost.workload == c["workload"])]
        assert len(own) == sum(len(one["points"]) for one in c["costs"])
    assert [text for text in fit.attrs["notes"] if text == said["rankings"][0]["sentence"]]
    verdicts = r.verdicts(QOS)
    assert set(zip(verdicts.load, verdicts.result, strict=True)) >= {(v["load"], v["result"]) for v in said["candidates"][0]["verdicts"]}


def test_figures_are_the_reports(r: pf.Results) -> None:
    store = Store(DATA)
    selection = of_cells(store, "all", {row["cell_id"] for row in store.rows()})
    (workload,) = selection.workloads
    for metric in figures.METRICS:
        made = figures.throughput_latency(selection, workload, metric)
        assert made is not None
        ours = r.plot.throughput_latency(metric)  # type: ignore[arg-type]
        assert ours.to_dict()["data"] == made.plot.to_dict()["data"]
        assert made.caption in ours.layout.meta["caption"]
    assert "curve-" + workload + "-ttft" in r.plot.all()
    sampled = pf.open(TELEMETRY)
    assert sampled.plot.telemetry().data and len(sampled.telemetry()) > 100 and len(sampled.engine_metrics()) > 10
    with pytest.raises(ReportError, match="nothing was sampled"):
        r.plot.telemetry()
    for draw in (r.plot.attainment, r.plot.cost_at_demand, r.plot.idle, r.plot.sensitivity):
        assert draw(QOS, "0.5rps", offers=OFFER).data


def test_what_cannot_be_drawn_is_said(r: pf.Results, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run at 3 users") as caught:
        r.plot.distribution(users=3)
    assert "users=1" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="one load"):
        r.plot.distribution()
    with pytest.raises(UnknownNameError, match="workload"):
        r.plot.throughput_latency(workload="nothing")
    with pytest.raises(UnknownNameError, match="metric"):
        r.plot.throughput_latency("goodput")  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    empty = pf.open(tmp_path / "empty")
    assert len(empty.runs) == len(empty.requests()) == len(empty.latency()) == 0 and "0 runs" in repr(empty)
    with pytest.raises(ReportError, match="no runs"):
        empty.plot.throughput_latency()
    with pytest.raises(StoreError, match="no such results folder"):
        pf.open(tmp_path / "missing")


def test_two_machines_are_not_one_line_and_two_workloads_are_not_one_figure(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for machine in ("m1", "m2"):
        document = synthetic.document(workload="w", backend="null", comparison_id=machine, cell_id=machine, provenance_class="measured")
        store.keep(document, [synthetic.record(0)])
    store.keep(synthetic.document(workload="other", backend="null", comparison_id="m1", cell_id="c3"), [synthetic.record(0)])
    both = pf.open(store.path)
    assert "2 differing machines" in " ".join(both.warnings) and "⚠" in both._repr_html_()
    with pytest.raises(UsageError, match="differing machines"):
        both.plot.throughput_latency(workload="w")
    with pytest.raises(UsageError, match="2 workloads"):
        both.where(comparison_id="m1").plot.telemetry()


def test_imported_figures_come_with_their_class_and_no_percentile() -> None:
    published = pf.open(ROOT / "results" / "reference")
    found = published.latency()
    assert set(found.statistic) == {"mean"} and set(found.provenance_class) == {"imported"}
    assert published.runs.attrs["provenance"] == {"imported": len(published)}
    assert "imported: the source does not give it" in published.runs.attrs["null"]["ttft_p95_s"]


def test_html_escapes_shows_units_and_says_what_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    hostile = "<script>alert(1)</script>"
    document = synthetic.document(backend=hostile, model=hostile, workload="w", energy_reason="no sensor", provenance_class="measured")
    store.keep(document, [synthetic.record(0), synthetic.record(1, error_kind="timeout", tpot_s=None)])
    r = pf.open(store.path)
    for text in (r._repr_html_(), r.runs._repr_html_(), r.runs[["backend", "energy_j"]]._repr_html_()):
        assert "<script>" not in text and "&lt;script&gt;" in text
    assert "Missing: energy_j: no sensor" in r.runs[["backend", "energy_j"]]._repr_html_()
    shown = r.requests()[["request_id", "tpot_s"]]._repr_html_()
    assert "failed: timeout" in shown and ">s</span>" in shown


def test_errors_are_of_one_kind() -> None:
    with pytest.raises(ProfilerError):
        pf.open("results/none-here")
    with pytest.raises(AttributeError):
        pf.nothing  # noqa: B018


def test_compare_is_the_commands(tmp_path: Path) -> None:
    from profiler.analyse import compare as analysis

    store = Store(tmp_path / "results")
    for sweep, slower in (("a", 0), ("b", 40)):
        for start in range(4):
            requests = [synthetic.record(i, intended_ms=20 * i, ttft_ms=100 + slower + start + i % 7) for i in range(60)]
            columns = {
                "sweep_id": sweep,
                "start_id": f"{sweep}{start}",
                "repeat": start,
                "workload": "w",
                "model": "m",
                "provenance_class": "measured",
            }
            store.keep(synthetic.document(**columns), requests)
    r = pf.open(store.path)
    found = r.compare({"sweep_id": "a"}, {"sweep_id": "b"}, "ttft_p95 > +5%")
    assert found.outcome.tolist() == ["regression"] and found.starts_new.tolist() == [4] and 1.3 < found.ratio.iloc[0] < 1.5
    assert found.attrs["notes"][0].startswith("regression") and found.attrs["provenance"] == {"runs measured": 8}
    same = analysis.compare(r.where(sweep_id="a").selection(), r.where(sweep_id="b").selection(), ["ttft_p95 > +5%"])
    assert same.compared[0].ratio == found.ratio.iloc[0]

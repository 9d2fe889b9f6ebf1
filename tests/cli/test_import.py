"""`profile results import`, and what `profile fit` and the report say of the reference figures that ship."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from profiler.cli.main import cli
from profiler.store.foreign import mapping as mappings
from profiler.store.foreign.bring import bring
from profiler.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
PER_RUN = ("run_id", "profiler_version")


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A copy: reading a store may tidy it."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "reference"))


def test_the_reference_runs_are_those_of_its_table(tmp_path: Path, reference: Path) -> None:
    bring(Store(tmp_path / "again"), REFERENCE / "openvino-xeon.csv", mappings.load("reference-openvino-xeon"))
    made, shipped = (
        [{k: v for k, v in row.items() if k not in PER_RUN} for row in Store(p).rows()] for p in (tmp_path / "again", reference)
    )
    assert made == shipped and len(made) == 50


def test_fit_answers_from_the_reference_without_a_bound(reference: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    arguments = ["fit", "--results", str(reference), "--qos", "tpot_p95<=100ms"]
    done = CliRunner().invoke(cli, [*arguments, "--json", "--out", str(page)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = [c for c in json.loads(done.stdout)["candidates"] if c["device"].endswith("8380")]
    assert len(found) == 3
    for c in found:
        told = c["imported"]
        assert c["provenance_class"] == "imported" and told["bounds"] == "none: point estimate, no bound"
        assert {v["result"] for v in c["verdicts"]} == {"UNDECIDED"} and c["limit"] is None
        assert 0.5 <= told["knee"]["follows"] < told["knee"]["leaves"] <= 0.7
        assert told["means"][0]["keeps"] < 0.4 and told["means"][0]["above"] == 0.4
        assert "profile sweep" in told["to_measure"][0] and "Apache-2.0" in told["source"]
    text = page.read_text()
    assert "Imported: throughput and its knee" in text and "Imported: mean TPOT" in text and "imported_rows" not in text
    table = CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout
    assert "Nothing is proven to keep" in table and "imported figures have no bounds" in " ".join(table.split())


def test_the_reference_answers_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["results", "ls", "--results", "results/reference", "--json"], catch_exceptions=False)
    assert done.exit_code == 0 and len(json.loads(done.stdout)) == 50


def test_import_says_what_it_believed_and_twice_adds_nothing(tmp_path: Path) -> None:
    arguments = [
        "results",
        "import",
        str(REFERENCE / "openvino-xeon.csv"),
        "--map",
        "reference-openvino-xeon",
        "--results",
        str(tmp_path / "r"),
    ]
    dry = CliRunner().invoke(cli, [*arguments, "--dry-run"], catch_exceptions=False)
    assert "would add 50 imported runs" in dry.stdout and not (tmp_path / "r").exists()
    first, second = (CliRunner().invoke(cli, arguments, catch_exceptions=False) for _ in range(2))
    assert "'mean_tpot' [ms] is tpot_mean_s, by ovms-docs-tpot-mean" in first.stdout and "added 50 imported runs" in first.stdout
    assert "added 0 imported runs" in second.stdout and "50 known already" in second.stdout


def test_an_import_is_not_the_newest_sweep(tmp_path: Path, reference: Path) -> None:
    from profiler.report.selection import select

    measured = {"sweep_id": "s1", "cell_id": "c", "environment_hash": "e", "repeat": 0, "status": "done", "validity": "valid"}
    measured |= {"provenance_class": "measured", "workload": "w", "backend": "b", "load_kind": "concurrency", "load": 1.0}
    Store(tmp_path / "r").keep({"run": measured, "provenance": {}})
    bring(Store(tmp_path / "r"), REFERENCE / "openvino-xeon.csv", mappings.load("reference-openvino-xeon"))
    assert select(Store(tmp_path / "r")).sweep_id == "s1"
    assert select(Store(reference)).sweep_id.startswith("import-")

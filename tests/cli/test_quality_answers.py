"""Quality beside speed in fit, plan, cost and the report, of the real runs and evaluations that ship with the notebooks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import profiler as pf
from profiler.cli import main as program
from profiler.report import html
from profiler.report.selection import select
from profiler.store.store import Store

DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data" / "closed-loop"
QOS = "ttft_p95<=1s, tpot_p95<=80ms"
FIT = ["fit", "--qos", QOS, "--offer", "AMD EPYC=0.096 USD/h 2026-11-24", "--demand", "0.5rps"]
BF16, INT8 = "openvino-xeon-bf16", "openvino-xeon-int8"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "r"))


def change(results: Path, backend: str, edit: Any) -> None:
    for path in (results / "quality").glob("*.json"):
        document = json.loads(path.read_text())
        if document["backend"]["name"] == backend:
            edit(document)
            path.write_text(json.dumps(document))


def damaged(document: dict[str, Any]) -> None:
    """As if its weights were noised: each token less probable, and the answers of what it passed wrong."""
    document["drift"]["windows"] = [[value - 0.3 for value in window] for window in document["drift"]["windows"]]
    for one in document["tasks"]["examples"]:
        one.update(passed=False, answer=HOSTILE, reason="wrong")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        program.main(list(words))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return int(stop.value.code or 0), captured.out, captured.err


def fitted(capsys: pytest.CaptureFixture[str], results: Path, *more: str) -> dict[str, Any]:
    code, out, _ = run(capsys, *FIT, "--results", str(results), "--json", *more)
    assert code == 0
    return dict(json.loads(out, parse_constant=lambda name: pytest.fail(name)))


def test_a_margin_makes_the_verdict_joint_and_the_ladder_says_what_it_saves(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = fitted(capsys, results, "--drift-margin", "2%")
    found = {c["backend"]: c for c in answer["candidates"]}
    assert answer["quality"] == {"margin": None, "drift_margin": 0.02, "reference": None}
    assert (found[INT8]["verdict"]["result"], found[INT8]["verdict"]["of"]) == ("FITS", "quality and QoS")
    assert found[INT8]["quality"]["evaluation"]["verdict"] == "NON-INFERIOR" and found[INT8]["quality"]["evaluation"]["reference"] == BF16
    (ladder,) = answer["rankings"][0]["ladders"]
    assert (ladder["start"], ladder["smallest"]) == (BF16, INT8) and 0.4 < ladder["saving"]["weights_share"] < 0.6
    assert ladder["steps"][0].startswith(f"Start here: {BF16}") and ladder["steps"][-1].startswith(
        f"The smallest that passes is {INT8}: it saves"
    )


def test_undecided_inferior_and_missing_never_fit(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {c["backend"]: c for c in fitted(capsys, results, "--drift-margin", "2%", "--margin", "5%")["candidates"]}
    assert few[INT8]["verdict"]["result"] == "UNDECIDED" and "examples, if they go on like these" in few[INT8]["verdict"]["decide"][0]
    change(results, INT8, damaged)
    answer = fitted(capsys, results, "--drift-margin", "2%", "--margin", "5%")
    bad = {c["backend"]: c for c in answer["candidates"]}
    assert bad[INT8]["verdict"]["result"] == "FAILS" and {v["joint"] for v in bad[INT8]["verdicts"]} == {"FAILS"}
    assert [c["backend"] for found in answer["rankings"][0]["by_class"].values() for c in found] == [BF16]
    change(results, INT8, lambda document: document["model"].update(content_hash="0" * 16))
    missing = {c["backend"]: c for c in fitted(capsys, results, "--drift-margin", "2%")["candidates"]}
    assert missing[INT8]["verdict"]["result"] == "UNDECIDED" and missing[INT8]["quality"]["evaluation"] is None
    assert missing[INT8]["verdict"]["decide"] == [missing[INT8]["quality"]["command"]] and INT8 in missing[INT8]["quality"]["command"]


def test_without_a_margin_it_is_shown_and_said_that_nothing_was_judged(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *FIT, "--results", str(results))
    flat = " ".join(out.split())
    assert code == 0 and "verdicts are of QoS alone: no margin was stated" in flat and "+0.60%" in flat and "20 of 24" in flat
    assert "demonstration only" in flat and "Start here:" in flat and "depends on what you accept" in flat
    answer = fitted(capsys, results)
    assert {c["verdict"]["of"] for c in answer["candidates"]} == {"QoS"} and {c["verdict"]["quality"] for c in answer["candidates"]} == {
        None
    }


def test_margins_of_a_target_file_and_of_a_plan(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "target.toml"
    target.write_text('[qos]\nttft_p95 = "<=1s"\n[quality]\ndrift_margin = "2%"\n')
    code, out, _ = run(capsys, "fit", "--qos", str(target), "--results", str(results), "--json")
    assert code == 0 and json.loads(out)["quality"]["drift_margin"] == 0.02
    demand = tmp_path / "demand.toml"
    demand.write_text(f'[demand]\nrate = 0.5\nqos = "{QOS}"\n[quality]\ndrift_margin = 0.001\nreference = "{BF16}"\n')
    code, out, _ = run(capsys, "plan", str(demand), "--results", str(results), "--json")
    found = {c["backend"]: c["verdict"]["result"] for c in json.loads(out)["candidates"]}
    assert code == 0 and found == {BF16: "FITS", INT8: "FAILS"}
    code, out, _ = run(capsys, "cost", "--qos", QOS, "--offer", FIT[4], "--results", str(results), "--drift-margin", "2%")
    assert code == 0 and "NON-INFERIOR" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--margin", "5"], "not a share between 0 and 1"),
        (["--drift-margin", "much"], "--drift-margin 'much'"),
        (["--reference", "nobody"], "it was not evaluated"),
    ],
)
def test_bad_margins_are_one_line(results: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    for command in (FIT, ["report", "--out", str(results / "x.html")]):
        code, _, err = run(capsys, *command, "--results", str(results), *words)
        assert code == 2 and says in err


def test_an_evaluation_that_cannot_be_read_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "quality" / "torn.json").write_text("{")
    assert any("torn.json" in note for note in fitted(capsys, results)["notes"])


def test_the_report_shows_what_was_evaluated_and_runs_no_markup_of_an_answer(results: Path) -> None:
    change(results, INT8, damaged)
    page = html.render(select(Store(results)))
    assert 'id="quality"' in page and "Answers that a variant loses" in page and "demonstration only" in page
    assert HOSTILE not in page and "&lt;script&gt;document.title=" in page
    assert "evaluated apart from timing" in page and "not evaluated; a faster variant" not in page
    shutil.rmtree(results / "quality")
    bare = html.render(select(Store(results)))
    assert 'id="quality"' not in bare and "Quality was not evaluated" in bare


def test_frames_hold_the_same(results: Path) -> None:
    r = pf.open(results)
    frame = r.quality(drift_margin="2%").set_index("backend")
    assert frame.verdict[INT8] == "NON-INFERIOR" and frame.is_reference[BF16] and frame.passed[INT8] == 20
    assert "demonstration only" in r.quality().attrs["notes"][0]
    fit = r.fit(QOS, drift_margin=0.02).set_index("backend")
    assert fit.verdict[INT8] == "FITS" and fit.quality[INT8] == "NON-INFERIOR"
    shutil.rmtree(results / "quality")
    none = pf.open(results).quality().set_index("backend")
    assert none.perplexity.isna().all() and none.command[INT8].startswith("profile evaluate")


def test_compare_takes_a_margin_as_a_rule(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = (f"{results}:backend={BF16}", f"{results}:backend={INT8}")
    code, out, _ = run(capsys, "compare", *sides)
    assert code == 0 and f"Quality: {INT8} against {BF16}: perplexity +0.60%" in out
    change(results, INT8, damaged)
    code, out, _ = run(capsys, "compare", *sides, "--drift-margin", "2%", "--json")
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert code == found["exit_code"] == 4 and found["outcome"] == "regression" and found["quality"][0]["result"] == "INFERIOR"
    assert found["reason"].startswith(f"regression: quality of {INT8} INFERIOR")
    shutil.rmtree(results / "quality")
    code, out, _ = run(capsys, "compare", *sides, "--drift-margin", "2%", "--json")
    assert code == 5 and "profile evaluate" in json.loads(out)["quality"][0]["text"]
    _, out, _ = run(capsys, "compare", *sides)
    assert "Quality:" not in out

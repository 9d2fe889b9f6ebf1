"""`profile compare` as CI runs it: stores measured here with the null engine, each outcome by its exit code."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BACKEND = 'summary = "paced server for tests"\nengine = "null"\ndevice = "cpu"\nprecision = "none"\n[options]\nttft_ms = 4.0\nitl_ms = {itl}\nscale_cv = 0.02\n'
LOAD = ("--isl", 8, "--osl", 8, "--concurrency", 2, "--requests", 20, "--duration", "0.3s")
SLOWER = ("--fail-if", "tpot_p50 > +5%")


def profile(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SLM_PROFILER_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "profiler", *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Both backends in three interleaved starts each, by --ab; `slow` takes three times as long per token, more than any noise."""
    folder = tmp_path_factory.mktemp("ab")
    (folder / "fast.toml").write_text(BACKEND.format(itl=2.0))
    (folder / "slow.toml").write_text(BACKEND.format(itl=6.0))
    done = profile("compare", "--ab", "fast.toml", "slow.toml", "--starts", 3, *LOAD, *SLOWER, "--with-suspect", "--json", cwd=folder)
    return folder, done


def runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["run"] for path in sorted(folder.glob("results/runs/*/*/run.json"))]


def test_ab_measures_both_interleaved_and_proves_the_regression(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = measured
    assert done.returncode == 4, done.stderr
    found = json.loads(done.stdout)
    assert found["outcome"] == "regression" and found["exit_code"] == 4 and "option itl_ms: 2.0 → 6.0" in found["changed"]
    (row,) = found["compared"]
    assert row["starts"] == [3, 3] and 2 < row["ratio"] < 4 and row["lo"] > 1.05 and row["detectable"] > 1.05
    order = [r["backend"] for r in runs(folder)]
    assert sorted(order) == ["fast"] * 3 + ["slow"] * 3
    assert all({order[i], order[i + 1]} == {"fast", "slow"} for i in (0, 2, 4)), "each repeat starts both before the next one does"


def test_an_ab_that_is_asked_again_measures_nothing(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = measured
    before = len(runs(folder))
    again = profile("compare", "--ab", "fast.toml", "slow.toml", "--starts", 3, *LOAD, *SLOWER, "--with-suspect", cwd=folder)
    assert again.returncode == 4 and len(runs(folder)) == before, again.stderr


@pytest.mark.parametrize(
    ("base", "new", "rule", "code", "says"),
    [
        ("results:backend=fast", "results:backend=slow", "tpot_p50 > +5%", 4, "regression proven"),
        ("results:backend=slow", "results:backend=fast", "tpot_p50 > +5%", 0, "within every limit"),
        ("backend=slow", "backend=fast", "tpot_p95 > +20%", 0, "within every limit"),
        ("results:backend=fast,repeat=0", "results:backend=slow,repeat=0", "tpot_p50 > +5%", 5, "one start on a side"),
    ],
)
def test_each_outcome_has_its_exit_code(
    measured: tuple[Path, subprocess.CompletedProcess[str]], base: str, new: str, rule: str, code: int, says: str
) -> None:
    done = profile("compare", base, new, "--fail-if", rule, "--with-suspect", cwd=measured[0])
    assert done.returncode == code and says in done.stdout, done.stdout + done.stderr


def test_without_a_rule_it_shows_and_never_fails(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = profile("compare", "results:backend=fast", "results:backend=slow", "--with-suspect", cwd=measured[0])
    assert done.returncode == 0 and "✗ regression" in done.stdout and "output_tps < -5%" in done.stdout, done.stdout + done.stderr


def test_run_against_run(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    rows = runs(measured[0])
    a, b = (next(r["run_id"] for r in rows if r["backend"] == name) for name in ("fast", "slow"))
    done = profile("compare", f"run:{a}", b, *SLOWER, "--with-suspect", "--json", cwd=measured[0])
    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout)["compared"][0]["ratio"] > 2


def test_markdown_and_page_say_the_same_and_hostile_text_is_inert(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = measured
    arguments = ["compare", "results:backend=fast", "results:backend=slow", *SLOWER, "--with-suspect"]
    done = profile(*arguments, "--markdown", "out/summary.md", "--html", "out/page.html", "--json", cwd=folder)
    assert done.returncode == 4 and json.loads(done.stdout)["outcome"] == "regression", done.stderr
    text, page = (folder / "out/summary.md").read_text(), (folder / "out/page.html").read_text()
    assert text.startswith("## ✗ regression proven") and "| tpot\\_p50 \\> +5% | ✗ regression |" in text
    assert profile(*arguments, "--markdown", "-", cwd=folder).stdout.strip() == text.strip()
    (folder / "out" / "taken").mkdir(exist_ok=True)
    done = profile(*arguments, "--markdown", "out/taken", cwd=folder)
    assert done.returncode == 1 and "out/taken: cannot be written: Is a directory" in done.stderr and "--markdown" in done.stderr
    assert not [path for path in (folder / "out").iterdir() if "taken." in path.name]
    done = profile(*arguments, "--markdown", "out/summary.md/below", cwd=folder)
    assert done.returncode == 1 and "out/summary.md/below: cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert "<script" not in page and "default-src 'none'" in html.unescape(page) and "regression proven" in page and page.count("<svg") == 1
    assert not re.findall(r"""(?:src|href)=["']?http""", page)

    from profiler.analyse.compare import Compared, Comparison
    from profiler.report.compare import markdown
    from profiler.report.compare_html import render

    bad = "<script>alert(1)</script> | `x` [y](z)"
    row = Compared(bad, "tpot_p50 > +5%", "tpot_p50", "s", 1.05, "inconclusive", bad)
    hostile = Comparison(bad, bad, 0.95, "inconclusive", bad, (row,), (bad,), (), ((bad, bad),), (bad,), 1)
    assert "<script" not in render(hostile) and "<script" not in markdown(hostile).replace("`<script>alert(1)</script> | 'x' [y](z)`", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("results:backend=fast",), "BASE and NEW are needed, 1 given"),
        (("results", "results:backend=slow", *SLOWER), "runs are on both sides"),
        (("results:backend=fst", "results:backend=slow"), "no run with backend 'fst'"),
        (("results:bakend=fast", "results:backend=slow"), "no column of runs called 'bakend'"),
        (("results:fast", "results:backend=slow"), "'fast' chooses nothing"),
        (("elsewhere/", "results:backend=slow"), "no such results folder"),
        (("sweep:zzzz", "results:backend=slow"), "no sweep called 'zzzz'"),
        (("sweep:latest~7", "results:backend=slow"), "there are 1 sweeps"),
        (("results:since=monday", "results:backend=slow"), "'monday' is not a day"),
        (("results:backend=fast", "results:backend=slow", "--fail-if", "tpot > 5%"), "rule, character 1"),
        (("results:backend=fast", "results:backend=slow", "--fail-if", "latency_p50 > 5%"), "no metric called 'latency_p50'"),
        (("results:backend=fast", "results:backend=slow", "--confidence", "95"), "confidence 95 is not between"),
        (("results:backend=fast", "results:backend=slow", "--starts", "5"), "--starts is for --ab"),
        (("results:backend=fast", "--ab", "fast.toml", "slow.toml"), "--ab measures its own two sides"),
        (("--ab", "fast.toml", "fast.toml", "--isl", "8", "--osl", "8"), "both are called 'fast'"),
        (("results:backend=fast", "results:backend=slow", "--json", "--markdown", "-"), "both want stdout"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    measured: tuple[Path, subprocess.CompletedProcess[str]], words: tuple[str, ...], says: str
) -> None:
    done = profile("compare", *words, cwd=measured[0])
    assert done.returncode in (1, 2) and says in done.stderr and "hint" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_cells_without_overlap(measured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = measured
    done = profile("sweep", "--backend", "fast.toml", *LOAD[:4], "--concurrency", 3, *LOAD[6:], "--results", "others", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = profile("compare", "results:backend=fast", "others", *SLOWER, cwd=folder)
    assert found.returncode == 1 and "no cell in common: load 2.0 and 3.0" in found.stderr

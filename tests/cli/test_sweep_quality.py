"""`[quality]` in a sweep: evaluated once per backend, after its timed cells, in starts of its own. Real processes, real sockets, a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

PROFILE = [sys.executable, "-m", "profiler"]
WORDS = ["a", "bell", "rings", "once"]

BACKEND = """
summary = "paced server for tests"
engine = "null"
device = "cpu"
precision = "none"
[options]
ttft_ms = {ttft}
itl_ms = 0.5
"""

SPEC = """
backends = ["{folder}/one.toml", "{folder}/two.toml"]
isl = 16
osl = 4
concurrency = [1, 2]
requests = 10
window_min_s = 0.1
window_max_s = 20.0
warmup_s = 0.1
repeats = 2
tokenizer = "{folder}"
seed = {seed}
[quality]
text = "{folder}/text.txt"
tasks = "{folder}/tasks.jsonl"
margin = "5%"
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*WORDS, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text(" ".join(WORDS[k % 4] for k in range(300)))
    examples = [{"prompt": f"question {k}", "expected": ".", "scorer": "regex", "max_tokens": 4} for k in range(6)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, examples)))
    for name, ttft in (("one", 1.0), ("two", 2.0)):
        (tmp_path / f"{name}.toml").write_text(BACKEND.format(ttft=ttft))
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(folder=tmp_path, seed=1))
    return path


def environment(cwd: Path) -> dict[str, str]:
    return {**os.environ, "SLM_PROFILER_CACHE": str(cwd / "cache")}


def profile(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROFILE, *map(str, words)], cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=250)


def evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    kept = [json.loads(path.read_text()) for path in (folder / "results" / "quality").glob("*.json")]
    return {one["backend"]["name"]: one for one in kept}


def runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["run"] for path in (folder / "results").glob("runs/*/*/run.json")]


def test_each_backend_once_in_starts_of_its_own_after_all_timed_cells(spec: Path, tmp_path: Path) -> None:
    ahead = json.loads(profile("sweep", spec, "--dry-run", "--json", cwd=tmp_path).stdout)["quality"]
    assert [(one["backend"], one["is_reference"], one["stored"], one["windows"]) for one in ahead["backends"]] == [
        ("one", True, None, 2),
        ("two", False, None, 2),
    ]
    assert 0 < ahead["seconds_min"] <= ahead["seconds_max"] and not (tmp_path / "results").exists()

    done = profile("sweep", spec, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["quality"]
    assert answer["reference"] == "one" and answer["margin"] == 0.05 and answer["failed"] == {}
    assert [(row["backend"], row["passed"], row["is_reference"]) for row in answer["variants"]] == [("one", 6, True), ("two", 6, False)]
    assert "[quality 2/2] two: 6 of 6 examples passed" in done.stderr
    kept, measured = evaluations(tmp_path), runs(tmp_path)
    assert set(kept) == {"one", "two"} and len(measured) == 8
    timed = {run["start_id"] for run in measured}
    own = [start for one in kept.values() for start in one["start"]["start_ids"]]
    assert len(timed) == 4 and len(own) == 2 and not timed & set(own)
    begun = max(run["started_at"] for run in measured)[:19]
    assert all(one["made_at"][:19] >= begun for one in kept.values()), "no evaluation before the last timed cell"
    assert done.stderr.rindex("[8/8]") < done.stderr.index("[quality 1/2]")

    # A second sweep measures nothing and asks nothing.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "quality").iterdir()}
    again = profile("sweep", spec, cwd=tmp_path)
    assert again.returncode == 0 and "already measured" in again.stderr and again.stderr.count("evaluated already") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "quality").iterdir()} == before
    assert "6 of 6" in again.stdout and len(runs(tmp_path)) == 8
    assert "one (reference): evaluated already" in profile("sweep", spec, "--dry-run", cwd=tmp_path).stdout

    # Margins and the reference judge; they are not asked.
    spec.write_text(spec.read_text().replace('"5%"', '"1%"\nreference = "two"'))
    other = profile("sweep", spec, "--json", cwd=tmp_path)
    assert other.stderr.count("evaluated already") == 2 and json.loads(other.stdout)["quality"]["reference"] == "two"


def test_two_processes_evaluate_a_backend_once_between_them(spec: Path, tmp_path: Path) -> None:
    command = [*PROFILE, "evaluate", "--backend", str(tmp_path / "one.toml"), "--tokenizer", str(tmp_path)]
    command += ["--text", str(tmp_path / "text.txt"), "--tasks", str(tmp_path / "tasks.jsonl")]
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=250)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("evaluated already" in text for text in said) == 1, said
    assert set(evaluations(tmp_path)) == {"one"}


def test_one_that_fails_is_named_and_the_others_are_kept(spec: Path, tmp_path: Path) -> None:
    """A backend that this machine cannot run has no timed cells either."""
    (tmp_path / "two.toml").write_text(BACKEND.format(ttft=1.0).replace('device = "cpu"', 'device = "cuda"') + '[needs]\ndevice = "cuda"\n')
    done = profile("sweep", spec, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["quality"]
    assert answer["failed"] == {"two": "not evaluated: none of its cells could be measured"}
    assert [row["backend"] for row in answer["variants"]] == ["one"] and set(evaluations(tmp_path)) == {"one"}


def test_a_reference_that_cannot_run_leaves_the_others_evaluated(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(BACKEND.format(ttft=1.0) + '[needs]\narch = "none"\n')
    done = profile("sweep", spec, "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)["quality"]
    assert "cannot run here" in answer["failed"]["one"] and "[quality 1/2] one: failed" in done.stderr
    (row,) = answer["variants"]
    assert (
        row["backend"] == "two" and row["missing"]["pairs"] == "there is no reference" and (tmp_path / "results" / "report.html").exists()
    )


def test_stopped_in_an_evaluation_it_goes_on_there(spec: Path, tmp_path: Path) -> None:
    slow = BACKEND.format(ttft=40.0).replace("itl_ms = 0.5", "itl_ms = 30")
    (tmp_path / "two.toml").write_text(slow)
    spec.write_text(SPEC.format(folder=tmp_path, seed=1).replace("repeats = 2", "repeats = 1").replace("[1, 2]", "[1]"))
    command = [*PROFILE, "sweep", str(spec)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as sweep:
        assert sweep.stderr is not None
        for line in sweep.stderr:
            if line.startswith("[quality 1/2]"):
                break
        else:
            raise AssertionError("the sweep ended before its first evaluation did")
        deadline = time.monotonic() + 60
        while not (parts := list((tmp_path / "results" / "quality").glob("*.part"))) and time.monotonic() < deadline:
            assert sweep.poll() is None
            time.sleep(0.02)
        assert parts, "what is underway is kept"
        below = psutil.Process(sweep.pid).children(recursive=True)
        sweep.send_signal(signal.SIGINT)
        sweep.stderr.read()
        assert sweep.wait(60) == 130
    _, alive = psutil.wait_procs(below, 30)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert set(evaluations(tmp_path)) == {"one"} and len(runs(tmp_path)) == 2
    assert profile("results", "verify", cwd=tmp_path).returncode == 0
    (tmp_path / "one.toml").touch()
    done = profile("sweep", spec, cwd=tmp_path)
    assert done.returncode == 0 and "one: evaluated already" in done.stderr and "two: goes on after" in done.stderr
    found = evaluations(tmp_path)["two"]
    assert len(found["start"]["start_ids"]) == 2 and len(found["tasks"]["examples"]) == 6
    assert not list((tmp_path / "results" / "quality").glob("*.part")) and len(runs(tmp_path)) == 2


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ('text = "none.txt"', "none.txt"),
        ('tasks = "none.jsonl"', "none.jsonl"),
        ('reference = "nobody"', "nobody"),
        ("margin = 5", "share"),
        ('margn = "5%"', "margin"),
        ("parallel = 0", "parallel"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(spec: Path, tmp_path: Path, quality: str, message: str) -> None:
    spec.write_text(SPEC.format(folder=tmp_path, seed=1).partition("[quality]")[0] + f"[quality]\n{quality}\n")
    done = profile("sweep", spec, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "results").exists()


def test_a_text_in_tokens_needs_a_tokenizer(spec: Path, tmp_path: Path) -> None:
    spec.write_text(spec.read_text().replace("tokenizer =", "#"))
    done = profile("sweep", spec, "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "--tokenizer" in done.stderr

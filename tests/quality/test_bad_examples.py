"""Files of examples that are not what they should be: the line is named, the rest kept. Scorers that misbehave: that example fails, nothing stays."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from profiler.errors import SpecError
from profiler.quality import bounded, json_schema, python_scorer, scorers, tasks
from profiler.quality.tasks import Example

GOOD = json.dumps({"prompt": "p", "expected": "x", "scorer": "exact"}).encode()


def written(tmp_path: Path, *lines: bytes) -> Path:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b"\n".join(lines))
    return file


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (GOOD[:-1] + b', "id": "\xe9"}', "not UTF-8: byte 60 is 0xe9"),
        (b"{" * 3, "not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'["prompt"]', "not a JSON object"),
        (json.dumps({"prompt": "p", "expected": 1, "scorer": "exact"}).encode(), "expects a text"),
        (b'{"prompt": "p", "expected": NaN, "scorer": "numeric"}', "NaN"),
        (b'{"prompt": "p", "expected": 1' + b"0" * 400 + b', "scorer": "numeric"}', "expects a number"),
        (b'{"prompt": "p", "expected": "x", "scorer": "exact", "id": "line-1"}', "the id 'line-1' is there already"),
        (b'{"prompt": "p", "expected": 1, "scorer": "python", "file": "."}', "is none"),
        (b'{"prompt": "p", "expected": "a", "scorer": "choice", "choices": 3}', "at least two texts"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_kept(tmp_path: Path, bad: bytes, why: str) -> None:
    found = tasks.read(written(tmp_path, GOOD, bad, GOOD))
    assert [one.id for one in found.examples] == ["line-1", "line-3"]
    (line,) = found.bad_lines
    assert line.startswith("line 2: ") and why in line


def test_a_line_that_is_too_long_is_left_out_and_counted_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_LINE_BYTES", 1 << 20)
    found = tasks.read(written(tmp_path, GOOD, b'{"prompt": "' + b"x" * (3 << 20) + b'"}', GOOD))
    assert found.bad_lines == ("line 2: longer than 1 MiB",) and [one.id for one in found.examples] == ["line-1", "line-3"]


def test_what_editors_leave_in_a_file_does_no_harm(tmp_path: Path) -> None:
    separators = json.dumps({"prompt": "a\u2028b\x85c", "expected": "x", "scorer": "exact"}, ensure_ascii=False).encode()
    found = tasks.read(written(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r", b"  ", separators))
    assert not found.bad_lines and [one.prompt for one in found.examples] == ["p", "a\u2028b\x85c"]


@pytest.mark.parametrize(
    ("content", "hint"),
    [(b"", "one JSON object per line"), (b"\n \n", "one JSON object per line"), (GOOD.decode().encode("utf-16"), "line 1: not UTF-8")],
)
def test_a_file_with_nothing_usable(tmp_path: Path, content: bytes, hint: str) -> None:
    with pytest.raises(SpecError, match="no usable example") as caught:
        tasks.read(written(tmp_path, content))
    assert hint in str(caught.value.hint)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="directory"):
        tasks.read(tmp_path)


def test_another_example_is_another_question(tmp_path: Path) -> None:
    one, two = (tasks.read(written(tmp_path, GOOD, last)).digest for last in (GOOD, GOOD.replace(b'"p"', b'"q"')))
    assert one != two


# Each writes the pid of what it starts into a file beside the scorer.
STARTS = """
import os, subprocess, sys
HERE = os.path.dirname(os.path.abspath(__file__))
def start(code="import time; time.sleep(600)", **how):
    child = subprocess.Popen([sys.executable, "-c", code], **how)
    with open(HERE + "/pids", "a") as file:
        print(child.pid, file=file)
    return child
"""
GREEDY = "block = bytearray(200 << 20); block[::4096] = b'x' * len(block[::4096]); import time; time.sleep(600)"
SCORERS = {
    "forks": ("def score(e, a):\n start()\n return True", "left 1 process running"),
    "forks in a session of its own": ("def score(e, a):\n start(start_new_session=True)\n return True", "left 1 process running"),
    "forks and hangs": ("def score(e, a):\n child = start()\n child.wait()", "longer than"),
    "forks and crashes": ("def score(e, a):\n start(start_new_session=True)\n raise RuntimeError('no')", "left 1 process running"),
    "eats memory in pieces": (f"def score(e, a):\n for _ in range(3): child = start({GREEDY!r})\n child.wait()", "MiB"),
    "starts too many": (
        "def score(e, a):\n for _ in range(40): child = start('import signal; signal.pause()')\n child.wait()",
        "more than",
    ),
    "prints without end": ("def score(e, a):\n while True: print('x' * 10000, file=sys.stderr)", "the scorer failed"),
    "a file without end": (
        "def score(e, a):\n with open(HERE + '/big', 'wb') as f:\n  while True: f.write(bytes(1 << 20))",
        "the scorer failed",
    ),
}


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_that_starts_programs_leaves_none(name: str, tmp_path: Path) -> None:
    source, why = SCORERS[name]
    file = tmp_path / "scorer.py"
    file.write_text(STARTS + source)
    waits = 2.0 if "hangs" in name else 60.0
    found = python_scorer.run(Example("e", "p", "x", "python", file=file), "x", time_s=waits, memory_bytes=500 << 20)
    assert not found.passed and found.flaw and why in str(found.reason), found
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()] if (tmp_path / "pids").exists() else []
    assert pids or "forks" not in name
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert not (tmp_path / "big").exists() or (tmp_path / "big").stat().st_size <= python_scorer.MAX_OUTPUT_BYTES


def test_a_scorer_may_start_a_program_that_ends(tmp_path: Path) -> None:
    file = tmp_path / "scorer.py"
    file.write_text(STARTS + "def score(e, a):\n return start('print(1)', stdout=-1).communicate()[0] == b'1\\n'")
    assert python_scorer.run(Example("e", "p", "x", "python", file=file), "x", time_s=60.0).passed


@pytest.mark.parametrize(
    "tries",
    [
        lambda time_s: bounded.search("(a+)+$", "a" * 60 + "!", time_s),
        lambda time_s: bounded.schema_problem("a" * 60 + "!", {"pattern": "(a+)+$"}, time_s),
    ],
)
def test_a_pattern_that_never_ends_is_ended(tries: Callable[[float], object]) -> None:
    began = time.monotonic()
    with pytest.raises(bounded.NoAnswer, match=r"longer than 1\.5 s"):
        tries(1.5)
    assert time.monotonic() - began < 60, "it was waited for"


def test_such_a_pattern_fails_its_example(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bool:
        raise bounded.NoAnswer("the pattern took longer than 10 s")

    monkeypatch.setattr(bounded, "search", never)
    monkeypatch.setattr(bounded, "schema_problem", never)
    found = scorers.score(Example("e", "p", "x", "regex"), "x")
    assert not found.passed and found.flaw and "longer than" in str(found.reason)
    assert "longer than" in str(json_schema.problem("x", {"pattern": "x"}))


def test_a_schema_with_patterns_is_answered_as_one_without() -> None:
    assert json_schema.problem({"a": "x"}, {"properties": {"a": {"pattern": "^x$"}}}) is None
    assert "does not match" in str(json_schema.problem({"a": "y"}, {"properties": {"a": {"pattern": "^x$"}}}))
    assert sys.getrecursionlimit() and "nested" in str(json_schema.problem(1, {"$ref": "#"}))

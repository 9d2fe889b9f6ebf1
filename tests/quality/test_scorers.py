"""Answers that pass and that do not; examples that are wrong; a scorer that crashes, hangs, or eats memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import SpecError
from profiler.quality import json_schema, python_scorer, scorers, tasks
from profiler.quality.tasks import Example


def example(scorer: Any, expected: Any = None, **more: Any) -> Example:
    return Example("e", "p", expected, scorer, **more)


@pytest.mark.parametrize(
    ("scorer", "expected", "answer", "passes"),
    [
        ("exact", "Paris", " Paris\n", True),
        ("exact", "Paris", "paris", False),
        ("regex", r"\bparis\b", "It is Paris.", True),
        ("regex", r"\bparis\b", "Parisian", False),
        ("numeric", 12, "7 + 5 = 12.", True),
        ("numeric", 12, "12 is 7 + 5", False),
        ("numeric", 1200, "1,200", True),
        ("numeric", -0.5, "x = -0.5", True),
        ("numeric", 12, "twelve", False),
        ("json-schema", {"type": "object", "required": ["a"]}, '```json\n{"a": 1}\n```', True),
        ("json-schema", {"type": "object", "required": ["a"]}, "{}", False),
        ("json-schema", {"type": "object"}, "Here: {}", False),
    ],
)
def test_answers(scorer: str, expected: Any, answer: str, passes: bool) -> None:
    found = scorers.score(example(scorer, expected), answer)
    assert found.passed is passes and (found.reason is None) is passes and not found.flaw


def test_the_most_probable_choice_is_the_answer_and_a_tie_is_none() -> None:
    asked = example("choice", "b", choices=("a", "b", "c"))
    assert scorers.choose(asked, [-3, -1, -2]).passed
    assert scorers.choose(asked, [-1, -3, -2]).reason == "chose 'a'"
    assert not scorers.choose(asked, [-1, -1, -2]).passed


PERSON = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"age": 3}, None),
        ({"age": 3.0}, None),  # JSON knows no difference
        ({"age": True}, "$.age: True is not of type 'integer'"),
        ({"age": -1}, "$.age: -1 is less than the minimum of 0"),
        ({}, "$: 'age' is a required property"),
        ({"age": 1, "name": "x"}, "$: Additional properties are not allowed"),
    ],
)
def test_a_schema_says_why(value: Any, why: str | None) -> None:
    found = json_schema.problem(value, PERSON)
    assert found is None if why is None else found is not None and found.startswith(why)


def test_a_reference_is_never_fetched() -> None:
    assert "not in it" in (json_schema.problem(1, {"$ref": "http://127.0.0.1:9/schema.json"}) or "")


@pytest.mark.parametrize("schema", [{"oneOf": []}, {"type": "text"}, {"pattern": "("}, [], {"properties": {"a": 3}}])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match="schema"):
        json_schema.check(schema)


def test_a_bad_line_is_named_and_the_rest_kept(tmp_path: Path) -> None:
    good = {"prompt": "p", "expected": "x", "scorer": "exact"}
    lines = [
        json.dumps(good),
        "{not json",
        json.dumps({**good, "scorer": "exakt"}),
        json.dumps({**good, "promt": 1}),
        "",
        json.dumps({"prompt": "p"}),
        json.dumps({**good, "scorer": "choice", "choices": ["y", "z"]}),
        json.dumps({**good, "scorer": "regex", "expected": "("}),
        json.dumps({**good, "scorer": "python", "file": "none.py"}),
        json.dumps({**good, "id": "line-1"}),
        json.dumps({**good, "id": "last"}),
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines))
    found = tasks.read(file)
    assert [one.id for one in found.examples] == ["line-1", "last"] and not found.too_small
    assert [line.partition(":")[0] for line in found.bad_lines] == [f"line {n}" for n in (2, 3, 4, 6, 7, 8, 9, 10)]
    assert "did you mean 'prompt'" in found.bad_lines[2]


def test_a_file_without_a_good_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "none.jsonl"
    file.write_text("nothing\n")
    with pytest.raises(SpecError, match="no usable example") as caught:
        tasks.read(file)
    assert "line 1" in str(caught.value.hint)


def test_the_built_in_examples_say_that_they_are_too_few() -> None:
    found = tasks.read(None)
    assert len(found.examples) == 24 and not found.bad_lines and found.too_small
    assert {one.scorer for one in found.examples} == {"exact", "regex", "numeric", "choice", "json-schema"}


SCORERS = {
    "good": ("def score(example, answer):\n    print('noise')\n    return answer == example['expected']", True, None, False),
    "half": ("def score(example, answer): return 0.5", False, "scored 0.5", False),
    "crash": ("def score(example, answer): raise RuntimeError('no such thing')", False, "no such thing", True),
    "odd": ("def score(example, answer): return 'yes'", False, "from 0 to 1", True),
    "absent": ("x = 1", False, "score", True),
    "hang": ("import time\ndef score(example, answer):\n    while True: time.sleep(1)", False, "longer than", True),
    "greedy": ("def score(example, answer): return len(bytearray(1 << 31)) > 0", False, "MemoryError", True),
    "exit": ("import os\ndef score(example, answer): os._exit(0)", False, "without a result", True),
}


@pytest.mark.parametrize("name", SCORERS)
def test_a_python_scorer(name: str, tmp_path: Path) -> None:
    source, passed, reason, flaw = SCORERS[name]
    file = tmp_path / "scorer.py"
    file.write_text(source)
    found = python_scorer.run(example("python", "x", file=file), "x", time_s=1.5 if name == "hang" else 30.0)
    assert (found.passed, found.flaw) == (passed, flaw), found
    assert reason is None or reason in str(found.reason)

"""Whether an answer passes. Each scorer says why not; a scorer that fails, fails the example and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from profiler.quality import bounded, json_schema

if TYPE_CHECKING:
    from profiler.quality.tasks import Example

Scorer = Literal["exact", "regex", "numeric", "choice", "json-schema", "tool-call", "python"]
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
RELATIVE = 1e-6  # two numbers are the same up to this


@dataclass(frozen=True)
class Score:
    passed: bool
    reason: str | None = None  # why not
    flaw: bool = False  # the scorer itself failed: a crash, a limit


def score(example: Example, answer: str) -> Score:
    """Of a generated answer; see `choose` for choices."""
    if example.scorer == "python":
        from profiler.quality.python_scorer import run

        return run(example, answer)
    return _TEXT[example.scorer](example.expected, answer)


def choose(example: Example, log_probs: Sequence[float]) -> Score:
    """`log_probs[k]`: of choice k after the prompt, summed over its tokens. The most probable one is the answer; a tie is no answer."""
    best = max(log_probs)
    winners = [choice for choice, value in zip(example.choices, log_probs, strict=True) if value == best]
    if winners == [example.expected]:
        return Score(True)
    return Score(False, f"chose {' or '.join(map(repr, winners))}")


def exact(expected: str, answer: str) -> Score:
    """The same text; white space at both ends does not count."""
    return Score(True) if answer.strip() == expected.strip() else Score(False, "not the expected text")


def regex(expected: str, answer: str) -> Score:
    """The pattern occurs in the answer, upper or lower case."""
    try:
        return Score(True) if bounded.search(expected, answer) else Score(False, "the pattern does not occur")
    except bounded.NoAnswer as error:
        return Score(False, str(error), flaw=True)


def numeric(expected: float, answer: str) -> Score:
    """The last number of the answer is the expected one: models think aloud, and end with the result. 1,200 is one number."""
    found = _NUMBER.findall(answer)
    if not found:
        return Score(False, "no number in the answer")
    value = float(found[-1].replace(",", ""))
    same = math.isclose(value, expected, rel_tol=RELATIVE, abs_tol=RELATIVE if expected == 0 else 0.0)
    return Score(True) if same else Score(False, f"the last number is {found[-1]}")


def schema(expected: Any, answer: str) -> Score:
    """The whole answer is JSON that satisfies the schema; a Markdown fence around it is taken off."""
    text = answer.strip()
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError) as error:
        return Score(False, f"not JSON: {error}")
    found = json_schema.problem(value, expected)
    return Score(found is None, found)


_TEXT: dict[str, Callable[[Any, str], Score]] = {"exact": exact, "regex": regex, "numeric": numeric, "json-schema": schema}

"""Examples to be passed: JSON lines with a prompt, what is expected, and how an answer is scored. A bad line is named, the rest is kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from profiler.errors import SpecError, did_you_mean
from profiler.quality import json_schema
from profiler.quality.scorers import Scorer

BUILT_IN = Path(__file__).parent / "data" / "starter.jsonl"
MAX_TOKENS = 64
KEYS = ("id", "prompt", "expected", "scorer", "choices", "max_tokens", "chat", "file")


@dataclass(frozen=True)
class Example:
    """`expected` is what its scorer takes: a text, a pattern, a number, the right choice, a JSON schema, anything for a Python scorer."""

    id: str
    prompt: str
    expected: Any
    scorer: Scorer
    choices: tuple[str, ...] = ()
    max_tokens: int = MAX_TOKENS
    chat: bool = True  # through the model's chat template; choices are always continuations of the bare prompt
    file: Path | None = None  # the Python scorer


@dataclass(frozen=True)
class Tasks:
    name: str
    examples: tuple[Example, ...]
    bad_lines: tuple[str, ...] = field(default=())  # "line 3: why"
    digest: str = ""  # of the file, and of the scorers it names

    @property
    def too_small(self) -> bool:
        """The built-in examples show that evaluation works; they rank nothing."""
        return self.name == "built-in"


def read(path: Path | None) -> Tasks:
    """The examples at `path` (None: the built-in ones). Raises SpecError when none can be used."""
    source = path or BUILT_IN
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--tasks {source}: {error}", hint="JSON lines in UTF-8") from None
    examples: list[Example] = []
    bad = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            example = _example(line, number, source.parent)
            if example.id in {other.id for other in examples}:
                raise ValueError(f"the id {example.id!r} is there already")
            examples.append(example)
        except ValueError as error:
            bad.append(f"line {number}: {error}")
    if not examples:
        raise SpecError(
            f"--tasks {source}: no usable example", hint=bad[0] if bad else "one JSON object per line: prompt, expected, scorer"
        )
    return Tasks("built-in" if path is None else source.name, tuple(examples), tuple(bad), _digest(text, examples))


def _example(line: str, number: int, folder: Path) -> Example:
    """Raises ValueError with what is wrong."""
    raw = json.loads(line)
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    for key in raw:
        if key not in KEYS:
            raise ValueError(f"no key {key!r}; {did_you_mean(key, KEYS) or 'known: ' + ', '.join(KEYS)}")
    missing = [key for key in ("prompt", "expected", "scorer") if key not in raw]
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing")
    scorer, expected = raw["scorer"], raw["expected"]
    if scorer not in get_args(Scorer):
        raise ValueError(f"no scorer {scorer!r}; one of {', '.join(get_args(Scorer))}")
    if not isinstance(raw["prompt"], str) or not raw["prompt"]:
        raise ValueError("prompt must be a text")
    max_tokens = raw.get("max_tokens", MAX_TOKENS)
    if type(max_tokens) is not int or max_tokens < 1:
        raise ValueError("max_tokens must be a whole number of at least 1")
    if not isinstance(raw.get("chat", True), bool):
        raise ValueError("chat must be true or false")
    choices = raw.get("choices", [])
    _check(scorer, expected, choices)
    file = folder / str(raw.get("file", "")) if scorer == "python" else None
    if file is not None and not file.is_file():
        raise ValueError(f"a python scorer needs file: {file} is none")
    return Example(
        str(raw.get("id", f"line-{number}")), raw["prompt"], expected, scorer, tuple(choices), max_tokens, raw.get("chat", True), file
    )


def _check(scorer: str, expected: Any, choices: Any) -> None:
    """What the scorer needs to be able to score. Raises ValueError."""
    if scorer in ("exact", "regex") and not isinstance(expected, str):
        raise ValueError(f"{scorer} expects a text")
    if scorer == "regex":
        try:
            re.compile(expected)
        except re.error as error:
            raise ValueError(f"the pattern {expected!r}: {error}") from None
    if scorer == "numeric" and (isinstance(expected, bool) or not isinstance(expected, int | float)):
        raise ValueError("numeric expects a number")
    if scorer == "json-schema":
        json_schema.check(expected)
    if scorer == "choice":
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
            raise ValueError("choice needs choices: a list of at least two texts")
        if len(set(choices)) < len(choices) or expected not in choices:
            raise ValueError("expected must be one of the choices, which must differ")


def _digest(text: str, examples: Sequence[Example]) -> str:
    found = hashlib.sha256(text.encode())
    for file in sorted({example.file for example in examples if example.file}):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]

"""Examples to be passed: JSON lines with a prompt, what is expected, and how an answer is scored. A bad line is named, the rest is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

from profiler.errors import SpecError, did_you_mean
from profiler.quality import json_schema, tool_calls
from profiler.quality.scorers import Scorer

if TYPE_CHECKING:
    from profiler.quality.lm_eval import Harness

BUILT_IN = Path(__file__).parent / "data" / "starter.jsonl"
MAX_TOKENS = 64
MAX_LINE_BYTES = 16 << 20  # far beyond any context; more is a file of another kind
MAX_NUMBER = sys.float_info.max
KEYS = ("id", "prompt", "expected", "scorer", "choices", "max_tokens", "chat", "file", "tools", "tool_choice", "ordered")


@dataclass(frozen=True)
class Example:
    """`expected` is what its scorer takes: a text, a pattern, a number, the right choice, a JSON schema, calls of tools, anything for a Python scorer."""

    id: str
    prompt: str
    expected: Any
    scorer: Scorer
    choices: tuple[str, ...] = ()
    max_tokens: int = MAX_TOKENS
    chat: bool = True  # through the model's chat template; choices are always continuations of the bare prompt
    file: Path | None = None  # the Python scorer
    tools: tuple[dict[str, Any], ...] = ()  # OpenAI function definitions, of a tool call
    tool_choice: Any = None  # "auto" | "none" | "required" | {"type": "function", "function": {"name": ...}} | None: the server's own
    ordered: bool = False  # whether the order of several calls counts


@dataclass(frozen=True)
class Tasks:
    name: str
    examples: tuple[Example, ...]
    bad_lines: tuple[str, ...] = field(default=())  # "line 3: why"
    digest: str = ""  # of the file, and of the scorers it names
    harness: Harness | None = None  # tasks of lm-evaluation-harness that are asked beside them

    @property
    def asked(self) -> str:
        """What an evaluation's key depends on; `digest` says whether two were asked the same examples."""
        return self.digest if self.harness is None else f"{self.digest}+{self.harness.key}"

    @property
    def too_small(self) -> bool:
        """The built-in examples show that evaluation works; they rank nothing."""
        return self.name == "built-in"


def read(path: Path | None) -> Tasks:
    """The examples at `path` (None: the built-in ones). Raises SpecError when none can be used."""
    source = path or BUILT_IN
    examples: list[Example] = []
    bad: list[str] = []
    ids: set[str] = set()
    content = hashlib.sha256()
    try:
        with source.open("rb") as file:
            for number, line in _lines(file, content):
                try:
                    if (example := _example(line, number, source.parent)) is None:
                        continue
                    if example.id in ids:
                        raise ValueError(f"the id {example.id!r} is there already")
                    ids.add(example.id)
                    examples.append(example)
                except ValueError as error:
                    bad.append(f"line {number}: {error}")
    except OSError as error:
        raise SpecError(f"--tasks {source}: {error.strerror or error}", hint="a file of JSON lines in UTF-8") from None
    if not examples:
        raise SpecError(
            f"--tasks {source}: no usable example", hint=bad[0] if bad else "one JSON object per line: prompt, expected, scorer"
        )
    for scorer in sorted({example.file for example in examples if example.file}):
        content.update(scorer.read_bytes())
    return Tasks("built-in" if path is None else source.name, tuple(examples), tuple(bad), content.hexdigest()[:16])


def _lines(file: BinaryIO, content: hashlib._Hash) -> Iterator[tuple[int, bytes | None]]:
    """Number and line, None for one that is too long to be kept in memory; all of it goes into the hash."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        content.update(line)
        whole = len(line) <= MAX_LINE_BYTES
        yield number, line if whole else None
        while not whole and not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
            content.update(line)


def _read_json(line: bytes) -> Any:
    """Raises ValueError."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}") from None
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _example(line: bytes | None, number: int, folder: Path) -> Example | None:
    """None for an empty line. Raises ValueError with what is wrong."""
    if line is None:
        raise ValueError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
    if not line.strip():
        return None
    raw = _read_json(line)
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
    if scorer == "tool-call":
        _check_tool_call(raw)
    elif of_tools := [key for key in ("tools", "tool_choice", "ordered") if key in raw]:
        raise ValueError(f"{of_tools[0]} belongs to scorer tool-call")
    return Example(
        str(raw.get("id", f"line-{number}")),
        raw["prompt"],
        expected,
        scorer,
        tuple(choices) if scorer == "choice" else (),
        max_tokens,
        raw.get("chat", True),
        _scorer_file(folder, raw) if scorer == "python" else None,
        tuple(raw["tools"]) if scorer == "tool-call" else (),
        raw.get("tool_choice"),
        raw.get("ordered", False),
    )


def _scorer_file(folder: Path, raw: dict[str, Any]) -> Path:
    """Raises ValueError."""
    file = folder / str(raw.get("file", ""))
    if not file.is_file():
        raise ValueError(f"a python scorer needs file: {file} is none")
    if not os.access(file, os.R_OK):
        raise ValueError(f"a python scorer needs file: {file} cannot be read")
    return file


def _check_tool_call(raw: dict[str, Any]) -> None:
    """Raises ValueError."""
    if not isinstance(raw.get("ordered", False), bool):
        raise ValueError("ordered must be true or false")
    if not raw.get("chat", True):
        raise ValueError("tools are told through the chat template: chat cannot be false")
    tool_calls.check(raw.get("tools"), raw.get("tool_choice"), raw["expected"])


def _check(scorer: str, expected: Any, choices: Any) -> None:
    """What the scorer needs to be able to score. Raises ValueError."""
    if scorer in ("exact", "regex") and not isinstance(expected, str):
        raise ValueError(f"{scorer} expects a text")
    if scorer == "regex":
        try:
            re.compile(expected)
        except re.error as error:
            raise ValueError(f"the pattern {expected!r}: {error}") from None
    if scorer == "numeric" and (isinstance(expected, bool) or not isinstance(expected, int | float) or abs(expected) > MAX_NUMBER):
        raise ValueError("numeric expects a number")
    if scorer == "json-schema":
        json_schema.check(expected)
    if scorer == "choice":
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
            raise ValueError("choice needs choices: a list of at least two texts")
        if len(set(choices)) < len(choices) or expected not in choices:
            raise ValueError("expected must be one of the choices, which must differ")

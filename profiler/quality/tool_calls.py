"""Calls of tools: what an answer calls, and whether these are the expected calls.

Written as text, a call is taken from (the first that occurs in the answer)

* `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, once per call, or one with a list: Hermes, Qwen, SmolLM2
* `[TOOL_CALLS]` and a JSON list: Mistral
* `<function=NAME>{...}</function>`: Llama 3.1, tools of the user's own
* `<|python_tag|>` and JSON, several separated by `;`: Llama 3.1; its key is `parameters`
* the whole answer, a Markdown fence aside, being such a JSON object or a list of them
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.quality import json_schema

NO_CALL = "no call"
TOOL_CHOICES = ("auto", "none", "required")
_HERMES = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
_BEGUN = re.compile(r'\[?\s*\{\s*"(name|type|function)"')
_PYTHON_TAG, _MISTRAL = "<|python_tag|>", "[TOOL_CALLS]"


class Broken(ValueError):
    """The answer begins a call that cannot be read."""


@dataclass(frozen=True)
class Call:
    name: str
    arguments: Any  # a JSON object where the call is sound


def check(tools: Any, tool_choice: Any, expected: Any) -> None:
    """What an example of this scorer needs. Raises ValueError with what is wrong."""
    if not isinstance(tools, list) or not tools:
        raise ValueError("tool-call needs tools: a list of OpenAI function definitions")
    names = [_tool_name(tool, k) for k, tool in enumerate(tools, 1)]
    if len(set(names)) < len(names):
        raise ValueError("two tools have the same name")
    chosen = tool_choice["function"].get("name") if _names_a_function(tool_choice) else None
    if chosen is None and tool_choice is not None and tool_choice not in TOOL_CHOICES:
        raise ValueError(f'tool_choice must be one of {", ".join(TOOL_CHOICES)} or {{"type": "function", "function": {{"name": ...}}}}')
    if chosen is not None and chosen not in names:
        raise ValueError(f"tool_choice names {chosen!r}, which is none of the tools")
    for one in wanted(expected):
        _check_wanted(one, names)


def _names_a_function(tool_choice: Any) -> bool:
    return isinstance(tool_choice, dict) and isinstance(tool_choice.get("function"), dict) and "name" in tool_choice["function"]


def _tool_name(tool: Any, number: int) -> str:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f'tool {number} is not {{"type": "function", "function": {{"name": ..., "parameters": ...}}}}')
    return name


def _check_wanted(one: Any, names: Sequence[str]) -> None:
    if not isinstance(one, dict) or "name" not in one or len(one) != 2 or not ({"arguments", "arguments_schema"} & set(one)):
        raise ValueError(f'tool-call expects calls of name and arguments (or arguments_schema), a list of them, or "{NO_CALL}"')
    if one["name"] not in names:
        raise ValueError(f"the expected call {one['name']!r} is none of the tools: {', '.join(names)}")
    if "arguments_schema" in one:
        json_schema.check(one["arguments_schema"])
    elif not isinstance(one["arguments"], dict):
        raise ValueError(f"the arguments of the expected call {one['name']!r} must be a JSON object")


def wanted(expected: Any) -> list[Any]:
    """The expected calls as a list; empty where none is to be made."""
    if expected == NO_CALL:
        return []
    return expected if isinstance(expected, list) else [expected]


def problem(expected: Any, calls: Sequence[Call], *, ordered: bool) -> str | None:
    """Why these are not the expected calls; None where they are."""
    asked = wanted(expected)
    if len(asked) != len(calls):
        return f"{_count(len(calls))} instead of {_count(len(asked))}{': ' + text_of(calls) if calls else ''}"
    differences = [[_difference(one, call) for call in calls] for one in asked]
    if ordered or len(asked) == 1:
        return next((why for k, row in enumerate(differences) if (why := row[k]) is not None), None)
    unmatched = _unmatched([[k for k, why in enumerate(row) if why is None] for row in differences])
    if unmatched is None:
        return None
    return next((why for call, why in zip(calls, differences[unmatched], strict=True) if call.name == asked[unmatched]["name"]), None) or (
        f"no call of {asked[unmatched]['name']} as expected"
    )


def _count(n: int) -> str:
    return "no call" if n == 0 else f"{n} call" + "s" * (n > 1)


def _difference(one: Mapping[str, Any], call: Call) -> str | None:
    if call.name != one["name"]:
        return f"called {call.name}, not {one['name']}"
    if not isinstance(call.arguments, dict):
        return f"the arguments of {call.name} are no JSON object"
    if "arguments_schema" in one:
        why = json_schema.problem(call.arguments, one["arguments_schema"])
        return why and f"the arguments of {call.name}: {why}"
    for name in one["arguments"].keys() | call.arguments.keys():
        if name not in call.arguments:
            return f"{call.name}: no argument {name!r}"
        if name not in one["arguments"]:
            return f"{call.name}: argument {name!r} is too many"
        if not same(one["arguments"][name], call.arguments[name]):
            return f"{call.name}: argument {name!r} is {_short(call.arguments[name])}, not {_short(one['arguments'][name])}"
    return None


def _unmatched(fits: Sequence[Sequence[int]]) -> int | None:
    """An expectation that is left over when each takes a call of its own from those that fit it (Kuhn's augmenting paths); None if none is."""
    taken: dict[int, int] = {}  # call -> expectation

    def place(one: int, seen: set[int]) -> bool:
        for call in fits[one]:
            if call not in seen:
                seen.add(call)
                if call not in taken or place(taken[call], seen):
                    taken[call] = one
                    return True
        return False

    return next((one for one in range(len(fits)) if not place(one, set())), None)


def same(a: Any, b: Any) -> bool:
    """Equal as JSON values: 1 is 1.0 and not true, the order of an object's names says nothing."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def from_message(message: Mapping[str, Any]) -> list[Call]:
    """Of OpenAI's `message.tool_calls`; [] where there are none. Raises Broken."""
    calls = message.get("tool_calls") or []
    try:
        return [Call(str(one["function"]["name"]), _arguments(one["function"]["arguments"])) for one in calls]
    except (TypeError, LookupError):
        raise Broken("tool_calls are not as OpenAI has them") from None


def _arguments(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return _json(given) if given.strip() else {}  # no arguments at all


def from_text(text: str) -> list[Call]:
    """The calls that an answer has written out; [] where it is only text. Raises Broken."""
    text = text.strip()
    if "<tool_call>" in text:
        return [call for part in _HERMES.findall(text) for call in _calls(_json(part))]
    if _MISTRAL in text:
        return _calls(_json(text.partition(_MISTRAL)[2]))
    if found := _FUNCTION.findall(text):
        return [Call(name, _json(body) if body.strip() else {}) for name, body in found]
    if _PYTHON_TAG in text:
        return [call for part in _several(text.partition(_PYTHON_TAG)[2]) for call in _calls(part)]
    fenced = _FENCE.match(text)
    bare = fenced.group(1).strip() if fenced else text
    try:
        return _calls(_json(bare))
    except Broken:
        if _BEGUN.match(bare) and not _is_json(bare):
            raise
        return []  # any text, or JSON that is no call


def _several(text: str) -> list[Any]:
    """JSON values with semicolons between them."""
    found, decoder = [], json.JSONDecoder(parse_constant=_refuse)
    while text := text.strip().lstrip(";").strip():
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError) as error:
            raise Broken(f"the call is not JSON: {error}") from None
        found.append(value)
        text = text[end:].removeprefix("<|eom_id|>")
    return found


def _calls(value: Any) -> list[Call]:
    entries = value if isinstance(value, list) else [value]
    found = []
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("function"), dict):
            entry = entry["function"]
        key = next((key for key in ("arguments", "parameters") if key in entry), None) if isinstance(entry, dict) else None
        if key is None or not isinstance(entry.get("name"), str):
            raise Broken("a call has not name and arguments")
        found.append(Call(entry["name"], _arguments(entry[key])))
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Broken(f"the call is not JSON: {error}") from None


def _is_json(text: str) -> bool:
    try:
        _json(text)
    except Broken:
        return False
    return True


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def text_of(calls: Sequence[Call]) -> str:
    """The JSON text that is kept as the answer."""
    return json.dumps([{"name": call.name, "arguments": call.arguments} for call in calls], ensure_ascii=False)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

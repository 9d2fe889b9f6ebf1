"""Calls of tools: read from answers of several shapes, compared by a matching that is tried here by brute force, asked of servers of four kinds."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quality_stand import Stand, standing

from profiler.errors import EngineError
from profiler.quality import tasks, tool_asking, tool_calls
from profiler.quality.asking import Asker, NotGiven
from profiler.quality.evaluate import tasks_part
from profiler.quality.tasks import Example
from profiler.quality.tool_calls import Call
from profiler.records import Endpoint

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
    for name in ("weather", "clock")
]
WEATHER = {"name": "weather", "arguments": {"city": "Oslo"}}
JSON = json.dumps(WEATHER)

CALL = Call("weather", {"city": "Oslo"})
TEXTS = [
    (f"<tool_call>\n{JSON}\n</tool_call>", [CALL]),
    (f"Let me look.\n<tool_call>{JSON}</tool_call>\n<tool_call>{JSON}</tool_call>", [CALL, CALL]),
    (f"<tool_call>[{JSON}, {JSON}]</tool_call>", [CALL, CALL]),
    (f"<tool_call>{JSON}", [CALL]),
    (f"[TOOL_CALLS] [{JSON}]", [CALL]),
    ('<function=weather>{"city": "Oslo"}</function>', [CALL]),
    ("<function=clock></function>", [Call("clock", {})]),
    ('<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}<|eom_id|>', [CALL]),
    ('<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "clock", "parameters": {}}', [CALL, Call("clock", {})]),
    (JSON, [CALL]),
    (f"```json\n{JSON}\n```", [CALL]),
    (f"[{JSON}]", [CALL]),
    ('{"type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}}', [CALL]),
    ("It is sunny.", []),
    ("", []),
    ('{"city": "Oslo"}', []),
    ("[1, 2]", []),
    ("weather(city='Oslo')", []),
]


@pytest.mark.parametrize(("text", "calls"), TEXTS)
def test_calls_in_a_text(text: str, calls: list[Call]) -> None:
    assert tool_calls.from_text(text) == calls


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "weather", "arguments": {"city"',
        "<tool_call>weather</tool_call>",
        '<tool_call>{"name": "weather"}</tool_call>',
        '{"name": "weather", "arguments": {"city": "Os',
        '<|python_tag|>weather.call("Oslo")',
        '<function=weather>{"city"</function>',
        '<tool_call>{"name": "weather", "arguments": {"city": NaN}}</tool_call>',
        "<tool_call>" + "[" * 100_000,
    ],
)
def test_a_call_that_cannot_be_read_is_no_silence(text: str) -> None:
    with pytest.raises(tool_calls.Broken):
        tool_calls.from_text(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


def canonical(value: Any) -> Any:
    """Another way to say that two JSON values are the same: a form of each in which only equal ones are alike."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return ("number", float(value) + 0.0)
    if isinstance(value, dict):
        return ("object", sorted((name, repr(canonical(inner))) for name, inner in value.items()))
    return ("array", [canonical(inner) for inner in value]) if isinstance(value, list) else ("text", value)


@given(json_values, json_values)
def test_json_values_are_the_same(a: Any, b: Any) -> None:
    assert tool_calls.same(a, b) == (repr(canonical(a)) == repr(canonical(b)))
    assert tool_calls.same(a, json.loads(json.dumps(a)))


@pytest.mark.parametrize(
    ("a", "b", "are"), [(1, 1.0, True), (True, 1, False), (0, False, False), ([1, 2], [2, 1], False), (None, 0, False)]
)
def test_json_values_that_python_confuses(a: Any, b: Any, are: bool) -> None:
    assert tool_calls.same(a, b) is are and tool_calls.same({"x": [a]}, {"x": [b]}) is are


few = st.sampled_from(["weather", "clock"])
some_arguments = st.fixed_dictionaries({"n": st.integers(0, 2)})
some_calls = st.lists(st.builds(Call, few, some_arguments), max_size=4)
exact = st.fixed_dictionaries({"name": few, "arguments": some_arguments})
loose = st.fixed_dictionaries({"name": few, "arguments_schema": st.just({"properties": {"n": {"minimum": 1}}})})


def fits(one: dict[str, Any], call: Call) -> bool:
    if one["name"] != call.name:
        return False
    return one["arguments"] == call.arguments if "arguments" in one else call.arguments["n"] >= 1


@given(st.lists(exact | loose, max_size=4), some_calls)
def test_each_expected_call_takes_one_of_its_own(expected: list[dict[str, Any]], calls: list[Call]) -> None:
    same_many = len(expected) == len(calls)
    unordered = same_many and any(all(map(fits, expected, order)) for order in itertools.permutations(calls))
    ordered = same_many and all(map(fits, expected, calls))
    assert (tool_calls.problem(expected, calls, ordered=False) is None) == unordered
    assert (tool_calls.problem(expected, calls, ordered=True) is None) == ordered


@pytest.mark.parametrize(
    ("expected", "calls", "why"),
    [
        (WEATHER, [CALL], None),
        (WEATHER, [], "no call instead of 1 call"),
        ("no call", [], None),
        ([], [], None),
        ("no call", [CALL], "1 call instead of no call"),
        (WEATHER, [Call("clock", {"city": "Oslo"})], "called clock, not weather"),
        (WEATHER, [Call("weather", {"city": "Rome"})], 'argument \'city\' is "Rome", not "Oslo"'),
        (WEATHER, [Call("weather", {})], "no argument 'city'"),
        (WEATHER, [Call("weather", {"city": "Oslo", "unit": "K"})], "'unit' is too many"),
        (WEATHER, [Call("weather", "Oslo")], "no JSON object"),
        ({"name": "clock", "arguments_schema": {"required": ["zone"]}}, [Call("clock", {})], "'zone' is a required property"),
        ([WEATHER, {"name": "clock", "arguments": {}}], [CALL, CALL], "no call of clock as expected"),
        ([WEATHER, {"name": "clock", "arguments": {}}], [CALL, Call("clock", {"x": 1})], "clock: argument 'x' is too many"),
    ],
)
def test_why_a_call_is_not_the_expected_one(expected: Any, calls: list[Call], why: str | None) -> None:
    found = tool_calls.problem(expected, calls, ordered=False)
    assert found is None if why is None else found is not None and why in found


def line(**more: Any) -> dict[str, Any]:
    return {"prompt": "How is it in Oslo?", "expected": WEATHER, "scorer": "tool-call", "tools": TOOLS, **more}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"tools": None}, "needs tools"),
        ({"tools": []}, "needs tools"),
        ({"tools": [{"name": "weather"}]}, "tool 1 is not"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "same name"),
        ({"tool_choice": "always"}, "tool_choice must be"),
        ({"tool_choice": {"type": "function", "function": {"name": "sun"}}}, "none of the tools"),
        ({"expected": {"name": "sun", "arguments": {}}}, "none of the tools: weather, clock"),
        ({"expected": {"name": "clock"}}, "name and arguments"),
        ({"expected": "clock"}, "name and arguments"),
        ({"expected": {"name": "clock", "arguments": []}}, "JSON object"),
        ({"expected": {"name": "clock", "arguments_schema": {"type": "text"}}}, "the schema"),
        ({"ordered": 1}, "ordered"),
        ({"chat": False}, "chat cannot be false"),
        ({"scorer": "exact", "expected": "x"}, "belongs to scorer tool-call"),
    ],
)
def test_an_example_that_cannot_be_scored_is_a_bad_line(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text(json.dumps(line()) + "\n" + json.dumps(line(**more)) + "\n")
    found = tasks.read(file)
    assert len(found.examples) == 1 and len(found.bad_lines) == 1
    assert found.bad_lines[0].startswith("line 2: ") and why in found.bad_lines[0]


class ToolStand(Stand):
    """`kind`: parsed | plain (tools rendered, nothing parsed) | no-parser (vLLM as it starts) | refuses | nothing at all."""

    def __init__(self, kind: str, said: str = f"<tool_call>{JSON}</tool_call>") -> None:
        super().__init__()
        self.kind, self.said = kind, said

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append(body)
        message: dict[str, Any] = {"role": "assistant", "content": self.said}
        if self.kind == "nothing" or (self.kind == "refuses" and "tools" in body):
            return 400, {"error": {"message": "tools are not supported"}}
        if self.kind == "no-parser" and body.get("tools") and body.get("tool_choice", "auto") == "auto":
            return 400, {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'}}
        if self.kind == "parsed":
            function = {"name": "weather", "arguments": json.dumps({"city": "Oslo"})}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
        if self.kind == "odd":
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
        if self.kind == "broken":
            return 500, {"error": {"message": "out of order"}}
        return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def ask(stand: Stand, **more: Any) -> tool_asking.Asked:
    example = Example("e", "How is it in Oslo?", WEATHER, "tool-call", tools=tuple(TOOLS))
    port = int(stand.url.rsplit(":", 1)[1].partition("/")[0])
    return tool_asking.ask(Asker(Endpoint("127.0.0.1", port, "stand")), replace(example, **more))


@pytest.mark.parametrize(
    ("kind", "way", "requests"),
    [("parsed", "tool_calls", 1), ("plain", "text", 1), ("no-parser", "text", 2), ("refuses", tool_asking.BY_MESSAGE, 2)],
)
def test_the_record_says_which_way_the_calls_came(kind: str, way: str, requests: int) -> None:
    with standing(ToolStand(kind)) as stand:
        found = ask(stand)
    assert found.score.passed and found.way == way and len(stand.asked) == requests
    assert json.loads(found.answer) == [WEATHER]
    last = stand.asked[-1]
    told = json.dumps(last["tools"]) if "tools" in last else last["messages"][0]["content"]
    assert all(json.dumps(tool) in told for tool in TOOLS), "the model was told of the tools"
    assert last["messages"][-1]["content"] == "How is it in Oslo?" and last["temperature"] == 0


def test_a_forced_choice_is_never_asked_as_none() -> None:
    with standing(ToolStand("refuses")) as stand:
        ask(stand, tool_choice="required")
    assert stand.asked[0]["tool_choice"] == "required" and "Call at least one." in stand.asked[1]["messages"][0]["content"]


def test_no_call_expected() -> None:
    with standing(ToolStand("plain", "Hello!")) as stand:
        assert ask(stand, expected="no call").score.passed
        assert ask(stand).score.reason == "no call instead of 1 call"
    with standing(ToolStand("plain", "<tool_call>{")) as stand:
        found = ask(stand, expected="no call")
        assert not found.score.passed and "not JSON" in str(found.score.reason) and found.text == "<tool_call>{"


def test_tool_calls_of_another_shape_fail_the_example_and_nothing_else() -> None:
    with standing(ToolStand("odd")) as stand:
        assert ask(stand).score.reason == "tool_calls are not as OpenAI has them"


def test_one_that_takes_no_chat_was_not_asked_and_one_that_fails_is_an_error() -> None:
    with standing(ToolStand("nothing")) as stand, pytest.raises(NotGiven, match="told by a system message: HTTP 400"):
        ask(stand)
    with standing(ToolStand("broken")) as stand, pytest.raises(EngineError, match="out of order"):
        ask(stand)


def test_arguments_without_bottom_fail_the_example_and_nothing_else() -> None:
    for depth in (300, 600, 900, 5000):
        nested = "[" * depth + "]" * depth
        said = f'<tool_call>{{"name": "weather", "arguments": {{"city": {nested}}}}}</tool_call>'
        expected = {"name": "weather", "arguments": {"city": json.loads("[" * 200 + "]" * 200)}}
        with standing(ToolStand("plain", said)) as stand:
            assert not ask(stand, expected=expected).score.passed


def test_what_is_kept_of_an_example() -> None:
    example = Example("e", "How is it in Oslo?", WEATHER, "tool-call", tools=tuple(TOOLS))
    with standing(ToolStand("refuses")) as stand:
        endpoint = Endpoint("127.0.0.1", int(stand.url.rsplit(":", 1)[1].partition("/")[0]), "stand")
        part = tasks_part(Asker(endpoint), tasks.Tasks("mine", (example,)), None, lambda line: None, [], lambda: None)
    (kept,) = part["examples"]
    assert kept["passed"] is True and json.loads(kept["answer"]) == [WEATHER]
    assert kept["way"] == tool_asking.BY_MESSAGE and kept["text"].startswith("<tool_call>")


def test_the_examples_that_the_docs_show() -> None:
    found = tasks.read(Path(__file__).resolve().parents[2] / "docs" / "examples" / "tool-calls.jsonl")
    assert not found.bad_lines and [one.id for one in found.examples] == ["one-call", "numbers", "two-calls", "schema", "no-call"]

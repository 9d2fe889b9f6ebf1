"""Asks for a tool call. Servers differ: with a parser, without one, without tools at all; the record says which way the calls came.

1. `tools` to /v1/chat/completions; the calls are in `message.tool_calls` ("tool_calls"), or, where nothing parses them, in the text
   ("text": the model's own chat template told it of the tools).
2. vLLM without --enable-auto-tool-choice refuses the default `tool_choice` and renders the tools with "none": the calls are in the text.
3. A server that refuses `tools`: they are told in a system message of ours ("text, told by a system message").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.quality import tool_calls
from profiler.quality.asking import Asker, NotGiven, message_of
from profiler.quality.scorers import Score

if TYPE_CHECKING:
    from profiler.quality.tasks import Example

BY_MESSAGE = "text, told by a system message"
_VLLM_WITHOUT_PARSER = ("--enable-auto-tool-choice", "--tool-call-parser")

SYSTEM = """You can call functions. These are their definitions, one JSON object per line:
<tools>
{tools}
</tools>
{when}For each call write a JSON object with name and arguments between <tool_call> and </tool_call>, and nothing else:
<tool_call>
{{"name": "the name", "arguments": {{"an argument": "its value"}}}}
</tool_call>"""


@dataclass(frozen=True)
class Asked:
    score: Score
    answer: str  # the JSON text of the calls
    way: str  # "tool_calls" | "text" | BY_MESSAGE
    text: str | None  # what the server said beside them


def ask(asker: Asker, example: Example) -> Asked:
    """Raises NotGiven where the server takes no chat, EngineError where it fails."""
    message, told = _message(asker, example)
    text = message.get("content") or ""
    try:
        calls, way = tool_calls.from_message(message), "tool_calls"
        if not calls:
            calls, way = tool_calls.from_text(text), told
    except tool_calls.Broken as error:
        way = "tool_calls" if message.get("tool_calls") else told
        return Asked(Score(False, str(error)), "[]", way, text)
    try:
        why = tool_calls.problem(example.expected, calls, ordered=example.ordered)
        return Asked(Score(why is None, why), tool_calls.text_of(calls), way, text or None)
    except RecursionError:
        return Asked(Score(False, "the arguments are nested too deeply"), "[]", way, text)


def _message(asker: Asker, example: Example) -> tuple[dict[str, Any], str]:
    """The server's message, and how the model was told of the tools."""
    user = {"role": "user", "content": example.prompt}
    body: dict[str, Any] = {"messages": [user], "max_tokens": example.max_tokens}
    tools: dict[str, Any] = {"tools": list(example.tools)}
    if example.tool_choice is not None:
        tools["tool_choice"] = example.tool_choice
    try:
        return message_of(asker.chat({**body, **tools})), "text"
    except NotGiven as error:
        refusal = error.message
    if any(words in refusal for words in _VLLM_WITHOUT_PARSER) and example.tool_choice in (None, "auto"):
        try:
            return message_of(asker.chat({**body, **tools, "tool_choice": "none"})), "text"
        except NotGiven as error:
            refusal = error.message
    try:
        return message_of(asker.chat({**body, "messages": [{"role": "system", "content": system(example)}, user]})), BY_MESSAGE
    except NotGiven as error:
        raise NotGiven(f"tools: {refusal}; told by a system message: {error.message}") from None


def system(example: Example) -> str:
    """Our own words, in the form that Hermes and Qwen were trained with, because most others have seen it."""
    choice = example.tool_choice
    if isinstance(choice, dict):
        when = f"Call {choice['function']['name']}. "
    else:
        when = {"required": "Call at least one. ", "none": "Do not call any now: answer in words. "}.get(
            choice or "", "Call none where none helps. "
        )
    return SYSTEM.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in example.tools), when=when)

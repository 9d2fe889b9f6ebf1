"""OpenAI request bodies to `Ask`, tokens to response bytes. Fields beyond OpenAI's are vLLM's: min_tokens, ignore_eos, return_token_ids."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .http11 import LAST_CHUNK, BadRequest, Connection, chunk

quote = json.encoder.encode_basestring_ascii  # json.dumps of a text, without its frame of Python

# What we would have to ignore silently is refused: an answer that looks right and is not is worse than an error.
REFUSED: dict[str, Callable[[Any], bool]] = {
    "n": lambda v: v not in (None, 1),
    "best_of": lambda v: v not in (None, 1),
    "top_logprobs": bool,
    "prompt_logprobs": bool,
    "suffix": bool,
    "stop": bool,
    "logit_bias": bool,
    "response_format": lambda v: v not in (None, {"type": "text"}),
}


@dataclass(slots=True)
class Ask:
    """One generation as the client wants it. Lengths in tokens."""

    kind: str  # "completions" | "chat"
    request_id: str
    prompt: str | list[int] | None
    messages: list[dict[str, Any]] | None
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    echo: bool = False  # the prompt comes back before the answer
    logprobs: bool = False  # of each token that comes back: the log-probability it had
    tools: list[dict[str, Any]] | None = None  # for the chat template; what the model calls stays text, nothing parses it


def parse(kind: str, body: bytes, request_id: str, model: str) -> Ask:
    """Raises BadRequest: 400 for what cannot be read or done, 404 for a model that is not served."""
    try:
        raw = json.loads(body)
    except ValueError as error:
        raise BadRequest(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise BadRequest(400, "the body must be a JSON object")
    if raw.get("model", model) != model:
        raise BadRequest(404, f"the model {raw['model']!r} does not exist; this server has {model!r}")
    for name, refuse in REFUSED.items():
        if name in raw and refuse(raw[name]):
            raise BadRequest(400, f"{name}={raw[name]!r} is not supported by this server")
    prompt, messages = (None, _messages(raw)) if kind == "chat" else (_prompt(raw), None)
    options = raw.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest(400, "stream_options must be an object")
    limit = "max_completion_tokens" if kind == "chat" and raw.get("max_completion_tokens") is not None else "max_tokens"
    default_limit = None if kind == "chat" else 16  # as OpenAI and vLLM have it
    echo, logprobs = _log_probabilities(raw, kind)
    max_tokens = _number(raw, limit, int, default_limit, 0 if echo else 1)
    min_tokens = _number(raw, "min_tokens", int, 0, 0)
    if max_tokens is not None and min_tokens > max_tokens:
        raise BadRequest(400, f"min_tokens={min_tokens} is more than max_tokens={max_tokens}")
    return Ask(
        kind=kind,
        request_id=request_id,
        prompt=prompt,
        messages=messages,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=bool(raw.get("ignore_eos", False)),
        temperature=_number(raw, "temperature", float, 1.0, 0.0),
        top_p=_number(raw, "top_p", float, 1.0, 0.0),
        top_k=_number(raw, "top_k", int, 0, -1),
        seed=_number(raw, "seed", int, None, 0),
        presence_penalty=_number(raw, "presence_penalty", float, 0.0, -2.0),
        frequency_penalty=_number(raw, "frequency_penalty", float, 0.0, -2.0),
        repetition_penalty=_number(raw, "repetition_penalty", float, 1.0, 0.0),
        stream=bool(raw.get("stream", False)),
        include_usage=bool(options.get("include_usage", False)),
        continuous_usage=bool(options.get("continuous_usage_stats", False)),
        return_token_ids=bool(raw.get("return_token_ids", False)),
        echo=echo,
        logprobs=logprobs,
        tools=_tools(raw, kind),
    )


def _tools(raw: dict[str, Any], kind: str) -> list[dict[str, Any]] | None:
    tools, choice = raw.get("tools"), raw.get("tool_choice")
    if not tools or (choice == "none" and kind == "chat"):
        return None
    if kind != "chat":
        raise BadRequest(400, "tools are taken by /v1/chat/completions only")
    if choice not in (None, "auto"):
        raise BadRequest(400, f"tool_choice={choice!r} is not supported by this server: it cannot force a call")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRequest(400, "tools must be a list of objects")
    return tools


def _log_probabilities(raw: dict[str, Any], kind: str) -> tuple[bool, bool]:
    """`echo` and `logprobs` as OpenAI's completions had them, for whole answers; one log-probability a token, that of the token itself."""
    echo, logprobs = raw.get("echo") or False, raw.get("logprobs")
    if not echo and logprobs in (None, False):
        return False, False
    if kind == "chat" or raw.get("stream"):
        raise BadRequest(400, "echo and logprobs are given by /v1/completions without stream only")
    if not isinstance(echo, bool):
        raise BadRequest(400, f"echo must be true or false, not {echo!r}")
    if logprobs not in (None, 0, 1) or isinstance(logprobs, bool):
        raise BadRequest(
            400, f"logprobs={logprobs!r} is not supported by this server: 1, the log-probability of each token itself, is all it has"
        )
    return echo, logprobs is not None


def _number(raw: dict[str, Any], name: str, kind: type, default: Any, least: float) -> Any:
    value = raw.get(name)
    if value is None:
        return default
    right = isinstance(value, int | float) if kind is float else isinstance(value, int)
    if not right or isinstance(value, bool) or value < least:
        raise BadRequest(400, f"{name} must be {'an integer' if kind is int else 'a number'} of at least {least:g}, not {value!r}")
    return value


def _prompt(raw: dict[str, Any]) -> str | list[int]:
    prompt = raw.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise BadRequest(400, "prompt must be one string or one non-empty list of token ids")


def _messages(raw: dict[str, Any]) -> list[dict[str, Any]]:
    messages = raw.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and "role" in m for m in messages):
        raise BadRequest(400, "messages must be a non-empty list of objects with role and content")
    return messages


@dataclass(slots=True)
class Answer:
    """The answer to one Ask on its connection. The back pushes tokens; the first push sends the head, the last one ends it."""

    ask: Ask
    connection: Connection
    model: str
    prompt_tokens: int
    on_end: Callable[[Answer, str], None]  # outcome: "done" | "cancelled" | "failed"
    tokens: int = 0
    ended: bool = False
    _prefix: str = ""
    _text: list[str] = field(default_factory=list)
    _token_ids: list[int] = field(default_factory=list)
    _log_probs: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection.on_disconnect = self._disconnected
        shape = {"completions": "text_completion", "chat": "chat.completion.chunk" if self.ask.stream else "chat.completion"}
        head = {"id": self.ask.request_id, "object": shape[self.ask.kind], "created": int(time.time()), "model": self.model}
        self._prefix = json.dumps(head, separators=(",", ":"))[:-1]  # left open: the rest is appended per chunk

    def echo(self, token_ids: list[int], text: str, log_probs: list[float | None]) -> None:
        """Tokens of the prompt that come back; they are no output."""
        self._text.append(text)
        self._token_ids += token_ids
        self._log_probs += log_probs

    def push(self, token_ids: list[int], text: str, finish_reason: str | None, log_probs: Sequence[float] = ()) -> None:
        """One step's tokens and the text they completed (may be empty: half an emoji)."""
        if self.ended:
            return
        first = self.tokens == 0
        self.tokens += len(token_ids)
        if not self.ask.stream:
            self._text.append(text)
            self._token_ids += token_ids
            self._log_probs += log_probs
            if finish_reason is not None:
                self._whole(finish_reason)
            return
        data = b""
        if first:
            data = self.connection.stream_head()
            if self.ask.kind == "chat":  # in the same write as the first token: a role is no token and must not look like one
                data += self._event('"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]')
        data += self._event(self._choice(token_ids, text, finish_reason) + (self._usage() if self.ask.continuous_usage else ""))
        if finish_reason is not None:
            if self.ask.include_usage:
                data += self._event('"choices":[]' + self._usage())
            data += chunk(b"data: [DONE]\n\n") + LAST_CHUNK
        self.connection.send(data)
        if finish_reason is not None and not self.ended:  # a failed write has ended it already
            self._end("done")
            self.connection.finish()

    def fail(self, status: int, message: str) -> None:
        """An error: a status if nothing was sent yet, else an error event and a broken-off stream."""
        if self.ended:
            return
        self._end("failed")
        if self.ask.stream and self.tokens:
            self.connection.send(chunk(b"data: " + json.dumps({"error": {"message": message, "code": status}}).encode() + b"\n\n"))
            self.connection.keep_alive = False
            self.connection.finish()
        else:
            self.connection.fail(status, message)

    def _choice(self, token_ids: list[int], text: str, finish_reason: str | None, logprobs: str = "null") -> str:
        content = quote(text)
        body = f'"delta":{{"content":{content}}}' if self.ask.kind == "chat" else f'"text":{content}'
        reason = f'"{finish_reason}"' if finish_reason else "null"
        ids = f',"token_ids":[{",".join(map(str, token_ids))}]' if self.ask.return_token_ids else ""
        return f'"choices":[{{"index":0,{body},"logprobs":{logprobs},"finish_reason":{reason}{ids}}}]'

    def _usage(self) -> str:
        total = self.prompt_tokens + self.tokens
        return f',"usage":{{"prompt_tokens":{self.prompt_tokens},"completion_tokens":{self.tokens},"total_tokens":{total}}}'

    def _event(self, rest: str) -> bytes:
        return chunk(f"data: {self._prefix},{rest}}}\n\n".encode())

    def _whole(self, finish_reason: str) -> None:
        given = "null"
        if self.ask.logprobs:
            given = json.dumps({"tokens": None, "token_logprobs": self._log_probs, "top_logprobs": None, "text_offset": None})
        choice = self._choice(self._token_ids, "".join(self._text), finish_reason, given)
        if self.ask.kind == "chat":
            choice = choice.replace('"delta":{', '"message":{"role":"assistant",', 1)
        self._end("done")
        self.connection.respond(200, f"{self._prefix},{choice}{self._usage()}}}".encode())

    def _disconnected(self) -> None:
        if not self.ended:
            self._end("cancelled")

    def _end(self, outcome: str) -> None:
        self.ended = True
        self.connection.on_disconnect = None
        self.on_end(self, outcome)

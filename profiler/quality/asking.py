"""What is asked of a served model: log-probabilities of given tokens, and answers. Blocking HTTP, one request at a time.

One at a time and greedy, because a batch may change the arithmetic; evaluation is never timed.
"""

from __future__ import annotations

import http.client
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.engines import http_client
from profiler.errors import EngineError
from profiler.records import Endpoint

TIMEOUT_S = 300.0
TOP_K = 20  # what vLLM allows by itself (--max-logprobs)
BUSY = (408, 429)  # not now; the same question may be answered a little later
NOT_OURS = (401, 403)  # who asks is refused, not what is asked
TRIES = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # doubled each time, unless the server says how long


class NotGiven(EngineError):
    """The server works and does not give this; `message` says why, in its words."""


@dataclass(frozen=True)
class Scored:
    """Log-probabilities (nats) of tokens[1:], each given all before it; the first token has none."""

    log_probs: tuple[float, ...]
    source: str  # "echo" | "prompt_logprobs"
    top: tuple[tuple[tuple[int, float], ...], ...] | None = None  # at each of these places (token, log-probability), best first
    no_top: str | None = None  # why there is no `top`


class Asker:
    """Asks one endpoint. The way to log-probabilities is found with the first window: vLLM's `prompt_logprobs`, else OpenAI's `echo`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._way: tuple[str, int] | None = None
        self._refused: dict[tuple[str, int], str] = {}

    def score(self, token_ids: Sequence[int]) -> Scored:
        """Raises NotGiven where the server has no log-probabilities of a prompt, EngineError where it fails.

        A server that is set to fewer than TOP_K gives those of the given tokens alone: a shorter list would be another KL.
        """
        ways = [self._way] if self._way else [("prompt_logprobs", TOP_K), ("prompt_logprobs", 1), ("echo", 1)]
        refusals = []
        for way in ways:
            source, k = way
            try:
                found, top = self._prompt_logprobs(token_ids, k) if source == "prompt_logprobs" else (self._echo(token_ids), None)
            except NotGiven as error:
                self._refused[way] = error.message
                refusals.append(f"{source}: {error.message}")
                continue
            self._way = way
            return Scored(found, source, top, None if top else self._no_top(source))
        raise NotGiven("; ".join(dict.fromkeys(refusals)))

    def _no_top(self, source: str) -> str:
        if source == "echo":
            return "the server gives the log-probability of the given token only"
        return f"the server does not give {TOP_K} per place: {self._refused.get((source, TOP_K), 'no reason')}"

    def _prompt_logprobs(
        self, token_ids: Sequence[int], k: int
    ) -> tuple[tuple[float, ...], tuple[tuple[tuple[int, float], ...], ...] | None]:
        """Each place has its `k` most probable tokens and, where it is none of them, the given one."""
        body = {"prompt": list(token_ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": k}
        choice = self._choice("/completions", body)
        given = choice.get("prompt_logprobs")
        if not isinstance(given, list) or len(given) != len(token_ids):
            raise NotGiven("the answer has none")
        try:
            found = [entry[str(token)]["logprob"] for entry, token in zip(given[1:], token_ids[1:], strict=True)]
            ranked = [sorted((-of["logprob"], int(token)) for token, of in entry.items())[:k] for entry in given[1:]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise NotGiven("the answer has not those of the tokens that were sent") from None
        log_probs = _checked(found)
        if k < TOP_K:
            return log_probs, None
        if any(len(place) < k for place in ranked):
            raise NotGiven(f"the answer has fewer than {k} tokens at a place")
        _checked([-x for place in ranked for x, _ in place])
        return log_probs, tuple(tuple((token, min(0.0, -x)) for x, token in place) for place in ranked)

    def _echo(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        body = {"prompt": list(token_ids), "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        given = (self._choice("/completions", body).get("logprobs") or {}).get("token_logprobs")
        # One more for the token that was generated; a server whose prefix cache hit gives fewer.
        if not isinstance(given, list) or len(given) != len(token_ids) + 1:
            raise NotGiven("the answer has not one log-probability per token (a prefix cache that hit?)")
        return _checked(given[1:-1])

    def answer(self, prompt: str, max_tokens: int, *, chat: bool) -> str:
        """The greedy answer, "" where the model says nothing. Raises NotGiven where none came, EngineError where the server fails."""
        body: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
        if chat:
            choice = self._choice("/chat/completions", {**body, "messages": [{"role": "user", "content": prompt}]})
            return message_of(choice).get("content") or ""
        choice = self._choice("/completions", {**body, "prompt": prompt})
        if "text" not in choice or not isinstance(choice["text"] or "", str):
            raise NotGiven("the answer has no text")
        return choice["text"] or ""

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of a chat completion as the server gave it, greedy. Raises EngineError."""
        return self._choice("/chat/completions", {"temperature": 0, **body})

    def _choice(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        raw = json.dumps({"model": self.endpoint.model, **body}).encode()
        status, answer = self._patiently(path, raw)
        if status != 200:
            refused = 400 <= status < 500 and status not in (*BUSY, *NOT_OURS)
            raise (NotGiven if refused else EngineError)(http_client.error_text(status, answer))
        try:
            choice = json.loads(answer)["choices"][0]
        except (ValueError, LookupError, TypeError):
            raise EngineError(f"{self.endpoint.url}{path}: not an OpenAI answer") from None
        if not isinstance(choice, dict):
            raise EngineError(f"{self.endpoint.url}{path}: not an OpenAI answer")
        return choice

    def _patiently(self, path: str, raw: bytes) -> tuple[int, bytes]:
        """Status and body; a server that is too busy is asked again a few times. Raises EngineError."""
        for attempt in range(TRIES):
            try:
                status, headers, answer = http_client.exchange(self.endpoint, "POST", path, raw, prefix=True, timeout_s=TIMEOUT_S)
            except (OSError, http.client.HTTPException) as error:
                raise EngineError(f"{self.endpoint.url}{path}: {error or type(error).__name__}") from error
            wait_s = _wait_s(headers, attempt)
            if status not in BUSY or attempt == TRIES - 1 or wait_s > LONGEST_WAIT_S:
                break
            time.sleep(wait_s)
        return status, answer


def message_of(choice: dict[str, Any]) -> dict[str, Any]:
    """Of a chat completion; its content is a text, or nothing. Raises NotGiven."""
    message = choice.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("content") or "", str):
        raise NotGiven("the answer has no message")
    return message


def _wait_s(headers: Mapping[str, str], attempt: int) -> float:
    """As long as the server asks for; a date, or nothing, is our own time, doubled with each attempt."""
    try:
        asked_s = float(headers.get("retry-after", ""))
    except ValueError:
        asked_s = math.nan
    return asked_s if asked_s >= 0 else FIRST_WAIT_S * 2**attempt


def _checked(values: Sequence[Any]) -> tuple[float, ...]:
    """A log-probability is a number of at most 0 (a little above it is rounding); some servers say -Infinity where they have none."""
    if not all(isinstance(x, int | float) and -sys.float_info.max <= x <= 1e-3 for x in values):
        raise NotGiven("what came is no log-probability")
    return tuple(min(0.0, float(x)) for x in values)

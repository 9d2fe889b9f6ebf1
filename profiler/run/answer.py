"""One answer, decoded after the window: HTTP chunks -> server-sent events -> tokens with the stamp of the read that completed them.

A chunk is not a token: counts come from the server's token ids, else its continuous usage, else its final usage spread by the
tokenizer, else the tokenizer alone. Role-only and empty events carry no token.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools

CountTokens = Callable[[str], int]


@dataclass
class Answer:
    """What one response said. `reads` holds (stamp ns, tokens) per read that brought tokens; `first_ns` the first byte of all."""

    status: int | None = None
    reads: list[tuple[int, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    count_source: str | None = None
    done: bool = False  # [DONE] was seen
    error_kind: str | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def tokens(self) -> int:
        return sum(count for _, count in self.reads)


class AnswerParser:
    """Feed it the reads of one response in order; `finish` gives the Answer. Any cut of the same bytes into reads counts the same tokens."""

    def __init__(self, count_tokens: CountTokens | None) -> None:
        self._count_tokens = count_tokens
        self._http = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._buffer = b""
        self._other = b""  # a body that is not a stream of events
        self._stream = False
        self._stamp = 0
        self._ids = 0  # tokens by token ids so far
        self._used = 0  # completion_tokens of the last usage seen
        self._counted: list[tuple[int, int | None, str]] = []  # per event: stamp, tokens if the server said, text
        self.complete = False

    # httptools callbacks
    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._stream = value.lower().startswith(b"text/event-stream")

    def on_headers_complete(self) -> None:
        self._answer.status = self._http.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._stream and self._answer.status == 200:
            self._buffer += body
            self._events()
        else:
            self._other += body

    def on_message_complete(self) -> None:
        self.complete = True

    def feed(self, data: bytes, stamp_ns: int) -> None:
        """One read and when it arrived. A response that is not HTTP becomes a `bad_stream` error."""
        self._stamp = stamp_ns
        try:
            self._http.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail("bad_stream", f"not HTTP: {error}")

    def finish(self) -> Answer:
        answer = self._answer
        if answer.status is not None and answer.status != 200:
            self._fail("http_status", f"{answer.status}: {_message(self._other)}")
        elif self._other and answer.error_kind is None:
            self._fail("bad_stream", f"not a stream of events: {_message(self._other)}")
        self._count()
        if answer.error_kind is None and not (self.complete and (answer.done or answer.finish_reason)):
            self._fail("truncated", "the stream ended before the answer did")
        return answer

    def _events(self) -> None:
        """Whole events in the buffer; an event ends with an empty line, with any of the line ends of the specification."""
        if b"\r" in self._buffer:
            # A lone CR at the end may be half of a CR LF: leave it for the next read.
            keep = b"\r" if self._buffer.endswith(b"\r") else b""
            self._buffer = self._buffer[: len(self._buffer) - len(keep)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + keep
        while (end := self._buffer.find(b"\n\n")) >= 0:
            event, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
            data = b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
            if data:
                self._event(data)

    def _event(self, data: bytes) -> None:
        answer = self._answer
        if data.strip() == b"[DONE]":
            answer.done = True
            return
        try:
            chunk = json.loads(data)
            error = chunk.get("error")
            choices = chunk.get("choices") or ()
        except (ValueError, AttributeError):
            self._fail("bad_stream", f"not a JSON object in the stream: {data[:60]!r}")
            return
        if error:
            self._fail("server_error", str(error.get("message", error) if isinstance(error, dict) else error)[:300])
            return
        usage = chunk.get("usage")
        grown = None
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            answer.usage = usage
            grown, self._used = usage["completion_tokens"] - self._used, usage["completion_tokens"]
        for choice in choices[:1]:
            self._choice(choice, grown)

    def _choice(self, choice: dict[str, Any], grown: int | None) -> None:
        answer = self._answer
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        delta = choice.get("delta") or {}
        parts = (choice.get("text"), delta.get("reasoning_content") or delta.get("reasoning"), delta.get("content"))
        text = "".join(part for part in parts if isinstance(part, str))
        ids = choice.get("token_ids")
        if isinstance(ids, list):
            self._source("token_ids")
            count: int | None = len(ids)
        elif grown is not None:
            self._source("continuous_usage")
            count = grown
        else:
            count = None
        if text:
            answer.texts.append(text)
        if count or (count is None and text):
            self._counted.append((self._stamp, count, text))

    def _source(self, name: str) -> None:
        self._answer.count_source = self._answer.count_source or name

    def _count(self) -> None:
        """Fill in what the server did not say chunk by chunk, and join the events that one read brought."""
        answer, events = self._answer, self._counted
        if any(count is None for _, count, _ in events):
            guess = [
                count if count is not None else max(1, self._count_tokens(text)) if self._count_tokens else 1 for _, count, text in events
            ]
            total = answer.usage["completion_tokens"] if answer.usage else None
            answer.count_source = "usage" if total is not None else "tokenizer" if self._count_tokens else None
            if total is not None:
                guess = _spread(guess, total)
            events = [(stamp, count, text) for (stamp, _, text), count in zip(events, guess, strict=True)]
        for stamp, count, _ in events:
            if not count:
                continue
            if answer.reads and answer.reads[-1][0] == stamp:
                answer.reads[-1] = (stamp, answer.reads[-1][1] + count)
            else:
                answer.reads.append((stamp, count))

    def _fail(self, kind: str, message: str) -> None:
        if self._answer.error_kind is None:
            self._answer.error_kind, self._answer.error = kind, message


def _spread(counts: list[int], total: int) -> list[int]:
    """Correct per-chunk guesses to the server's total, from the last chunk backwards; a chunk keeps at least one token if it can."""
    missing = total - sum(counts)
    counts = list(counts)
    if missing >= 0 and counts:
        counts[-1] += missing
        return counts
    for position in reversed(range(len(counts))):
        take = min(counts[position] - 1, -missing)
        counts[position] -= take
        missing += take
    for position in reversed(range(len(counts))):  # fewer tokens than chunks: some chunks were halves of a character
        take = min(counts[position], -missing)
        counts[position] -= take
        missing += take
    return counts


def _message(body: bytes) -> str:
    """The message of a JSON error body in any of the usual shapes, else its beginning."""
    text = body.decode("utf-8", "replace").strip()
    try:
        content: Any = json.loads(text)
    except ValueError:
        return text[:200] or "no text"
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    return str(content)[:300]

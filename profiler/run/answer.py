"""One answer, decoded after the window: HTTP chunks -> server-sent events -> tokens with the stamp of the read that completed them.

A chunk is not a token: counts come from the server's token ids, else its continuous usage, else its final usage spread by the
tokenizer, else the tokenizer alone. Role-only and empty events carry no token.

Two ways through, and tests that they agree: a read that is one whole HTTP chunk with one whole event (nearly all are) goes straight to a
typed JSON decoder; everything else goes through the HTTP parser, and what the typed decoder refuses is read leniently.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
import msgspec

CountTokens = Callable[[str], int]


class Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: Delta | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Timings(msgspec.Struct, gc=False):
    """vLLM's `metrics`, ms, in the last chunk (--enable-per-request-metrics); its TTFT counts from being scheduled, not from arrival."""

    queue_time_ms: float | None = None
    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None


class Chunk(msgspec.Struct, gc=False):
    """What we read of a completions or chat chunk."""

    choices: list[Choice] = []
    usage: Usage | None = None
    metrics: Timings | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Chunk).decode


@dataclass
class Answer:
    """What one response said. `stamps` (ns) and `counts` have one entry per read that brought tokens."""

    status: int | None = None
    stamps: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    count_source: str | None = None
    done: bool = False  # [DONE] was seen
    error_kind: str | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def tokens(self) -> int:
        return sum(self.counts)


class AnswerParser:
    """Feed it the reads of one response in order; `finish` gives the Answer. Any cut of the same bytes into reads counts the same tokens."""

    def __init__(self, count_tokens: CountTokens | None) -> None:
        self._count_tokens = count_tokens
        self._http = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._buffer = b""
        self._other = b""  # a body that is not a stream of events
        self._stream = False
        self._chunked = False
        self._framed = False  # the end of the body is told by its framing, not by the end of the connection
        self._plain = False  # a stream of events, and nothing against reading it
        self._encoding = b""
        self._at_chunk = False  # the HTTP parser has taken whole chunks only
        self._complete = False
        # Per event with tokens or text, in order: stamp, tokens by ids, completion_tokens so far, text.
        self._events: list[tuple[int, int | None, int | None, str]] = []

    # httptools callbacks
    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._stream = value.lower().startswith(b"text/event-stream")
        elif name == b"content-encoding":
            self._encoding = value.lower()
        elif name == b"transfer-encoding":
            self._chunked = self._framed = b"chunked" in value.lower()
        elif name == b"content-length":
            self._framed = True

    def on_headers_complete(self) -> None:
        self._answer.status = self._http.get_status_code()
        if self._answer.status == 200 and self._encoding not in (b"", b"identity"):
            name = self._encoding.decode("latin-1")
            self._fail("bad_stream", f"the answer is compressed ({name}) though identity was asked for: that hides when tokens arrived")
        self._plain = self._stream and self._answer.status == 200 and self._answer.error_kind is None
        self._at_chunk = self._chunked

    def on_chunk_header(self) -> None:
        self._at_chunk = False

    def on_chunk_complete(self) -> None:
        self._at_chunk = True

    def on_body(self, body: bytes) -> None:
        if self._plain:
            self._buffer += body
            self._take_events()
        else:
            self._other += body

    def on_message_complete(self) -> None:
        self._complete = True
        self._at_chunk = False

    def feed(self, data: bytes, stamp_ns: int) -> None:
        """One read and when it arrived. A response that is not HTTP becomes a `bad_stream` error."""
        if self._at_chunk and not self._buffer and self._plain:
            start = data.find(b"\r\n", 0, 10) + 2
            end = len(data) - 4
            if (
                data[:start] == b"%x\r\n" % (end + 2 - start)
                and data.startswith(b"data: {", start)
                and data.find(b"\n", start) == end  # one line, so that the event ends where it seems to
                and data.find(b"\r", start) == end + 2
                and data.endswith(b"}\n\n\r\n")
            ):
                self._event(data[start + 6 : end], stamp_ns)
                return
        self._stamp = stamp_ns
        try:
            self._http.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail("bad_stream", f"not HTTP: {error}")
        if not data.endswith(b"\r\n"):  # perhaps half a line of the next chunk's size
            self._at_chunk = False

    def finish(self, closed: bool = False) -> Answer:
        """The answer as far as it came. `closed`: the connection ended behind it, which completes an answer without a framing."""
        answer = self._answer
        complete = self._complete or (closed and answer.status is not None and not self._framed)
        if complete and self._buffer:  # an event whose empty line was left out
            self._buffer += b"\n\n"
            self._take_events()
        if answer.status is not None and answer.status != 200:
            self._fail("http_status", f"{answer.status}: {_message(self._other)}")
        elif self._other and answer.error_kind is None:
            self._fail("bad_stream", f"not a stream of events: {_message(self._other)}")
        self._count()
        if answer.error_kind is None and not (complete and (answer.done or answer.finish_reason)):
            self._fail("truncated", "the stream ended before the answer did")
        return answer

    def _take_events(self) -> None:
        """Whole events in the buffer; an event ends with an empty line, with any of the line ends of the specification."""
        if b"\r" in self._buffer:
            # A lone CR at the end may be half of a CR LF: leave it for the next read.
            keep = b"\r" if self._buffer.endswith(b"\r") else b""
            self._buffer = self._buffer[: len(self._buffer) - len(keep)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + keep
        while (end := self._buffer.find(b"\n\n")) >= 0:
            event, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
            data = b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
            if data:
                self._event(data, self._stamp)

    def _event(self, data: bytes, stamp: int) -> None:
        answer = self._answer
        if answer.error_kind is not None:
            return
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            lenient = self._lenient(data)
            if lenient is None:
                return
            chunk = lenient
        if chunk.error:
            error = chunk.error
            self._fail("server_error", str(error.get("message", error) if isinstance(error, dict) else error)[:300])
            return
        if chunk.metrics is not None:
            answer.timings = chunk.metrics
        used = None
        if chunk.usage is not None and chunk.usage.completion_tokens is not None:
            answer.usage = chunk.usage
            used = chunk.usage.completion_tokens
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        if choice.finish_reason:
            answer.finish_reason = choice.finish_reason
        text, delta, ids = choice.text or "", choice.delta, choice.token_ids
        if delta is not None:
            text += (delta.reasoning_content or delta.reasoning or "") + (delta.content or "")
        if text or ids or used is not None:
            self._events.append((stamp, len(ids) if ids is not None else None, used, text))

    def _lenient(self, data: bytes) -> Chunk | None:
        """An event that is not exactly as it should be: [DONE], fields of other types, or no JSON at all (a `bad_stream`)."""
        if data.strip() == b"[DONE]":
            self._answer.done = True
            return None
        try:
            raw = json.loads(data)
        except ValueError:
            raw = None
        if not isinstance(raw, dict):
            self._fail("bad_stream", f"not a JSON object in the stream: {data[:60]!r}")
            return None
        choices = raw.get("choices")
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
        usage = raw.get("usage")
        return Chunk(
            choices=[] if first is None else [_lenient_choice(first)],
            usage=_lenient_usage(usage) if isinstance(usage, dict) else None,
            metrics=_lenient_timings(raw.get("metrics")),
            error=raw.get("error"),
        )

    def _count(self) -> None:
        """Decide whose counts hold, and join the events that one read brought."""
        answer, events = self._answer, self._events
        if not events:
            return
        stamps, ids, _, texts = zip(*events, strict=True)
        answer.texts = list(texts)
        counts = self._counts(ids, texts)
        if all(counts) and len(set(stamps)) == len(stamps):
            answer.stamps, answer.counts = list(stamps), counts
            return
        for stamp, count in zip(stamps, counts, strict=True):
            if not count:
                continue
            if answer.stamps and answer.stamps[-1] == stamp:
                answer.counts[-1] += count
            else:
                answer.stamps.append(stamp)
                answer.counts.append(count)

    def _counts(self, ids: tuple[int | None, ...], texts: tuple[str, ...]) -> list[int]:
        """Tokens per event."""
        answer = self._answer
        if any(ids) and (None not in ids or all(n is not None for n, text in zip(ids, texts, strict=True) if text)):
            answer.count_source = "token_ids"
            return [n or 0 for n in ids]
        if grown := _growth(self._events):
            answer.count_source = "continuous_usage"
            return grown
        counts = [n if n is not None else self._guess(text) if text else 0 for n, text in zip(ids, texts, strict=True)]
        total = answer.usage.completion_tokens if answer.usage else None
        if not any(counts):
            return counts
        if not total:  # no usage, or a total of 0 beside text, which is no count
            answer.count_source = "tokenizer" if self._count_tokens else None
            return counts
        answer.count_source = "usage"
        return _spread(counts, total)

    def _guess(self, text: str) -> int:
        return max(1, self._count_tokens(text)) if self._count_tokens else 1

    def _fail(self, kind: str, message: str) -> None:
        if self._answer.error_kind is None:
            self._answer.error_kind, self._answer.error = kind, message


def _lenient_choice(raw: dict[str, Any]) -> Choice:
    delta = raw.get("delta")
    ids = raw.get("token_ids")
    return Choice(
        text=_of(str, raw.get("text")),
        delta=Delta(*(_of(str, delta.get(name)) for name in ("content", "reasoning_content", "reasoning")))
        if isinstance(delta, dict)
        else None,
        token_ids=ids if isinstance(ids, list) else None,
        finish_reason=_of(str, raw.get("finish_reason")),
    )


def _lenient_usage(raw: dict[str, Any]) -> Usage:
    details = raw.get("prompt_tokens_details")
    cached = _of(int, details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(_of(int, raw.get("prompt_tokens")), _of(int, raw.get("completion_tokens")), PromptDetails(cached))


def _lenient_timings(raw: Any) -> Timings | None:
    names = ("queue_time_ms", "time_to_first_token_ms", "generation_time_ms")
    if not isinstance(raw, dict) or not any(name in raw for name in names):
        return None
    found = [_of((int, float), raw.get(name)) for name in names]
    return Timings(*(None if value is None else float(value) for value in found))


def _of(kind: type | tuple[type, ...], value: Any) -> Any:
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _growth(events: list[tuple[int, int | None, int | None, str]]) -> list[int] | None:
    """Tokens per event from completion_tokens so far; None when they contradict the text.

    They do when text comes without a count, a count falls, or text comes while the count is still 0: then it is not a running count.
    """
    counts, before = [], 0
    for _, _, used, text in events:
        if used is None and not text:
            counts.append(0)
            continue
        if used is None or used < before or (text and used == 0):
            return None
        counts.append(used - before)
        before = used
    return counts if any(counts) else None


def _spread(guesses: list[int], total: int) -> list[int]:
    """Share the server's total out by the guesses; the same where they sum to it, and the first chunk with text keeps a token."""
    weight, counts, given, seen = sum(guesses), [], 0, 0
    for guess in guesses:
        seen += guess
        share = -(-total * seen // weight)  # rounded up
        counts.append(share - given)
        given = share
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

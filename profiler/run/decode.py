"""From the spool to one RequestRecord per request, after the window. Definitions are those of docs/measuring.md."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

from profiler.records import ErrorKind, RequestRecord
from profiler.run import spool
from profiler.run.answer import Answer, AnswerParser, CountTokens

TEXTS = 3  # answers of the cohort whose text is kept


@dataclass(frozen=True)
class RequestMeta:
    """What was asked, per prepared body."""

    request_id: str
    session_id: str | None
    turn: int
    prompt_tokens: int
    asked_output_tokens: int


@dataclass(frozen=True)
class Decoded:
    """`read_delay_*`: kernel stamp to the client's read, s; None without kernel stamps."""

    requests: list[RequestRecord]
    read_delay_p50_s: float | None
    read_delay_p99_s: float | None


@dataclass
class _Raw:
    """One request's spool records."""

    body: int = 0
    intended_ns: int = 0
    sent_ns: int = 0
    reused: bool = False
    done_ns: int | None = None
    error: str | None = None
    reads: list[tuple[int, bytes]] = field(default_factory=list)  # stamp (monotonic ns), bytes


def decode(folder: Path, meta: Sequence[RequestMeta], count_tokens: CountTokens | None) -> Decoded:
    """Decode `folder`/spool.bin. `meta[i]` describes body i; a body sent again gets "#2", "#3" behind its id."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    raws, delays = _collect(folder / spool.NAME, _Converter(result["clock_samples"]))
    window = (result["window_open_ns"], result["window_close_ns"])
    times_sent: dict[int, int] = {}
    texts = 0
    requests = []
    for _, raw in sorted(raws.items()):
        times_sent[raw.body] = turn = times_sent.get(raw.body, 0) + 1
        answer = _answer(raw, count_tokens)
        in_window = window[0] <= raw.intended_ns < window[1]
        keep_text = in_window and answer.error_kind is None and texts < TEXTS
        texts += keep_text
        requests.append(_record(raw, answer, meta[raw.body], turn, in_window, raw.intended_ns < window[0], keep_text))
    delays.sort()
    return Decoded(requests, _quantile(delays, 0.5), _quantile(delays, 0.99))


class _Converter:
    """CLOCK_REALTIME to CLOCK_MONOTONIC by the nearest paired sample before: offsets change by slewing only, else the run is invalid."""

    def __init__(self, samples: Sequence[Sequence[int]]) -> None:
        self._samples = samples
        self._at = 0

    def monotonic_ns(self, realtime_ns: int, read_ns: int) -> int:
        """`read_ns` (monotonic) says which sample is near; it rises from call to call."""
        while self._at + 1 < len(self._samples) and self._samples[self._at + 1][0] <= read_ns:
            self._at += 1
        return realtime_ns - self._samples[self._at][1]


def _collect(path: Path, converter: _Converter) -> tuple[dict[int, _Raw], list[float]]:
    raws: dict[int, _Raw] = {}
    delays: list[float] = []
    for kind, seq, t_a, t_b, payload in spool.read(path):
        raw = raws.setdefault(seq, _Raw())
        if kind == spool.READ:
            stamp = t_b
            if t_a:
                # A stamp after our own read is impossible; nanoseconds of it are the error of converting the clocks.
                stamp = min(converter.monotonic_ns(t_a, t_b), t_b)
                delays.append((t_b - stamp) / 1e9)
            raw.reads.append((stamp, payload))
        elif kind == spool.SENT:
            raw.body, reused = spool.SENT_PAYLOAD.unpack(payload)
            raw.reused = bool(reused)
            raw.intended_ns, raw.sent_ns = t_a, t_b
        elif kind == spool.END:
            raw.done_ns = raw.reads[-1][0] if raw.reads else t_b
        elif kind == spool.ERROR:
            raw.error = payload.decode("utf-8", "replace")
    return {seq: raw for seq, raw in raws.items() if raw.intended_ns}, delays


def _answer(raw: _Raw, count_tokens: CountTokens | None) -> Answer:
    parser = AnswerParser(count_tokens)
    for stamp, data in raw.reads:
        parser.feed(data, stamp)
    answer = parser.finish()
    if raw.error is not None and answer.error_kind in (None, "truncated"):
        kind, _, message = raw.error.partition(": ")
        answer.error_kind, answer.error = kind, message
    return answer


def _record(raw: _Raw, answer: Answer, meta: RequestMeta, times: int, in_window: bool, warmup: bool, keep_text: bool) -> RequestRecord:
    sent, reads = raw.sent_ns or None, answer.reads
    first, last = (reads[0][0], reads[-1][0]) if reads else (None, None)
    failed = answer.error_kind is not None
    done = raw.done_ns if not failed else None
    after_first = answer.tokens - reads[0][1] if reads else 0
    usage = answer.usage or {}
    return RequestRecord(
        request_id=meta.request_id if times == 1 else f"{meta.request_id}#{times}",
        session_id=meta.session_id,
        turn=meta.turn,
        intended_ns=raw.intended_ns,
        sent_ns=sent,
        first_token_ns=first,
        last_token_ns=last,
        done_ns=done,
        ttft_s=_seconds(sent, first),
        ttft_sched_s=_seconds(raw.intended_ns, first),
        tpot_s=(last - first) / 1e9 / after_first if first is not None and last is not None and after_first > 0 else None,
        e2e_s=_seconds(sent, done),
        e2e_sched_s=_seconds(raw.intended_ns, done),
        max_icl_s=max(((b - a) / 1e9 for (a, _), (b, _) in pairwise(reads)), default=None),
        prompt_tokens=usage.get("prompt_tokens") or meta.prompt_tokens,
        output_tokens=answer.tokens if reads or not failed else None,
        asked_output_tokens=meta.asked_output_tokens,
        finish_reason=answer.finish_reason,
        error_kind=cast("ErrorKind | None", answer.error_kind),
        error=answer.error,
        http_status=answer.status,
        warmup=warmup,
        in_window=in_window,
        connection_reused=raw.reused if sent else None,
        token_count_source=answer.count_source,
        arrival_offsets_us=tuple(round((stamp - sent) / 1000) for stamp, _ in reads) if sent else (),
        arrival_tokens=tuple(count for _, count in reads) if sent else (),
        text=answer.text if keep_text else None,
    )


def _seconds(start: int | None, end: int | None) -> float | None:
    return (end - start) / 1e9 if start is not None and end is not None else None


def _quantile(ordered: Sequence[float], p: float) -> float | None:
    """Order statistic, no interpolation."""
    return ordered[max(0, math.ceil(p * len(ordered)) - 1)] if ordered else None

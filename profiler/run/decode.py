"""From the spool to one RequestRecord per request, after the window. Definitions are those of docs/measuring.md."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import sub
from pathlib import Path
from typing import cast

import numpy as np

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
    asked_model: str | None = None


@dataclass(frozen=True)
class Decoded:
    """`read_delay_*`: kernel stamp to the client's read, s; None without kernel stamps."""

    requests: list[RequestRecord]
    read_delay_p50_s: float | None
    read_delay_p99_s: float | None


class _Raw:
    """One request on its way through the spool."""

    __slots__ = ("body", "done_ns", "error", "intended_ns", "last_ns", "parser", "replica", "reused", "sent_ns")

    def __init__(self, parser: AnswerParser) -> None:
        self.parser = parser
        self.body = 0
        self.intended_ns = 0
        self.sent_ns = 0
        self.reused = False
        self.replica = 0
        self.last_ns: int | None = None  # stamp of the last read
        self.done_ns: int | None = None
        self.error: str | None = None


def spools(folder: Path) -> list[Path]:
    """The spool of a cell, or those of its several clients."""
    return sorted(folder.glob(f"client-*/{spool.NAME}")) or [folder / spool.NAME]


def decode(
    folder: Path,
    meta: Sequence[RequestMeta],
    count_tokens: CountTokens | None,
    window: tuple[int, int] | None = None,
    unended: str | None = None,
) -> Decoded:
    """Decode `folder`/spool.bin, or those of several clients. `meta[i]` describes body i; a body sent again gets "#2", "#3" behind its id.

    One pass; each request is decoded as its reads come, so that memory holds what the records keep and no raw bytes. `window` (opened and
    closed, ns) is the client's result where none is given; `unended` is the error ("kind: message") of requests that a killed client left.
    """
    if window is None:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        window = (result["window_open_ns"], result["window_close_ns"])
    paths = spools(folder)
    delays = array("q")
    texts = 0
    finished: list[tuple[int, int, RequestRecord]] = []  # seq (of several clients: intended ns), body, record
    for path in paths:
        for seq, raw in _requests(path, count_tokens, delays):
            if raw.done_ns is None and raw.error is None:
                raw.error = unended
            answer = _answer(raw)
            in_window = window[0] <= raw.intended_ns < window[1]
            keep_text = in_window and answer.error_kind is None and texts < TEXTS
            texts += keep_text
            record = _record(raw, answer, meta[raw.body], in_window, raw.intended_ns < window[0], answer.text if keep_text else None)
            finished.append((seq if len(paths) == 1 else raw.intended_ns, raw.body, record))
    return Decoded(_named(finished), *_delays_s(delays))


def decode_so_far(folder: Path, meta: Sequence[RequestMeta], count_tokens: CountTokens | None, before: int) -> list[RequestRecord]:
    """The cohort of a window that is still open, in the order of their intended times, up to the first request that has not ended.

    `before` requests were intended before the window. Those behind the first unfinished one are left out although some have ended:
    the quick ones of them come first, and a sample of quick ones would flatter.
    """
    raws = sorted((raw for _, raw in _requests(folder / spool.NAME, count_tokens, array("q"))), key=lambda raw: raw.intended_ns)
    ended = takewhile(lambda raw: raw.done_ns is not None or raw.error is not None, raws[before:])
    return [_record(raw, _answer(raw), meta[raw.body], True, False, None) for raw in ended]


def _requests(path: Path, count_tokens: CountTokens | None, delays: array[int]) -> Iterator[tuple[int, _Raw]]:
    """Each request as it ends, then those that a killed client left. Appends the delay of each stamped read, ns, to `delays`.

    Kernel stamps are CLOCK_REALTIME: the last paired sample before converts them, because offsets change by slewing only, or the run is
    invalid.
    """
    raws: dict[int, _Raw] = {}
    offset = 0
    for kind, seq, t_a, t_b, payload in spool.read(path):
        if kind == spool.READ:
            stamp = t_b
            # A stamp after our own read is impossible; nanoseconds of it are the error of converting the clocks.
            if t_a:
                stamp = t_a - offset
                if stamp > t_b:
                    stamp = t_b
                delays.append(t_b - stamp)
            raw = raws[seq]
            raw.last_ns = stamp
            raw.parser.feed(payload, stamp)
        elif kind == spool.SENT:  # a second time when a kept-alive connection turned out to be closed: nothing had been read
            raw = raws.setdefault(seq, _Raw(AnswerParser(count_tokens)))
            raw.body, reused = spool.SENT_PAYLOAD.unpack(payload)
            raw.reused, raw.replica = bool(reused & 1), reused >> 1
            raw.intended_ns, raw.sent_ns = t_a, t_b
        elif kind in (spool.END, spool.ERROR):
            raw = raws.pop(seq)
            if kind == spool.END:
                raw.done_ns = raw.last_ns if raw.last_ns is not None else t_b
            else:
                raw.error = payload.decode("utf-8", "replace")
            yield seq, raw
        elif kind == spool.CLOCK:
            offset = t_a
    yield from raws.items()


def _answer(raw: _Raw) -> Answer:
    answer = raw.parser.finish(closed=raw.done_ns is not None)
    if raw.error is not None and answer.error_kind in (None, "truncated"):
        kind, _, message = raw.error.partition(": ")
        answer.error_kind, answer.error = kind, message
    return answer


def _named(finished: list[tuple[int, int, RequestRecord]]) -> list[RequestRecord]:
    """The records in the order they were sent; a body's second answer gets "#2" behind its id."""
    times: dict[int, int] = {}
    records = []
    for _, body, record in sorted(finished, key=lambda item: item[0]):
        times[body] = n = times.get(body, 0) + 1
        records.append(record if n == 1 else replace(record, request_id=f"{record.request_id}#{n}"))
    return records


def _record(raw: _Raw, answer: Answer, meta: RequestMeta, in_window: bool, warmup: bool, text: str | None) -> RequestRecord:
    sent, stamps, counts = raw.sent_ns or None, answer.stamps, answer.counts
    first, last = (stamps[0], stamps[-1]) if stamps else (None, None)
    failed = answer.error_kind is not None
    done = raw.done_ns if not failed else None
    tokens = answer.tokens
    after_first = tokens - counts[0] if counts else 0
    usage = answer.usage
    queue, prefill, generation = _server_s(answer)
    return RequestRecord(
        request_id=meta.request_id,
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
        max_icl_s=max(map(sub, stamps[1:], stamps)) / 1e9 if len(stamps) > 1 else None,
        prompt_tokens=(usage.prompt_tokens if usage else None) or meta.prompt_tokens,
        output_tokens=tokens if stamps or not failed else None,
        asked_output_tokens=meta.asked_output_tokens,
        finish_reason=answer.finish_reason,
        error_kind=cast("ErrorKind | None", answer.error_kind),
        error=answer.error,
        http_status=answer.status,
        warmup=warmup,
        in_window=in_window,
        connection_reused=raw.reused if sent else None,
        token_count_source=answer.count_source,
        arrival_offsets_us=tuple([(stamp - sent + 500) // 1000 for stamp in stamps]) if sent else (),
        arrival_tokens=tuple(counts) if sent else (),
        server_queue_s=queue,
        server_prefill_s=prefill,
        server_decode_s=generation,
        server_ttft_s=queue + prefill if queue is not None and prefill is not None else None,
        server_cached_tokens=usage.prompt_tokens_details.cached_tokens if usage and usage.prompt_tokens_details else None,
        text=text,
        asked_model=meta.asked_model,
        replica=raw.replica,
    )


def _server_s(answer: Answer) -> tuple[float | None, float | None, float | None]:
    """Queue, prefill and decode as the server timed them, s."""
    timings = answer.timings
    if timings is None:
        return None, None, None
    parts = (timings.queue_time_ms, timings.time_to_first_token_ms, timings.generation_time_ms)
    queue, prefill, generation = (None if ms is None else ms / 1e3 for ms in parts)
    return queue, prefill, generation


def _delays_s(delays: array[int]) -> tuple[float | None, float | None]:
    """p50 and p99 in s, order statistics without interpolation."""
    if not delays:
        return None, None
    ordered = np.frombuffer(delays, dtype=np.int64)
    ranks = [max(0, math.ceil(p * len(ordered)) - 1) for p in (0.5, 0.99)]
    low, high = np.partition(ordered, ranks)[ranks]
    return float(low) / 1e9, float(high) / 1e9


def _seconds(start: int | None, end: int | None) -> float | None:
    return (end - start) / 1e9 if start is not None and end is not None else None

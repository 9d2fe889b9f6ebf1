"""One load against the paced server: what the client says beside what the server really did, request by request, on one clock."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.engines import registry
from profiler.engines.paced import record
from profiler.engines.protocol import RunningEngine
from profiler.errors import LoadError
from profiler.records import DriveResult, LoadPlan, RequestRecord
from profiler.run.bodies import PATHS
from profiler.run.decode import RequestMeta, decode
from profiler.run.drive import DriveProgress, drive
from profiler.spec import BackendSpec
from profiler.units import NS_PER_S


@dataclass(frozen=True)
class Pace:
    """What the server is asked to do for every request. Fixed times: any spread in what is seen is somebody's error."""

    ttft_s: float = 0.050
    itl_s: float = 0.010
    output_tokens: int = 128

    @property
    def request_s(self) -> float:
        return self.ttft_s + (self.output_tokens - 1) * self.itl_s

    def tokens_per_s(self, streams: int) -> float:
        """What the server gives to `streams` that each ask again at once."""
        return streams * self.output_tokens / self.request_s


@dataclass(frozen=True)
class Checked:
    """One load, checked. Errors are client − server: of a stamp, s; of a mean gap, s and as a share of the server's.

    `*_p50_s`, `*_p99_s` are order statistics over the `n` requests that the window's cohort finished. None: nothing to compute it from.
    """

    load: float  # the concurrency, or the request rate in 1/s
    n: int
    errors: int
    tokens_per_s: float  # that the server sent inside the window
    reported_tokens_per_s: float  # the same by the client's stamps
    ideal_tokens_per_s: float
    kept: float  # tokens_per_s / ideal; the load that client and server together kept up
    ttft_error_p50_s: float | None
    ttft_error_p99_s: float | None
    itl_error_p50_s: float | None  # of the absolute error of a request's mean gap
    itl_error_p99_s: float | None
    itl_error_share: float | None  # of the mean gap over all requests
    server_ttft_p50_s: float | None  # request read to first send: the load's effect on the server itself
    server_ttft_p99_s: float | None
    server_itl_s: float | None
    request_delay_p50_s: float | None  # the client's send to the server's read; part of it is the server's
    request_delay_p99_s: float | None
    send_lag_p50_s: float | None
    send_lag_p99_s: float | None
    read_delay_p50_s: float | None
    read_delay_p99_s: float | None
    client_cpu_us_per_token: float | None
    tokens_per_read: float | None
    wrong_counts: int  # finished requests whose token count differs from what was sent


def bodies(n: int, pace: Pace, model: str = "paced") -> list[bytes]:
    """Different streaming requests with short prompts: what is measured is the answers."""
    fixed = {"model": model, "max_tokens": pace.output_tokens, "stream": True, "return_token_ids": True, "ignore_eos": True}
    return [json.dumps({**fixed, "prompt": [i // 1000 + 1, i % 1000 + 1, 7, 7]}, separators=(",", ":")).encode() for i in range(n)]


def closed(streams: int, pace: Pace, window_s: float) -> LoadPlan:
    """`streams` that each ask again at once. The window holds whole answers, or the pause before each first token would bias it.

    Two at least: fixed times keep the streams in step, and no request may begin inside a window of one.
    """
    whole_s = max(2, round(window_s / pace.request_s)) * pace.request_s
    return LoadPlan("concurrency", streams, 0.0, streams, whole_s, whole_s, 1, request_timeout_s=60.0)


def check(
    plan: LoadPlan,
    pace: Pace,
    folder: Path,
    on_progress: Callable[[DriveProgress], None] | None = None,
    on_start: Callable[[RunningEngine], None] | None = None,
) -> Checked:
    """Start a paced server, offer `plan`, compare. `on_start` hears of the server. Raises EnvironmentError_, EngineError, LoadError."""
    sent_file = folder / "sent.jsonl"
    options = {"ttft_ms": pace.ttft_s * 1e3, "itl_ms": pace.itl_s * 1e3, "record": str(sent_file)}
    spec = BackendSpec(name="paced", summary="checks the client", engine="paced", device="cpu", precision="none", options=options)
    asked = bodies(_enough(plan, pace), pace)
    keys = [record.fnv1a(body) for body in asked]
    engine = registry.get("paced")
    with engine.start(engine.prepare(None, spec, _quiet), spec, folder / "engine.log", _quiet) as running:
        if on_start is not None:
            on_start(running)
        result = drive(running.endpoint, PATHS["completions"], asked, plan, folder, on_progress)
    decoded = decode(folder, [RequestMeta(key, None, 0, 4, pace.output_tokens) for key in keys], None)
    ideal = pace.tokens_per_s(int(plan.load)) if plan.kind == "concurrency" else plan.load * pace.output_tokens
    delays = (decoded.read_delay_p50_s, decoded.read_delay_p99_s)
    return compare(plan.load, ideal, list(record.read(sent_file)), decoded.requests, result, delays)


def compare(
    load: float,
    ideal_tokens_per_s: float,
    sent: Sequence[record.SentRequest],
    requests: Sequence[RequestRecord],
    result: DriveResult,
    read_delays_s: tuple[float | None, float | None],
) -> Checked:
    """Pairs by the hash of the body, which is the client's request_id here. Raises LoadError when not one request pairs."""
    window = (result.window_open_ns, result.window_close_ns)
    window_s = (window[1] - window[0]) / NS_PER_S
    by_key = {one.body_fnv1a: one for one in sent if one.stream_index is not None}
    cohort = [r for r in requests if r.in_window]
    pairs = [(r, by_key[r.request_id]) for r in cohort if r.error_kind is None and r.request_id in by_key]
    pairs = [(r, s) for r, s in pairs if r.first_token_ns is not None and r.sent_ns is not None and s.chunks]
    if not pairs:
        raise LoadError("no request of the client could be found in the server's record")
    firsts = [_s(r.first_token_ns, s.chunks[0].before_ns) for r, s in pairs]
    gaps = [(r.tpot_s, _mean_gap_s(s)) for r, s in pairs if r.tpot_s is not None and len(s.chunks) > 1]
    server_ttfts = [_s(s.chunks[0].before_ns, s.received_ns) for _, s in pairs]
    delays = [_s(s.received_ns, r.sent_ns) for r, s in pairs]
    lags = [_s(r.sent_ns, r.intended_ns) for r in cohort if r.sent_ns is not None]
    given = sum(c.tokens for s in by_key.values() for c in s.chunks if window[0] <= c.before_ns < window[1])
    seen = reads = 0
    for r in requests:
        for offset_us, tokens in zip(r.arrival_offsets_us, r.arrival_tokens, strict=True):
            if r.sent_ns is not None and window[0] <= r.sent_ns + offset_us * 1000 < window[1]:
                seen, reads = seen + tokens, reads + 1
    server_gap_s = statistics.fmean(gap for _, gap in gaps) if gaps else None
    return Checked(
        load=load,
        n=len(pairs),
        errors=sum(r.error_kind is not None for r in cohort),
        tokens_per_s=given / window_s,
        reported_tokens_per_s=seen / window_s,
        ideal_tokens_per_s=ideal_tokens_per_s,
        kept=given / window_s / ideal_tokens_per_s,
        ttft_error_p50_s=quantile(firsts, 0.5),
        ttft_error_p99_s=quantile(firsts, 0.99),
        itl_error_p50_s=quantile([abs(a - b) for a, b in gaps], 0.5),
        itl_error_p99_s=quantile([abs(a - b) for a, b in gaps], 0.99),
        itl_error_share=statistics.fmean(gap for gap, _ in gaps) / server_gap_s - 1 if server_gap_s else None,
        server_ttft_p50_s=quantile(server_ttfts, 0.5),
        server_ttft_p99_s=quantile(server_ttfts, 0.99),
        server_itl_s=server_gap_s,
        request_delay_p50_s=quantile(delays, 0.5),
        request_delay_p99_s=quantile(delays, 0.99),
        send_lag_p50_s=quantile(lags, 0.5),
        send_lag_p99_s=quantile(lags, 0.99),
        read_delay_p50_s=read_delays_s[0],
        read_delay_p99_s=read_delays_s[1],
        client_cpu_us_per_token=result.client_cpu_s / seen * 1e6 if seen else None,
        tokens_per_read=seen / reads if reads else None,
        wrong_counts=sum(r.output_tokens != s.tokens for r, s in pairs),
    )


def quantile(values: Sequence[float], p: float) -> float | None:
    """Order statistic, no interpolation; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(p * len(ordered)) - 1)] if ordered else None


def _s(later_ns: int | None, earlier_ns: int | None) -> float:
    assert later_ns is not None and earlier_ns is not None
    return (later_ns - earlier_ns) / NS_PER_S


def _mean_gap_s(sent: record.SentRequest) -> float:
    """Per token, as the client's tpot counts it: tokens after the first chunk."""
    return _s(sent.chunks[-1].before_ns, sent.chunks[0].before_ns) / sum(c.tokens for c in sent.chunks[1:])


def _enough(plan: LoadPlan, pace: Pace) -> int:
    """Bodies for the whole run: each is sent once, or it could not be paired."""
    if plan.kind == "rate":
        return len(plan.offsets_ns)
    rounds = (plan.warmup_s + plan.window_max_s) / pace.request_s
    return int(plan.load * (rounds + 4)) + 1


def _quiet(line: str) -> None:
    pass

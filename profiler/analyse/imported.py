"""Requests that another tool measured, by our definitions: the same columns as of our own runs, over the tool's whole run.

The window is [first send, last arrival]: every token of the run falls in it, so `output_tps` is exact even where single tokens have no
stamps. Ramp and drain are in it, which a window of ours is without; `between_sends_tps` takes the drain away.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from profiler.analyse.latency import summarise
from profiler.analyse.percentiles import order_statistic
from profiler.analyse.qos import answered
from profiler.records import DriveResult, RequestRecord
from profiler.store.foreign.run import ForeignRun
from profiler.units import NS_PER_S

UNKNOWN = ("client_cpu_share", "started_at", "goodput", "tokens_per_read", "asked_output_tokens_mean", "got_output_tokens_mean")


def own_columns(run: ForeignRun) -> dict[str, Any]:
    """Columns of `runs` from the run's requests. What nobody can know of another's client is left out."""
    counted = [r for r in run.requests if not r.warmup]
    ends = [t for r in counted for t in (r.done_ns, r.last_token_ns, r.sent_ns) if t is not None]
    open_ns, close_ns = min(r.sent_ns or 0 for r in counted), max(ends) + 1
    drive = DriveResult(open_ns, open_ns, close_ns, close_ns, "", "the tool's run ended", 0.0, "user", None, None, 0.0, 0)
    columns = {name: value for name, value in summarise(run.requests, drive).items() if name not in UNKNOWN}
    window_s = (close_ns - open_ns) / NS_PER_S
    good = [r for r in counted if answered(r)]
    output = [r.output_tokens for r in good]
    prompts = [r.prompt_tokens for r in good]
    columns["output_tps"] = sum(n for n in output if n is not None) / window_s if None not in output else None
    known = columns["output_tps"] is not None and None not in prompts
    columns["total_tps"] = columns["output_tps"] + sum(n for n in prompts if n is not None) / window_s if known else None
    if all(r.ttft_sched_s is None for r in good):  # the file does not say when they were due
        unknown = ("send_lag_p50_s", "send_lag_p99_s", *(name for name in columns if name.startswith(("ttft_sched_", "e2e_sched_"))))
        columns |= dict.fromkeys(unknown)
    if all(r.ttft_s is None for r in good):  # not a stream: failures are not to blame
        columns |= {name: None for name in columns if name.startswith(("ttft_", "tpot_"))}
    return columns


def between_sends_tps(requests: Sequence[RequestRecord]) -> float | None:
    """Output tokens that arrived between the first and the last send after the warm-up / that time: a closed loop without its drain, tokens/s.

    Tokens of requests that began in the warm-up count where they arrive in it. Where a request's single tokens have no stamps they are taken
    to be even between its first and its last. None with fewer than two sends.
    """
    sends = [r.sent_ns for r in requests if r.sent_ns is not None and not r.warmup and answered(r)]
    if len(sends) < 2 or max(sends) == min(sends):
        return None
    open_ns, close_ns = min(sends), max(sends)
    total = 0.0
    for r in requests:
        if r.sent_ns is None or not answered(r):
            continue
        if r.output_tokens is None or r.first_token_ns is None:
            return None
        if r.arrival_offsets_us:
            stamps = zip(r.arrival_offsets_us, r.arrival_tokens, strict=True)
            total += sum(tokens for offset, tokens in stamps if open_ns <= r.sent_ns + offset * 1000 < close_ns)
            continue
        last_ns = r.last_token_ns or r.first_token_ns
        total += open_ns <= r.first_token_ns < close_ns
        if last_ns > r.first_token_ns:
            inside_ns = min(last_ns, close_ns) - max(r.first_token_ns, open_ns)
            total += max(0, inside_ns) / (last_ns - r.first_token_ns) * (r.output_tokens - 1)
    return total / ((close_ns - open_ns) / NS_PER_S)


def statistic_of(requests: Sequence[RequestRecord], metric: str, stat: str) -> float | None:
    """One figure of the answered requests by our definitions: ttft, ttft_sched, tpot, e2e, e2e_sched of a request, icl of all gaps pooled.
    Percentiles are order statistics. None where the requests do not say."""
    good = [r for r in requests if r.in_window and answered(r)]
    values: list[float]
    if metric == "icl":
        values = [(b - a) / 1e6 for r in good for a, b in pairwise(r.arrival_offsets_us)]
    elif metric in ("ttft", "ttft_sched", "tpot", "e2e", "e2e_sched"):
        values = [value for r in good if (value := getattr(r, f"{metric}_s")) is not None]
    else:
        return None
    if not values:
        return None
    return statistics.fmean(values) if stat == "mean" else order_statistic(values, int(stat[1:]) / 100)

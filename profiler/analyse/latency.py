"""From the requests of one run to its columns: percentiles with bounds, rates in the window, what was asked and what came.

Two populations, never mixed: latencies, attainment and goodput are of the cohort (intended send in the window); rates and throughput
count what arrives in the window, whoever asked for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from profiler.analyse.bounds import EXACT, Bounds
from profiler.analyse.percentiles import ALPHA, order_statistic
from profiler.analyse.qos import QosTarget, answered
from profiler.records import DriveResult, RequestRecord
from profiler.units import NS_PER_S

PERCENTILES = (50, 90, 95, 99)


def summarise(
    requests: Sequence[RequestRecord], drive: DriveResult, target: QosTarget | None = None, bounds: Bounds = EXACT
) -> dict[str, Any]:
    """The measured columns of `runs`. A percentile that falls among failed requests is +∞ and stored as None: n_errors says so."""
    cohort = [r for r in requests if r.in_window]
    good = [r for r in cohort if answered(r)]
    window_s = (drive.window_close_ns - drive.window_open_ns) / NS_PER_S
    return {
        "window_open_ns": drive.window_open_ns,
        "window_close_ns": drive.window_close_ns,
        "window_s": window_s,
        "n_cohort": len(cohort),
        "n_requests": len(good),
        "n_errors": len(cohort) - len(good),
        "n_tpot": len(cohort) - sum(1 for r in good if r.tpot_s is None),
        "bounds_method": bounds.method,
        **_rates(requests, cohort, drive, window_s, target),
        **_latency("ttft", cohort, bounds, lambda r: r.ttft_s),
        **_latency("ttft_sched", cohort, bounds, lambda r: r.ttft_sched_s),
        **_latency("tpot", cohort, bounds, lambda r: r.tpot_s, vacuous=True),
        **_latency("e2e_sched", cohort, bounds, lambda r: r.e2e_sched_s),
        **_send_lag(cohort),
        "client_cpu_share": drive.client_cpu_s / window_s if window_s > 0 else None,
        "tokens_per_read": _ratio(_total(r.arrival_tokens for r in cohort), sum(len(r.arrival_tokens) for r in cohort)),
        "asked_output_tokens_mean": _mean(r.asked_output_tokens for r in good),
        "got_output_tokens_mean": _mean(r.output_tokens for r in good),
        "isl_mean": _mean(r.prompt_tokens for r in good),
        "osl_mean": _mean(r.output_tokens for r in good),
        "started_at": drive.started_at,
        "stop_reason": drive.stop_reason,
    }


def _rates(
    requests: Sequence[RequestRecord], cohort: Sequence[RequestRecord], drive: DriveResult, window_s: float, target: QosTarget | None
) -> dict[str, float | None]:
    names = ("offered_rate", "request_rate", "output_tps", "total_tps", "goodput")
    if window_s <= 0:
        return dict.fromkeys(names)

    def inside(t_ns: int | None) -> bool:
        return t_ns is not None and drive.window_open_ns <= t_ns < drive.window_close_ns

    done = sum(1 for r in requests if answered(r) and inside(r.done_ns))
    output = output_tokens_in(requests, drive.window_open_ns, drive.window_close_ns)
    started = [r.prompt_tokens for r in requests if inside(r.first_token_ns)]
    known = [tokens for tokens in started if tokens is not None]
    kept = sum(1 for r in cohort if target.met_by(r)) if target else None
    return {
        "offered_rate": len(cohort) / window_s,
        "request_rate": done / window_s,
        "output_tps": output / window_s if output is not None else None,
        "total_tps": (output + sum(known)) / window_s if output is not None and len(known) == len(started) else None,
        "goodput": kept / window_s if kept is not None else None,
    }


def output_tokens_in(requests: Iterable[RequestRecord], open_ns: int, close_ns: int) -> int | None:
    """Output tokens that arrived in [open, close), of any request. None when an answered request's tokens were not counted."""
    total = 0
    for r in requests:
        if answered(r) and r.output_tokens is None:
            return None
        if r.sent_ns is not None:
            arrivals = zip(r.arrival_offsets_us, r.arrival_tokens, strict=True)
            total += sum(tokens for offset, tokens in arrivals if open_ns <= r.sent_ns + offset * 1000 < close_ns)
    return total


def _latency(
    name: str, cohort: Sequence[RequestRecord], bounds: Bounds, read: Callable[[RequestRecord], float | None], vacuous: bool = False
) -> dict[str, float | None]:
    """Percentile columns of one metric. `vacuous`: an answered request without a value (a single token has no TPOT) is left out."""
    values = [value for r in cohort if (value := latency_of(r, read, vacuous)) is not None]
    columns: dict[str, float | None] = {}
    for percentile in PERCENTILES:
        p = percentile / 100
        lo, hi = bounds.quantile(values, p, ALPHA / 2, ALPHA / 2)
        columns[f"{name}_p{percentile}_s"] = finite(order_statistic(values, p))
        columns[f"{name}_p{percentile}_s_lo"] = finite(lo)
        columns[f"{name}_p{percentile}_s_hi"] = finite(hi)
    return columns


def latency_of(request: RequestRecord, read: Callable[[RequestRecord], float | None], vacuous: bool) -> float | None:
    """The latency of a member of the cohort: +inf when it failed or was never answered, or when it got no token at all."""
    value = read(request) if answered(request) else math.inf
    return math.inf if value is None and not vacuous else value


def _send_lag(cohort: Sequence[RequestRecord]) -> dict[str, float | None]:
    lags = sorted((r.sent_ns - r.intended_ns) / NS_PER_S for r in cohort if r.sent_ns is not None)
    return {"send_lag_p50_s": order_statistic(lags, 0.5), "send_lag_p99_s": order_statistic(lags, 0.99)}


def finite(value: float | None) -> float | None:
    """None for +inf: neither JSON nor a reader's arithmetic should meet it."""
    return value if value is not None and math.isfinite(value) else None


def _mean(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _total(lists: Iterable[Sequence[int]]) -> int:
    return sum(sum(items) for items in lists)


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None

"""GuideLLM's benchmarks JSON. Seen: format 2 of 0.8.1, strategies concurrent and synchronous; formulas from its source and its figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from profiler.records import LoadKind, RequestRecord
from profiler.store.foreign.payload import Payload, at, number
from profiler.store.foreign.run import Figure as F
from profiler.store.foreign.run import ForeignRun, read_figures, request, spread, whole

NAME, SLUG = "GuideLLM", "guidellm"
KNOWN = ("2",)
_KEYS = {"mean": "mean", **{p: f"percentiles.{p}" for p in ("p50", "p90", "p95", "p99")}}
_M = "metrics."
FIGURES = (
    *spread(_M + "time_to_first_token_ms.successful", "ttft", "ttft", "ms", "guidellm-ttft", "first token - send", _KEYS),
    *spread(
        _M + "inter_token_latency_ms.successful", "tpot", "itl", "ms", "guidellm-itl",
        "its ITL is (last token - first token) / (output tokens - 1) of a request, our TPOT; each request weighs as its tokens", _KEYS,
    ),
    *spread(
        _M + "time_per_output_token_ms.successful", None, "tpot", "ms", "guidellm-tpot",
        "its TPOT is (last token - send) / output tokens: the first token's wait is in it, none of ours", _KEYS,
    ),
    F(_M + "request_latency.successful.mean", "e2e_mean_s", None, "s", "guidellm-request-latency", "end - send, mean"),
    *spread(_M + "request_latency.successful", None, "e2e", "s", "guidellm-request-latency", "end - send", {k: v for k, v in _KEYS.items() if k != "mean"}),
    F(_M + "requests_per_second.successful.mean", "request_rate", None, "requests/s", "guidellm-requests-per-second", "requests / length of the benchmark"),
    F(
        _M + "output_tokens_per_second.successful.mean", "output_tps", None, "tokens/s", "guidellm-output-tokens-per-second",
        "output tokens / length of the benchmark, ramp and drain included",
    ),
    F(_M + "tokens_per_second.successful.mean", "total_tps", None, "tokens/s", "guidellm-tokens-per-second", "input and output tokens / length"),
)  # fmt: skip


def recognises(payload: Payload) -> bool:
    return (
        payload.kind in ("json", "yaml") and isinstance(payload.whole, dict) and at(payload.whole, "metadata.guidellm_version") is not None
    )


def version(payload: Payload) -> tuple[str, str]:
    """Of the format, and of the tool."""
    return str(at(payload.whole, "metadata.version")), str(at(payload.whole, "metadata.guidellm_version"))


def runs(payload: Payload) -> list[ForeignRun]:
    return [_run(benchmark) for benchmark in payload.whole["benchmarks"]]


def _run(benchmark: dict[str, Any]) -> ForeignRun:
    kind, load, arrivals, scheduled = _load(benchmark["config"]["strategy"])
    asked = benchmark.get("requests") or {}
    open_s, close_s = (number(at(benchmark, f"scheduler_metrics.measure_{end}_time")) for end in ("start", "end"))
    requests = [_request(row, scheduled, (open_s, close_s), None) for row in asked.get("successful") or []]
    requests += [_request(row, scheduled, (open_s, close_s), "failed") for row in asked.get("errored") or []]
    cut = [_request(row, scheduled, (open_s, close_s), "cut") for row in asked.get("incomplete") or []]
    notes = []
    if cut:
        notes.append(f"{len(cut)} requests were cut off by the tool at its end and are not of the cohort, which favours the slow")
    if requests:
        notes.append("no stamp of single tokens in the file: TPOT is by the first and the last")
    began = number(benchmark.get("start_time"))
    return ForeignRun(
        model=at(benchmark, "config.backend.model"),
        load_kind=kind,
        load=load,
        figures=read_figures(benchmark, FIGURES),
        requests=tuple(sorted((r for r in (*requests, *cut) if r is not None), key=lambda r: r.sent_ns or 0)),
        facts={"window_s": number(benchmark.get("duration")), "n_requests": whole(at(benchmark, "metrics.request_totals.successful"))},
        clock="wall, from 1970",
        notes=tuple(notes),
        arrivals=arrivals,
        date=None if began is None else datetime.fromtimestamp(began, UTC).date().isoformat(),
    )


def _load(strategy: dict[str, Any]) -> tuple[LoadKind | None, float | None, str, bool]:
    """Kind, load, arrivals, and whether `targeted_start` is when the request was due. Of `throughput` it is when the run began."""
    kind = strategy.get("type_")
    if kind == "synchronous":
        return "concurrency", 1.0, "closed", True
    if kind == "concurrent":
        return "concurrency", number(strategy.get("streams")), "closed", True
    if kind in ("constant", "poisson"):
        return "rate", number(strategy.get("rate")), str(kind), True
    return "concurrency", number(strategy.get("max_concurrency")), "all at once", False


def _request(row: dict[str, Any], scheduled: bool, window: tuple[float | None, float | None], fate: str | None) -> RequestRecord | None:
    times = at(row, "info.timings") or {}
    sent = number(times.get("request_start"))
    if sent is None:
        return None  # never sent
    return request(
        str(row.get("request_id")),
        sent_s=sent,
        intended_s=number(times.get("targeted_start")) if scheduled else None,
        first_s=number(times.get("first_token_iteration")),
        last_s=number(times.get("last_token_iteration")),
        done_s=number(times.get("request_end")),
        prompt_tokens=whole(row.get("prompt_tokens")),
        output_tokens=whole(row.get("output_tokens")),
        error_kind=None if fate is None else "server_error" if fate == "failed" else "cancelled",
        error=None if fate is None else str(at(row, "info.error") or fate)[:200],
        warmup=window[0] is not None and sent < window[0],
        in_window=fate != "cut" and (window[1] is None or sent <= window[1]),
    )

"""inference-perf's reports: the summary of a run, its requests, and its config, which lie beside each other. Seen: 0.7.0. No report names a
version: its keys are looked at. Times are s of CLOCK_MONOTONIC (time.perf_counter on Linux)."""

from __future__ import annotations

import json
import re
from typing import Any

from profiler.records import LoadKind, RequestRecord
from profiler.store.foreign.payload import Payload, at, number
from profiler.store.foreign.run import Figure as F
from profiler.store.foreign.run import ForeignRun, read_figures, request, spread, whole

NAME, SLUG = "inference-perf", "inference-perf"
KNOWN = ("0.7",)
SUMMARY, RECORDS, CONFIG = "summary_lifecycle_metrics.json", "per_request_lifecycle_metrics.json", "config.yaml"
_KEYS = {"mean": "mean", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}
_TAIL = {stat: key for stat, key in _KEYS.items() if stat != "mean"}
_L = "successes.latency."
FIGURES = (
    *spread(_L + "time_to_first_token", "ttft", "ttft", "s", "inference-perf-ttft", "first token - send, interpolated", _KEYS),
    *spread(
        _L + "time_per_output_token", "tpot", "tpot", "s", "inference-perf-tpot",
        "(last token - first token) / (output tokens - 1) of a request, interpolated", _KEYS,
    ),
    *spread(_L + "inter_token_latency", None, "itl", "s", "inference-perf-itl", "gap between tokens, all requests pooled: our icl", _KEYS),
    *spread(
        _L + "normalized_time_per_output_token", None, "ntpot", "s", "inference-perf-ntpot",
        "(end - send) / output tokens: the first token's wait is in it, none of ours", _KEYS,
    ),
    F(_L + "request_latency.mean", "e2e_mean_s", None, "s", "inference-perf-request-latency", "end - send, mean"),
    *spread(_L + "request_latency", None, "e2e", "s", "inference-perf-request-latency", "end - send, interpolated", _TAIL),
    F("successes.throughput.requests_per_sec", "request_rate", None, "requests/s", "inference-perf-requests-per-sec", "requests / length of the run"),
    F(
        "successes.throughput.output_tokens_per_sec", "output_tps", None, "tokens/s", "inference-perf-output-tokens-per-sec",
        "output tokens / length of the run, ramp and drain included",
    ),
    F("successes.throughput.total_tokens_per_sec", "total_tps", None, "tokens/s", "inference-perf-total-tokens-per-sec", "input and output / length"),
)  # fmt: skip


def recognises(payload: Payload) -> bool:
    return _is_summary(payload) or _is_records(payload)


def _is_summary(payload: Payload) -> bool:
    whole_ = payload.whole
    return payload.kind == "json" and isinstance(whole_, dict) and {"load_summary", "successes", "failures"} <= set(whole_)


def _is_records(payload: Payload) -> bool:
    whole_ = payload.whole
    first = whole_[0] if payload.kind == "json" and isinstance(whole_, list) and whole_ else None
    return isinstance(first, dict) and {"start_time", "end_time", "info", "error"} <= set(first)


def siblings(payload: Payload) -> tuple[str, ...]:
    if payload.path.name.startswith("stage_"):
        return (CONFIG,)
    return (SUMMARY, CONFIG) if _is_records(payload) else (RECORDS, CONFIG)


def version(payload: Payload) -> tuple[str, str]:
    if _is_records(payload):
        times = at(payload.whole[0], "info.response_metrics")
        ok = payload.whole[0]["error"] is not None or (isinstance(times, dict) and "output_token_times" in times)
        return ("0.7" if ok else "without info.response_metrics.output_token_times"), "not stated"
    missing = [
        key for key in ("latency.time_to_first_token", "throughput.requests_per_sec") if at(payload.whole, f"successes.{key}") is None
    ]
    empty = at(payload.whole, "successes.count") == 0
    return ("0.7" if empty or not missing else f"without successes.{missing[0]}"), "not stated"


def runs(payload: Payload, *beside: Payload) -> list[ForeignRun]:
    every = (payload, *beside)
    summary: dict[str, Any] = next((p.whole for p in every if _is_summary(p)), {})
    rows: list[Any] = next((p.whole for p in every if _is_records(p)), [])
    config = next((p.whole for p in every if p.kind == "yaml" and isinstance(p.whole, dict)), {})
    found = re.match(r"stage_(\d+)", payload.path.name)
    kind, load, arrivals, notes = load_of(config, int(found[1]) if found else None)
    counted = (at(summary, "successes.count") or 0) + (at(summary, "failures.count") or 0)
    if rows and summary and counted != len(rows):
        raise ValueError(f"{SUMMARY} is of {counted} requests, {RECORDS} of {len(rows)}: are they of one run?")
    requests = tuple(sorted((_request(n, row) for n, row in enumerate(rows)), key=lambda r: r.sent_ns or 0))
    return [
        ForeignRun(
            model=at(config, "server.model_name") or _asked_model(rows),
            load_kind=kind,
            load=load,
            figures=read_figures(summary, FIGURES),
            requests=requests,
            facts={
                "isl_mean": number(at(summary, "successes.prompt_tokens.mean")),
                "osl_mean": number(at(summary, "successes.output_tokens.mean")),
                "n_requests": whole(at(summary, "successes.count")),
                "window_s": number(summary.get("benchmark_time_seconds")),
            },
            clock="CLOCK_MONOTONIC of the tool's machine" if requests else None,
            notes=tuple(notes),
            arrivals=arrivals,
        )
    ]


def load_of(config: dict[str, Any], stage: int | None) -> tuple[LoadKind | None, float | None, str, list[str]]:
    """Kind, load, arrivals, notes, of one stage or of all if there is but one."""
    stages, kind = at(config, "load.stages") or [], at(config, "load.type")
    if stage is not None:
        stages = stages[stage : stage + 1]
    if not stages or kind is None:
        return None, None, "not stated", []
    if len(stages) > 1:
        raise ValueError(f"{len(stages)} stages in one summary: import each stage_N_lifecycle_metrics.json instead")
    if kind == "concurrent":
        return "concurrency", number(stages[0].get("concurrency_level")), "closed", []
    return (
        "rate",
        number(stages[0].get("rate")),
        str(kind),
        ["the file does not say when a request was due: what the user waited is not known"],
    )


def _asked_model(rows: list[Any]) -> str | None:
    try:
        found = json.loads(rows[0]["request"])["model"]
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return str(found)


def _request(index: int, row: dict[str, Any]) -> RequestRecord:
    metrics = at(row, "info.response_metrics") or {}
    sent, done = row["start_time"], number(row.get("end_time"))
    times = [t for t in metrics.get("output_token_times") or [] if t is not None]
    served = whole(at(metrics, "server_usage.completion_tokens"))
    tokens = served if served is not None else whole(metrics.get("output_tokens"))
    prompt = whole(at(metrics, "server_usage.prompt_tokens"))
    error = row.get("error")
    return request(
        f"r{index}",
        sent_s=sent,
        first_s=times[0] if times else None,
        last_s=times[-1] if times else None,
        done_s=done,
        prompt_tokens=prompt if prompt is not None else whole(at(row, "info.request_metrics.text.input_tokens")),
        output_tokens=tokens,
        arrivals_s=[t - sent for t in times] if len(times) == tokens else (),
        error_kind="server_error" if error is not None else None,
        error=str(at(error, "error_msg") or error)[:200] if error is not None else None,
        token_count_source="usage" if served is not None else "tokenizer",
    )

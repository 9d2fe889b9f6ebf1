"""AIPerf's profile export: the JSON of its figures, and the JSON lines of its requests, which lie beside each other. Seen: schema 1.4 of 0.13.0."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from profiler.records import LoadKind, RequestRecord
from profiler.store.foreign.payload import Payload, at, number
from profiler.store.foreign.run import STATISTICS, ForeignRun, read_figures, request, spread, whole
from profiler.store.foreign.run import Figure as F

NAME, SLUG = "AIPerf", "aiperf"
KNOWN = ("1",)
SUMMARY, RECORDS = "profile_export_aiperf.json", "profile_export.jsonl"
_KEYS = {stat: "avg" if stat == "mean" else stat for stat in STATISTICS}
_TAIL = {stat: key for stat, key in _KEYS.items() if stat != "mean"}
FIGURES = (
    *spread("time_to_first_token", "ttft", "ttft", "ms", "aiperf-ttft", "first response with content - send, interpolated", _KEYS),
    *spread(
        "inter_token_latency", "tpot", "itl", "ms", "aiperf-itl",
        "its ITL is (last - first response) / (output tokens - 1) of a request, our TPOT; tokens by its tokenizer", _KEYS,
    ),
    *spread("inter_chunk_latency", None, "icl", "ms", "aiperf-icl", "gap between responses, all requests pooled: our icl", _KEYS),
    F("request_latency.avg", "e2e_mean_s", None, "ms", "aiperf-request-latency", "last response - send, mean"),
    *spread("request_latency", None, "e2e", "ms", "aiperf-request-latency", "last response - send, interpolated", _TAIL),
    F("request_throughput.avg", "request_rate", None, "requests/s", "aiperf-request-throughput", "requests / length of the benchmark"),
    F(
        "output_token_throughput.avg", "output_tps", None, "tokens/s", "aiperf-output-token-throughput",
        "output tokens / length of the benchmark, ramp and drain included",
    ),
    F("total_token_throughput.avg", "total_tps", None, "tokens/s", "aiperf-total-token-throughput", "input and output tokens / length"),
)  # fmt: skip


def recognises(payload: Payload) -> bool:
    if payload.kind == "jsonl":
        first = payload.whole[0]
        return isinstance(first, dict) and at(first, "metadata.request_start_ns") is not None and isinstance(first.get("metrics"), dict)
    return payload.kind == "json" and isinstance(payload.whole, dict) and "aiperf_version" in payload.whole


def siblings(payload: Payload) -> tuple[str, ...]:
    return (RECORDS,) if payload.kind == "json" else (SUMMARY,)


def version(payload: Payload) -> tuple[str, str]:
    if payload.kind == "jsonl":
        return "1", "not stated"  # the lines carry none
    return str(payload.whole.get("schema_version")).partition(".")[0], str(payload.whole["aiperf_version"])


def runs(payload: Payload, *beside: Payload) -> list[ForeignRun]:
    by_kind = {one.kind: one for one in (payload, *beside)}
    summary = by_kind["json"].whole if "json" in by_kind else {}
    rows = by_kind["jsonl"].whole if "jsonl" in by_kind else []
    counted, lines = (
        at(summary, "request_count.avg"),
        sum(1 for row in rows if at(row, "metadata.benchmark_phase") == "profiling" and not row.get("error")),
    )
    if rows and counted is not None and counted != lines:
        raise ValueError(f"{SUMMARY} is of {counted:g} answered requests, {RECORDS} of {lines}: are they of one run?")
    kind, load, arrivals = _load(summary)
    requests = tuple(sorted((r for n, row in enumerate(rows) if (r := _request(n, row)) is not None), key=lambda r: r.sent_ns or 0))
    without = sum(1 for r in requests if r.ttft_s is not None and not r.arrival_offsets_us)
    notes = [f"{without} requests came in fewer or more chunks than tokens: their single tokens have no stamps"] if without else []
    return [
        ForeignRun(
            model=at(summary, "input_config.models.items.0.name"),
            load_kind=kind,
            load=load,
            figures=read_figures(summary, FIGURES),
            requests=requests,
            facts={
                "isl_mean": number(at(summary, "input_sequence_length.avg")),
                "osl_mean": number(at(summary, "output_sequence_length.avg")),
                "n_requests": whole(at(summary, "request_count.avg")),
                "window_s": number(at(summary, "benchmark_duration.avg")),
            },
            clock="wall, from 1970" if requests else None,
            notes=tuple(notes),
            arrivals=arrivals,
            date=str(summary["start_time"])[:10] if "start_time" in summary else None,
        )
    ]


def _load(summary: dict[str, Any]) -> tuple[LoadKind | None, float | None, str]:
    phases = [p for p in at(summary, "input_config.phases") or [] if p.get("kind", p.get("name")) == "profiling"]
    if not phases:
        return None, None, "not stated"
    rate = number(phases[0].get("rate") or phases[0].get("request_rate"))
    if rate is not None:
        return "rate", rate, str(phases[0].get("type", "not stated"))
    return "concurrency", number(phases[0].get("concurrency")), "closed"


def _request(number_: int, row: dict[str, Any]) -> RequestRecord | None:
    about, metrics = row["metadata"], row.get("metrics") or {}

    def seconds(name: str) -> float | None:
        value = number(at(metrics, f"{name}.value"))
        return None if value is None else value / (1e3 if at(metrics, f"{name}.unit") == "ms" else 1.0)

    start = number(about.get("request_start_ns"))
    if start is None:
        return None
    sent = start / 1e9
    ttft, end, issued = seconds("time_to_first_token"), number(about.get("request_end_ns")), number(about.get("credit_issued_ns"))
    raw = at(metrics, "inter_chunk_latency.value") or []
    gaps = [] if None in raw else [value / 1e3 for value in raw]
    tokens = whole(at(metrics, "usage_completion_tokens.value"))
    source = "usage" if tokens is not None else "tokenizer"
    tokens = tokens if tokens is not None else whole(at(metrics, "output_sequence_length.value"))
    arrivals = list(accumulate(gaps, initial=ttft)) if ttft is not None else []
    prompt = whole(at(metrics, "usage_prompt_tokens.value"))
    failed = row.get("error") or (about.get("was_cancelled") and "cancelled")
    return request(
        str(about.get("x_request_id") or number_),
        sent_s=sent,
        intended_s=None if issued is None else issued / 1e9,
        first_s=None if ttft is None else sent + ttft,
        last_s=sent + arrivals[-1] if arrivals and None not in raw else None,
        done_s=None if end is None else end / 1e9,
        prompt_tokens=prompt if prompt is not None else whole(at(metrics, "input_sequence_length.value")),
        output_tokens=tokens,
        arrivals_s=arrivals if len(arrivals) == tokens else (),
        error_kind=None if not failed else "cancelled" if about.get("was_cancelled") else "server_error",
        error=str(failed)[:200] if failed else None,
        warmup=about.get("benchmark_phase") != "profiling",
        token_count_source=source,
    )

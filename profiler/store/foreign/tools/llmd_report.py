"""The llm-d Benchmark Report (YAML or JSON), as inference-perf 0.7.0 writes it for each stage. Seen: version 0.2.1. Figures only, no requests."""

from __future__ import annotations

import re
from typing import Any

from profiler.records import LoadKind
from profiler.store.foreign.payload import Payload, at, number
from profiler.store.foreign.run import STATISTICS, ForeignRun, read_figures, spread, whole
from profiler.store.foreign.run import Figure as F
from profiler.store.foreign.tools import inference_perf

NAME, SLUG = "llm-d Benchmark Report", "llm-d-report"
KNOWN = ("0.2", "0.2.1")
_KEYS = {stat: stat for stat in STATISTICS}
_TAIL = {stat: key for stat, key in _KEYS.items() if stat != "mean"}
_A = "results.request_performance.aggregate."
_L = _A + "latency."
FIGURES = (
    *spread(_L + "time_to_first_token", "ttft", "ttft", "s", "llm-d-report-ttft", "time to first token, as its tool measured it", _KEYS),
    *spread(_L + "time_per_output_token", "tpot", "tpot", "s", "llm-d-report-tpot", "time per output token after the first, of a request", _KEYS),
    *spread(_L + "inter_token_latency", None, "itl", "s", "llm-d-report-itl", "gap between tokens: our icl", _KEYS),
    *spread(
        _L + "normalized_time_per_output_token", None, "ntpot", "s", "llm-d-report-ntpot",
        "request latency / output tokens: the first token's wait is in it, none of ours", _KEYS,
    ),
    F(_L + "request_latency.mean", "e2e_mean_s", None, "s", "llm-d-report-request-latency", "end - send, mean"),
    *spread(_L + "request_latency", None, "e2e", "s", "llm-d-report-request-latency", "end - send", _TAIL),
    F(_A + "throughput.request_rate.mean", "request_rate", None, "requests/s", "llm-d-report-request-rate", "requests / length of the run"),
    F(_A + "throughput.output_token_rate.mean", "output_tps", None, "tokens/s", "llm-d-report-output-token-rate", "output tokens / length of the run"),
    F(_A + "throughput.total_token_rate.mean", "total_tps", None, "tokens/s", "llm-d-report-total-token-rate", "input and output / length"),
)  # fmt: skip
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "s/token": 1.0, "ms/token": 1e-3, "us/token": 1e-6}


def recognises(payload: Payload) -> bool:
    whole_ = payload.whole
    return (
        payload.kind in ("yaml", "json")
        and isinstance(whole_, dict)
        and "version" in whole_
        and (at(whole_, "results.request_performance") is not None or ("scenario" in whole_ and "metrics" in whole_))
    )


def siblings(payload: Payload) -> tuple[str, ...]:
    """inference-perf writes a partial report: what was asked of whom stands in its config."""
    return (inference_perf.CONFIG,)


def version(payload: Payload) -> tuple[str, str]:
    return str(payload.whole["version"]), str(at(payload.whole, "scenario.load.standardized.tool") or "not stated")


def runs(payload: Payload, *beside: Payload) -> list[ForeignRun]:
    report = payload.whole
    config = next((p.whole for p in beside if isinstance(p.whole, dict)), {})
    kind, load, arrivals, notes = _load(report, config, payload)
    figures = tuple(_in_seconds(report, figure) for figure in read_figures(report, FIGURES))
    return [
        ForeignRun(
            model=at(report, "scenario.stack.0.standardized.model.name") or at(config, "server.model_name"),
            load_kind=kind,
            load=load,
            figures=figures,
            facts={
                "isl_mean": number(at(report, _A + "requests.input_length.mean")),
                "osl_mean": number(at(report, _A + "requests.output_length.mean")),
                "n_requests": whole(at(report, _A + "requests.total")),
                "n_errors": whole(at(report, _A + "requests.failures")),
            },
            arrivals=arrivals,
            date=str(began)[:10] if (began := at(report, "run.time.start")) else None,
            notes=tuple(notes),
        )
    ]


def _load(report: dict[str, Any], config: dict[str, Any], payload: Payload) -> tuple[LoadKind | None, float | None, str, list[str]]:
    users, rate = (number(at(report, f"scenario.load.standardized.{key}")) for key in ("concurrency", "rate_qps"))
    if rate is not None or users is not None:
        return ("rate", rate, "not stated", []) if rate is not None else ("concurrency", users, "closed", [])
    found = re.search(r"stage_(\d+)", payload.path.name)
    return inference_perf.load_of(config, int(found[1]) if found else None)


def _in_seconds(report: dict[str, Any], figure: dict[str, Any]) -> dict[str, Any]:
    """Each block of the report names its own unit; a time in ms is read as one."""
    if figure["unit"] != "s":
        return figure
    unit = str(at(report, figure["column"].rpartition(".")[0] + ".units") or "s")
    return (
        {**figure, "value": figure["value"] * _UNITS[unit]}
        if unit in _UNITS
        else {**figure, "is": None, "foreign": figure["column"], "unit": unit}
    )

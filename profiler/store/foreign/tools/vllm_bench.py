"""The result JSON of `vllm bench serve`, plain or with --save-detailed. Seen: 0.32.0. The file names no version: its keys are looked at.

In a chat it takes the first chunk with `choices` for the first token, the role-only one too, and its ITLs count from there (vllm/benchmarks/lib/
endpoint_request_func.py). Its TTFT then is the role's, not a token's; the list of gaps shows it, as it is longer than the tokens make.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from itertools import accumulate
from typing import Any

from profiler.records import LoadKind, RequestRecord
from profiler.store.foreign.payload import Payload, number
from profiler.store.foreign.run import Figure as F
from profiler.store.foreign.run import ForeignRun, read_figures, request, whole

NAME, SLUG = "vllm bench serve", "vllm-bench"
KNOWN = ("plain", "detailed")
NEEDED = ("model_id", "duration", "completed", "request_throughput", "output_throughput", "mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms")
DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "errors", "start_times", "latencies")
LATE_SHARE = 0.1  # of the usual gap: a last chunk this close behind carries a reason to stop, no token
_STATS = {"mean": "mean", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}


def _spread(metric: str, to: str | None, formula: str, definition: str) -> tuple[F, ...]:
    return tuple(
        F(
            f"{key}_{metric}_ms",
            f"{to}_{stat}_s" if to else None,
            None if to else f"{metric}_{stat}",
            "ms",
            formula,
            f"{definition}, {stat}",
        )
        for stat, key in _STATS.items()
    )


FIGURES = (
    *_spread("ttft", "ttft", "vllm-bench-ttft", "first chunk with choices (a role-only one too) - send; percentiles interpolated"),
    *_spread("tpot", "tpot", "vllm-bench-tpot", "(last chunk - first chunk) / (output tokens - 1) of a request; percentiles interpolated"),
    *_spread("itl", None, "vllm-bench-itl", "gap between chunks, all requests pooled: our icl"),
    *tuple(f for f in _spread("e2el", None, "vllm-bench-e2el", "last chunk - send")),
    F(
        "request_throughput",
        "request_rate",
        None,
        "requests/s",
        "vllm-bench-request-throughput",
        "requests / length of the run, drain included",
    ),
    F(
        "output_throughput",
        "output_tps",
        None,
        "tokens/s",
        "vllm-bench-output-throughput",
        "output tokens / length of the run, drain included",
    ),
    F(
        "total_token_throughput",
        "total_tps",
        None,
        "tokens/s",
        "vllm-bench-total-throughput",
        "input and output tokens / length of the run",
    ),
)


def recognises(payload: Payload) -> bool:
    return (
        payload.kind == "json"
        and isinstance(payload.whole, dict)
        and {"model_id", "request_throughput", "mean_ttft_ms"} <= set(payload.whole)
    )


def version(payload: Payload) -> tuple[str, str]:
    missing = [key for key in NEEDED if key not in payload.whole]
    detailed = [key for key in DETAILS if key in payload.whole]
    if missing:
        return f"without {', '.join(missing)}", "not stated"
    if detailed and len(detailed) < len(DETAILS):
        return f"detailed, without {', '.join(key for key in DETAILS if key not in detailed)}", "not stated"
    return "detailed" if detailed else "plain", "not stated"


def runs(payload: Payload) -> list[ForeignRun]:
    whole_ = payload.whole
    kind, load, arrivals = _load(whole_)
    requests: tuple[RequestRecord, ...] = ()
    notes: list[str] = []
    if "ttfts" in whole_:
        requests, notes = _requests(whole_, scheduled=kind == "rate")
    if arrivals == "all at once":
        notes.append("all requests were sent at once: its load is how many there were")
    done = whole(whole_["completed"])
    return [
        ForeignRun(
            model=str(whole_["model_id"]),
            load_kind=kind,
            load=load,
            figures=read_figures(whole_, FIGURES),
            requests=requests,
            facts={
                "n_requests": done,
                "window_s": number(whole_["duration"]),
                "isl_mean": whole_["total_input_tokens"] / done if done and "total_input_tokens" in whole_ else None,
                "osl_mean": whole_["total_output_tokens"] / done if done and "total_output_tokens" in whole_ else None,
            },
            clock="CLOCK_MONOTONIC of the tool's machine" if requests else None,
            notes=tuple(notes),
            arrivals=arrivals,
            date=re.sub(r"(\d{4})(\d\d)(\d\d).*", r"\1-\2-\3", str(whole_["date"])) if "date" in whole_ else None,
        )
    ]


def _load(result: dict[str, Any]) -> tuple[LoadKind, float | None, str]:
    rate = number(result.get("request_rate"))  # "inf" is a text
    if rate is not None:
        burstiness = number(result.get("burstiness"))
        return "rate", rate, "poisson" if burstiness == 1 else f"gamma burstiness={burstiness}"
    users = number(result.get("max_concurrency"))
    return ("concurrency", users, "closed") if users is not None else ("concurrency", number(result.get("num_prompts")), "all at once")


def _requests(result: dict[str, Any], scheduled: bool) -> tuple[tuple[RequestRecord, ...], list[str]]:
    made, shapes = [], Counter[str]()
    chat = "chat" in str(result.get("endpoint_type") or result.get("backend"))
    queued = result.get("queue_times") or [None] * len(result["ttfts"])
    columns = [result[name] for name in ("start_times", "ttfts", "itls", "latencies", "input_lens", "output_lens", "errors")]
    for index, (start, ttft, gaps, latency, prompt, tokens, error) in enumerate(zip(*columns, strict=True)):
        wait = number(queued[index]) if scheduled else None
        failed = bool(error) or number(ttft) is None
        gaps = gaps or []
        if None in gaps:  # a gap that is no number: only the ends are known
            gaps = [latency - ttft] if latency is not None and not failed else []
        arrivals = [] if failed else list(accumulate(gaps, initial=ttft))
        shape, arrivals = _tokens_of(arrivals, gaps, tokens, chat)
        if not failed:
            shapes[shape] += 1
        made.append(
            request(
                f"r{index}",
                sent_s=start,
                intended_s=None if wait is None else start - wait,
                first_s=start + arrivals[0] if arrivals else None,
                last_s=start + arrivals[-1] if arrivals else None,
                done_s=None if failed or latency is None else start + latency,
                prompt_tokens=whole(prompt),
                output_tokens=whole(tokens),
                arrivals_s=arrivals if len(arrivals) == tokens else (),
                error_kind="server_error" if failed else None,
                error=(str(error).strip().splitlines() or ["failed"])[-1][:200] if failed else None,
                token_count_source="usage",
            )
        )
    notes = [_SHAPES[shape].format(n) for shape, n in shapes.items() if shape in _SHAPES]
    return tuple(sorted(made, key=lambda r: r.sent_ns or 0)), notes


_SHAPES = {
    "role": "{} answers have a role-only chunk before the first token: the tool's TTFT and TPOT count it as a token, ours begin behind it",
    "stop": "{} answers have a chunk without a token at the end: ours end before it",
    "chunks": "{} answers came in fewer or more chunks than tokens: their single tokens have no stamps, and a first chunk may be the role's",
}


def _tokens_of(arrivals: list[float], gaps: list[float], tokens: int, chat: bool) -> tuple[str, list[float]]:
    """The arrivals of tokens among those of chunks. One chunk too many in a chat is the role's, or the one that says why it ended."""
    extra = len(arrivals) - tokens
    if not arrivals or extra == 0:
        return "", arrivals
    if extra == 1 and chat and len(gaps) > 1:
        if gaps[-1] < LATE_SHARE * statistics.median(gaps):
            return "stop", arrivals[:-1]
        return "role", arrivals[1:]
    if extra == 2 and chat:
        return "role", arrivals[1:-1]
    return "chunks", arrivals

"""MLPerf LoadGen's `mlperf_log_summary.txt`. Seen: LoadGen 6.0 with token latencies, scenarios Server and Offline. Text, times in ns.

LoadGen counts samples: its "Samples per second" are requests, not tokens. The model is not in it: the SUT's name is all it says.
"""

from __future__ import annotations

import re

from profiler.records import LoadKind
from profiler.store.foreign.payload import Payload, number
from profiler.store.foreign.run import Figure as F
from profiler.store.foreign.run import ForeignRun, read_figures

NAME, SLUG = "MLPerf LoadGen", "mlperf"
KNOWN = ("MLPerf Results Summary",)
_STATS = {"mean": "mean", "p50": "50_00 percentile", "p90": "90_00 percentile", "p95": "95_00 percentile", "p99": "99_00 percentile"}


def _spread(title: str, to: str | None, foreign: str, formula: str, definition: str) -> tuple[F, ...]:
    return tuple(
        F(
            f"{key} {title} (ns)",
            f"{to}_{stat}_s" if to else None,
            None if to else f"{foreign}_{stat}",
            "ns",
            formula,
            f"{definition}, {stat}",
        )
        for stat, key in _STATS.items()
    )


FIGURES = (
    *_spread(
        "first token latency", None, "ttft_sched", "mlperf-first-token-latency", "first token - scheduled time of a sample: our ttft_sched"
    ),
    *_spread("time per output token", "tpot", "tpot", "mlperf-tpot", "(last - first token) / (output tokens - 1) of a sample"),
    *_spread("latency", None, "e2e_sched", "mlperf-latency", "last token - scheduled time of a sample: our e2e_sched"),
    F(
        "completed samples per second",
        "request_rate",
        None,
        "samples/s",
        "mlperf-completed-samples-per-second",
        "samples / length of the run",
    ),
    F("samples per second", "request_rate", None, "samples/s", "mlperf-samples-per-second", "samples / length of the run"),
    F(
        "completed tokens per second",
        "output_tps",
        None,
        "tokens/s",
        "mlperf-completed-tokens-per-second",
        "output tokens / length of the run",
    ),
    F("tokens per second", "output_tps", None, "tokens/s", "mlperf-tokens-per-second", "output tokens / length of the run"),
)


def recognises(payload: Payload) -> bool:
    return payload.kind == "text" and "MLPerf Results Summary" in payload.whole[:2000]


def version(payload: Payload) -> tuple[str, str]:
    found = entries(payload.whole)
    if "scenario" not in found or not found.get("result is"):
        return "without Scenario and Result is: is it cut off?", "not stated"
    if "Test Parameters Used" not in payload.whole:
        return "without Test Parameters Used: is it cut off?", "not stated"
    return KNOWN[0], "not stated"


def entries(text: str) -> dict[str, str]:
    """`Name : value` lines by the name in lower case, the first of each. It spells one figure in two ways, told by its percentiles."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            key = re.sub(r"\s+", " ", name.strip().lower()).replace("time to output token", "time per output token")
            found.setdefault(key, value.strip())
    return found


def runs(payload: Payload) -> list[ForeignRun]:
    found = entries(payload.whole)
    tree = {name.replace(".", "_"): value for name, text in found.items() if (value := _number(text)) is not None}
    kind, load = _load(found["scenario"], tree)
    specs, taken = [], set[str]()
    for spec in FIGURES:
        if spec.place in tree and (spec.to is None or spec.to not in taken):
            specs.append(spec)
            taken |= {spec.to} if spec.to else set()
    notes = [] if found["result is"] == "VALID" else [f"LoadGen says of its own run: {found['result is']}"]
    if not any("output token" in spec.place for spec in specs):
        notes.append("LoadGen ran without token latencies: no TTFT and no TPOT in the file")
    return [
        ForeignRun(
            model=None,
            load_kind=kind,
            load=load,
            figures=read_figures(tree, specs),
            notes=tuple(notes),
            arrivals={"Server": "poisson", "Offline": "all at once"}.get(found["scenario"], "closed"),
        )
    ]


def _load(scenario: str, tree: dict[str, float]) -> tuple[LoadKind | None, float | None]:
    if scenario == "Server":
        return "rate", tree.get("target_qps")
    if scenario == "SingleStream":
        return "concurrency", 1.0
    if scenario == "MultiStream":
        return "concurrency", tree.get("samples_per_query")
    return "concurrency", tree.get("samples_per_query")


def _number(text: str) -> float | None:
    try:
        return number(float(text))
    except ValueError:
        return None

"""Other tools beside this program: what each says of one model at one load, and what our definitions make of the same requests.

Two tables. *Same quantity*: each run's requests by our definitions, so that only client and server differ. *As printed*: each tool's own
figure with its formula beside ours from the same requests, so that only the formula differs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from profiler.analyse.imported import between_sends_tps, statistic_of
from profiler.records import RequestRecord
from profiler.store.foreign.units import factor
from profiler.store.store import Store

OURS = "this project"
PRINTED = ("ttft", "ttft_sched", "tpot", "itl", "icl", "ntpot", "e2e", "e2e_sched", "request_rate", "output_tps")
# A foreign name says what its tool calls it; by its formula it is one of ours, or none.
IS_OURS = {
    "aiperf-icl": "icl",
    "vllm-bench-itl": "icl",
    "inference-perf-itl": "icl",
    "llm-d-report-itl": "icl",
    "aiperf-request-latency": "e2e",
    "guidellm-request-latency": "e2e",
    "vllm-bench-e2el": "e2e",
    "inference-perf-request-latency": "e2e",
    "llm-d-report-request-latency": "e2e",
    "mlperf-first-token-latency": "ttft_sched",
    "mlperf-latency": "e2e_sched",
}


@dataclass(frozen=True)
class SameQuantity:
    """One run by our definitions, s and tokens/s. None: its file does not say."""

    tool: str
    run_id: str
    n: int
    ttft_p50_s: float | None
    ttft_p50_s_lo: float | None
    ttft_p50_s_hi: float | None
    ttft_p95_s: float | None
    tpot_p50_s: float | None
    tpot_mean_s: float | None
    e2e_p50_s: float | None
    output_tps: float | None  # of the run's window: of an import its whole run
    between_sends_tps: float | None  # without the drain, for all alike


@dataclass(frozen=True)
class Printed:
    """One figure of a tool in our units, and ours from the same requests. `is_` None: none of ours."""

    tool: str
    name: str
    formula: str
    definition: str
    value: float
    is_: str | None
    ours: float | None


@dataclass(frozen=True)
class Group:
    model: str
    load_kind: str
    load: float
    same: tuple[SameQuantity, ...]
    printed: tuple[Printed, ...]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def beside(store: Store) -> list[Group]:
    """A group for each model, kind of load and load that a tool's file was imported of; our own runs of the same are in it."""
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = defaultdict(list)
    for row in store.rows():
        if row["status"] == "done" and row["model"] is not None and row["load"] is not None:
            groups[row["model"], row["load_kind"], row["load"]].append(row)
    found = []
    for (model, kind, load), rows in sorted(groups.items()):
        documents = {row["run_id"]: store.run(row["run_id"]) for row in rows if row["provenance_class"] == "imported"}
        tools = {run_id: d for run_id, d in documents.items() if d.get("imported", {}).get("files")}
        if tools:
            chosen = [row for row in rows if row["run_id"] in tools or row["provenance_class"] == "measured"]
            found.append(_group(store, model, kind, load, chosen, tools))
    return found


def _group(store: Store, model: str, kind: str, load: float, rows: Sequence[Mapping[str, Any]], tools: Mapping[str, Any]) -> Group:
    frame = store.requests([row["run_id"] for row in rows])
    requests = {str(run_id): _records(part) for run_id, part in frame.groupby("run_id", sort=False)} if len(frame) else {}
    same, printed = [], []
    for row in sorted(rows, key=lambda r: (r["provenance_class"] != "measured", r["run_id"])):
        own = requests.get(row["run_id"], [])
        tool = row["import_tool"] or OURS
        if own:
            same.append(_same(tool, row, own))
        for figure in tools[row["run_id"]]["imported"]["figures"] if row["run_id"] in tools else ():
            if (one := _printed(tool, figure, row, own)) is not None:
                printed.append(one)
    return Group(model, kind, load, tuple(same), tuple(printed))


def _same(tool: str, row: Mapping[str, Any], own: Sequence[RequestRecord]) -> SameQuantity:
    names = ("ttft_p50_s", "ttft_p50_s_lo", "ttft_p50_s_hi", "ttft_p95_s", "tpot_p50_s", "output_tps")
    return SameQuantity(
        tool=tool,
        run_id=row["run_id"],
        n=sum(1 for r in own if r.in_window),
        tpot_mean_s=statistic_of(own, "tpot", "mean"),
        e2e_p50_s=statistic_of(own, "e2e", "p50"),
        between_sends_tps=between_sends_tps(own) if row["load_kind"] == "concurrency" else None,
        **{name: row[name] for name in names},
    )


def _printed(tool: str, figure: Mapping[str, Any], row: Mapping[str, Any], own: Sequence[RequestRecord]) -> Printed | None:
    name = str(figure["is"] or figure["foreign"]).removesuffix("_s")
    metric, _, stat = name.rpartition("_")
    plain = name in ("request_rate", "output_tps")
    if not plain and (metric not in PRINTED or stat not in ("mean", "p50", "p99")):
        return None
    is_ = name if plain else metric if figure["is"] else IS_OURS.get(figure["formula"])
    ours: float | None = None
    if own and plain:
        ours = row[name]
    elif own and is_:
        ours = statistic_of(own, is_, stat)
    shown = f"{_called(figure)} {stat}" if not plain else name
    return Printed(tool, shown, figure["formula"], figure["definition"], figure["value"] * factor(figure["unit"]), is_, ours)


def _called(figure: Mapping[str, Any]) -> str:
    """What the tool calls it: its TPOT may be none, and its ITL may be our TPOT."""
    for word, said in (
        ("inter_token", "ITL"),
        ("inter_chunk", "ICL"),
        ("normalized_time", "NTPOT"),
        ("per_output_token", "TPOT"),
        ("itl", "ITL"),
    ):
        if word in figure["column"]:
            return said
    return str(figure["is"] or figure["foreign"]).removesuffix("_s").rpartition("_")[0].upper()


def _records(frame: Any) -> list[RequestRecord]:
    """Requests with their stamps."""
    import pandas as pd

    names = set(RequestRecord.__dataclass_fields__) & set(frame.columns)
    records = []
    for row in frame.to_dict("records"):
        values: dict[str, Any] = {}
        for name in names:
            value = row[name]
            values[name] = tuple(map(int, value)) if name.startswith("arrival_") else None if pd.isna(value) else value
        records.append(RequestRecord(**values))
    return records

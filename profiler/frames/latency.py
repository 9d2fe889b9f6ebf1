"""Latency percentiles as a tidy frame: one row per run, metric and statistic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from profiler.frames import nulls
from profiler.frames.frame import Frame, describe
from profiler.store import schema

METRICS = {"ttft": "n_cohort", "ttft_sched": "n_cohort", "tpot": "n_tpot", "e2e_sched": "n_cohort"}  # metric -> the column of its n
PERCENTILES = (50, 90, 95, 99)
MEANS = {"ttft": "ttft_mean_s", "tpot": "tpot_mean_s", "e2e_sched": "e2e_mean_s"}  # of imported runs
OF_RUN = (
    "run_id", "model", "variant", "backend", "device", "workload", "load_kind", "load", "repeat", "start_id", "validity", "provenance_class",
)  # fmt: skip
_OWN = {
    "metric": ("", "id of the metric: `profile explain METRIC`"),
    "statistic": ("", "p50 … p99: an order statistic of the cohort; mean: an imported figure, which proves no percentile"),
    "value_s": ("s", "the statistic; NULL with null_reason"),
    "lo_s": ("s", "lower 95 % bound; NULL when n is too small for one"),
    "hi_s": ("s", "upper 95 % bound; NULL when n is too small for one, or it is +∞"),
    "n": ("requests", "requests behind the statistic"),
    "null_reason": ("", "why value_s is missing"),
}


def frame(rows: Iterable[Mapping[str, Any]], store: str) -> Frame:
    """Every percentile of every run; a missing one is kept, with the reason."""
    found = [_row(run, metric, f"p{p}") for run in rows for metric in METRICS for p in PERCENTILES if run["provenance_class"] != "imported"]
    found += [
        _row(run, metric, "mean")
        for run in rows
        for metric in MEANS
        if run["provenance_class"] == "imported" and run[MEANS[metric]] is not None
    ]
    made = pd.DataFrame(found, columns=[*OF_RUN, *_OWN])
    for name in ("value_s", "lo_s", "hi_s"):
        made[name] = made[name].astype("float64")
    made["n"] = made["n"].astype("Int64")
    columns = {c.name: c for c in schema.RUNS}
    units = {name: columns[name].unit for name in OF_RUN} | {name: unit for name, (unit, _) in _OWN.items()}
    definitions = {name: columns[name].definition for name in OF_RUN} | {name: text for name, (_, text) in _OWN.items()}
    why = nulls.plain(made[[*OF_RUN]], "not stated by the run") | {
        name: {definitions[name].partition("NULL ")[2] or "nothing to explain": int(n)}
        for name in ("lo_s", "hi_s", "null_reason")
        if (n := made[name].isna().sum())
    }
    missing = made[made["value_s"].isna()]["null_reason"].value_counts()
    if len(missing):
        why["value_s"] = {str(reason): int(n) for reason, n in missing.items()}
    return describe(made, "latency", store, why, units, definitions)


def _row(run: Mapping[str, Any], metric: str, statistic: str) -> dict[str, Any]:
    column = MEANS[metric] if statistic == "mean" else f"{metric}_{statistic}_s"
    value = run[column]
    n = run[METRICS[metric]] if statistic != "mean" else None
    return {name: run[name] for name in OF_RUN} | {
        "metric": metric,
        "statistic": statistic,
        "value_s": value,
        "lo_s": run.get(f"{column}_lo"),
        "hi_s": run.get(f"{column}_hi"),
        "n": n,
        "null_reason": None if value is not None else _reason(run, metric),
    }


def _reason(run: Mapping[str, Any], metric: str) -> str:
    if run["status"] != "done":
        return f"{run['status']}: {run['status_reason']}"
    if run["n_errors"]:
        return f"+∞: {run['n_errors']} of the cohort of {run['n_cohort']} failed"
    if metric == "tpot" and not run["n_tpot"]:
        return "answers of a single token have no pace"
    return nulls.NO_REASON

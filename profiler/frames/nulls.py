"""Why a value is missing: per column of a frame, each reason and the number of rows it explains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from profiler.store import schema

if TYPE_CHECKING:
    import pandas as pd

Nulls = dict[str, dict[str, int]]

# Columns whose reason stands in another column of the same run.
_REASONS = (
    (r"energy_.*|power_mean_w|idle_power_w", "energy_reason"),
    (r"server_.*", "server_metrics_reason"),
    (r"prefix_(hit|queried|block_tokens).*", "prefix_hit_reason"),
    (r"used_.*", "memory_reason"),
    (r"memory_limit_bytes", "memory_limit_source"),
)
_OF_TABLES = {c.name: c for columns in reversed(schema.TABLES.values()) for c in columns}
NO_REASON = "not recorded by the run"


def of_runs(frame: pd.DataFrame) -> Nulls:
    """Reasons for a frame that has the columns of `runs`: the run's own words first, else what the column's definition says."""
    said = {
        name: frame[name].tolist() for name in ("status", "status_reason", "provenance_class", *dict(_REASONS).values()) if name in frame
    }
    found: Nulls = {}
    for column in map(str, frame.columns):
        empty = frame[column].isna().to_numpy().nonzero()[0]
        if len(empty):
            own = next((reason for pattern, reason in _REASONS if re.fullmatch(pattern, column) and reason != column), None)
            found[column] = _count(_of_run(column, own, {name: values[k] for name, values in said.items()}) for k in empty)
    return found


def _of_run(column: str, own: str | None, run: Mapping[str, Any]) -> str:
    if run.get("status") not in (None, "done") and column != "status_reason":
        return f"{run['status']}: {run.get('status_reason')}"
    if own is not None and isinstance(text := run.get(own), str):
        return text
    if run.get("provenance_class") == "imported":
        return "imported: the source does not give it"
    return by_definition(column)


def of_requests(frame: pd.DataFrame) -> Nulls:
    """Reasons for requests: a failed one names its error, a single token has no pace."""
    found: Nulls = {}
    failed = frame["error_kind"].notna() if "error_kind" in frame else None
    for column in frame.columns:
        empty = frame[column].isna()
        if not empty.any():
            continue
        reasons: dict[str, int] = {}
        if failed is not None and column not in ("error_kind", "error"):
            reasons = {f"failed: {kind}": int(n) for kind, n in frame.loc[empty & failed, "error_kind"].value_counts().items()}
            empty = empty & ~failed
        if empty.any():
            reasons[by_definition(str(column))] = int(empty.sum())
        found[str(column)] = reasons
    return found


def by_definition(column: str) -> str:
    """What the schema says of a missing value, such as "when n is too small for one"."""
    known = _OF_TABLES.get(column)
    if column in ("error_kind", "error"):
        return "answered in full"
    if column.endswith("_reason"):
        return "nothing to explain"
    if known is None:
        return NO_REASON
    if known.definition.startswith("imported runs:"):
        return "only imported runs have it"
    said = re.search(r"NULL ((?:when|where|without|for|with|if|undeclared|as) .*)$", known.definition)
    return said[1] if said else NO_REASON


def plain(frame: pd.DataFrame, reason: str) -> Nulls:
    """The same reason for every missing value."""
    counts = frame.isna().sum()
    return {str(column): {reason: int(n)} for column, n in counts.items() if n}


def _count(reasons: Iterable[str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for reason in reasons:
        counted[reason] = counted.get(reason, 0) + 1
    return counted

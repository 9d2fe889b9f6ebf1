"""What imported figures say: where throughput stops following the offered rate, and the highest load whose mean keeps a limit.

Point estimates without bounds: the source's requests are not known. Nothing here is a verdict, and a mean says nothing of a percentile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.analyse.qos import QosTarget

FOLLOWS = 0.95  # of what the lowest rate makes of each offered request: below, throughput no longer follows
THROUGHPUTS = ("request_rate", "output_tps", "total_tps", "imported_tps")
MEANS = {"ttft": "ttft_mean_s", "tpot": "tpot_mean_s", "e2e": "e2e_mean_s"}
BOUNDS = "none: point estimate, no bound"


@dataclass(frozen=True)
class Knee:
    """Throughput follows the offered rate up to `follows`, not at `leaves` (None: it follows to the end). `plateau` / `per_request` =
    `crossing`: where the line through the lowest rate meets the highest throughput."""

    column: str
    follows: float | None
    leaves: float | None
    per_request: float
    plateau: float
    crossing: float | None  # None while it follows: no plateau was reached


@dataclass(frozen=True)
class MeanLimit:
    """`keeps`: highest load such that it and all lower ones have a mean at or below the limit; `above`: the lowest load beyond it."""

    metric: str
    column: str
    limit_s: float
    keeps: float | None
    above: float | None


@dataclass(frozen=True)
class Published:
    kind: str
    points: tuple[Mapping[str, Any], ...]  # rows of `runs`, by load
    knee: Knee | None
    means: tuple[MeanLimit, ...]
    source: str
    to_measure: tuple[str, ...]  # the runs that would turn it into a measured answer


def published(rows: Sequence[Mapping[str, Any]], target: QosTarget) -> Published | None:
    """Of one key's rows; None for what was measured here."""
    kinds = [row["load_kind"] for row in rows]
    kind = "rate" if "rate" in kinds else "concurrency"
    own = sorted((row for row in rows if row["provenance_class"] == "imported" and row["load_kind"] == kind), key=lambda r: r["load"])
    if not own:
        return None
    first = own[0]
    found = knee(own) if kind == "rate" else None
    means = tuple(m for metric, limit in _limits(target, first.get("isl_mean")) if (m := mean_limit(own, metric, limit)) is not None)
    source = f"{first['import_tool']}, {first['import_source']}, {first['import_licence']}, date {first['import_date']}"
    return Published(kind, tuple(own), found, means, source, _to_measure(own, kind, found, means, target))


def knee(rows: Sequence[Mapping[str, Any]]) -> Knee | None:
    """By the first throughput that all rows have; None with fewer than three loads."""
    column = next((name for name in THROUGHPUTS if all(row.get(name) for row in rows)), None)
    if column is None or len({row["load"] for row in rows}) < 3:
        return None
    per_request = rows[0][column] / rows[0]["load"]
    follows: float | None = None
    leaves: float | None = None
    for row in rows:
        if row[column] < FOLLOWS * per_request * row["load"]:
            leaves = row["load"]
            break
        follows = row["load"]
    plateau = max(row[column] for row in rows)
    return Knee(column, follows, leaves, per_request, plateau, plateau / per_request if leaves is not None else None)


def mean_limit(rows: Sequence[Mapping[str, Any]], metric: str, limit_s: float) -> MeanLimit | None:
    column = MEANS.get(metric)
    known = [row for row in rows if column is not None and row.get(column) is not None]
    if column is None or not known:
        return None
    keeps: float | None = None
    for row in known:
        if row[column] > limit_s:
            return MeanLimit(metric, column, limit_s, keeps, row["load"])
        keeps = row["load"]
    return MeanLimit(metric, column, limit_s, keeps, None)


def _limits(target: QosTarget, isl: float | None) -> list[tuple[str, float]]:
    """Each metric of the target with its tightest limit; one that grows with the prompt at the mean input length, where that is known."""
    found: dict[str, float] = {}
    for constraint in target.constraints:
        for limit in constraint.limits:
            if limit.per_token_s and not isl:
                continue
            found[limit.metric] = min(limit.at(isl or 0.0), found.get(limit.metric, math.inf))
    return list(found.items())


def _to_measure(
    rows: Sequence[Mapping[str, Any]], kind: str, found: Knee | None, means: Sequence[MeanLimit], target: QosTarget
) -> tuple[str, ...]:
    """One sweep at the loads on both sides of each limit and of the knee, on the same device."""
    loads = {load for m in means for load in (m.keeps, m.above) if load is not None}
    loads |= {load for load in (found.follows, found.leaves) if load is not None} if found is not None else set()
    chosen = sorted(loads or {rows[0]["load"]})
    row = rows[0]
    precision = str(row["variant"])
    backend = f"openvino-xeon-{precision}" if "Xeon" in str(row["device"]) and precision in ("int8", "int4", "bf16") else "BACKEND"
    option = "--rate" if kind == "rate" else "--concurrency"
    values = ",".join(f"{load:g}" for load in chosen)
    command = f'profile sweep --model {row["model"]} --backend {backend} --workload WORKLOAD {option} {values} --repeats 3 --qos "{target}"'
    return (f"on {row['device']}: `{command}` ({len(chosen)} cells, 3 engine starts each; WORKLOAD with your lengths)",)


def knee_words(found: Published) -> str:
    """`0.5–0.6 (lines cross at 0.58)`."""
    k = found.knee
    if k is None:
        return "not known"
    if k.leaves is None:
        return f"> {k.follows:g}"
    low = f"{k.follows:g}" if k.follows is not None else "0"
    return f"{low}–{k.leaves:g} (lines cross at {k.crossing:.2g})"


def mean_words(limit: MeanLimit) -> str:
    """`mean TPOT <= 100 ms up to 0.3, above it at 0.4`."""
    name = f"mean {limit.metric.upper()} <= {limit.limit_s * 1e3:g} ms"
    if limit.keeps is None:
        return f"{name} at no load (above it at {limit.above:g}, the lowest)"
    return f"{name} up to {limit.keeps:g}, " + (f"above it at {limit.above:g}" if limit.above is not None else "the highest")

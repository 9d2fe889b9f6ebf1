"""How far runs of one cell lie apart: within an engine start, and between starts. Requests of a run cannot tell; only repeats can.

One-way random effects: run j of start i is mean + start effect + run effect. The variance components are the unbiased method-of-moments ones
for unequal group sizes (Searle, Casella and McCulloch, Variance Components, 1992, section 3.6; a negative one is reported as 0). What is said
of the cell itself rests on the starts alone: the mean of the start means, with Student's t interval over them, each start counting as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from profiler.analyse.percentiles import ALPHA

METRICS = ("output_tps", "ttft_sched_p50_s", "ttft_sched_p95_s", "tpot_p50_s")


@dataclass(frozen=True)
class Spread:
    """One metric of one cell. Shares are of `mean`, the mean of the start means; None where the runs cannot tell (`note` says why)."""

    metric: str
    runs: int
    starts: int
    mean: float
    lowest: float
    highest: float
    cv_within: float | None  # between runs of one start
    cv_between: float | None  # between starts, freed of what runs of one start vary by where that is known
    lo: float | None  # 95 % interval of the mean over starts
    hi: float | None
    note: str


@dataclass(frozen=True)
class CellSpread:
    """`label` says which cell; `runs` and `starts` count the sound runs, `set_aside` those that are not."""

    cell_id: str
    environment_hash: str
    label: str
    runs: int
    starts: int
    set_aside: int
    metrics: tuple[Spread, ...]


def spread(values_by_start: Mapping[str, Sequence[float]], metric: str = "") -> Spread | None:
    """The spread of one metric; None without a value. Keys are start ids."""
    groups = [list(values) for values in values_by_start.values() if values]
    if not groups:
        return None
    n, a = sum(map(len, groups)), len(groups)
    means = [fmean(group) for group in groups]
    mean = fmean(means)
    within = _within(groups)
    between, note = _between(groups, within)
    lo, hi = _interval(means)
    every = [value for group in groups for value in group]
    return Spread(metric, n, a, mean, min(every), max(every), _share(within, mean), _share(between, mean), lo, hi, note)


def by_cell(runs: Iterable[Mapping[str, Any]]) -> list[CellSpread]:
    """Rows for a table: each cell that was run more than once, in the order of its first run. `runs` are rows of the store's `runs`.

    Runs of different environments (another machine, engine version or variant) are different cells here, never pooled. Failed and invalid runs
    do not count; suspect ones do, as they are what was seen.
    """
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        cells.setdefault((str(run["cell_id"]), str(run["environment_hash"])), []).append(run)
    found = []
    for (cell_id, environment), rows in cells.items():
        sound = [row for row in rows if row["status"] == "done" and row["validity"] != "invalid"]
        if len(sound) < 2:
            continue
        metrics = (spread(_by_start(sound, metric), metric) for metric in METRICS)
        starts = len({str(row["start_id"]) for row in sound})
        kept = tuple(one for one in metrics if one is not None)
        found.append(CellSpread(cell_id, environment, _label(sound[0]), len(sound), starts, len(rows) - len(sound), kept))
    return found


def _by_start(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for row in rows:
        value = row.get(metric)
        if value is not None and math.isfinite(value):
            values.setdefault(str(row["start_id"]), []).append(float(value))
    return values


def _label(row: Mapping[str, Any]) -> str:
    from profiler.units import load_label

    return f"{row['backend']} · {row['workload']} · {load_label(str(row['load_kind']), float(row['load']))}"


def _within(groups: Sequence[Sequence[float]]) -> float | None:
    """Mean square within starts; None when no start has two runs."""
    freedom = sum(len(group) - 1 for group in groups)
    if freedom == 0:
        return None
    return sum((value - fmean(group)) ** 2 for group in groups for value in group) / freedom


def _between(groups: Sequence[Sequence[float]], within: float | None) -> tuple[float | None, str]:
    """Variance between starts, and what the number of starts and runs allows to say."""
    n, a = sum(map(len, groups)), len(groups)
    if a == 1:
        return None, "one start: the spread between starts was not measured"
    mean = sum(map(sum, groups)) / n
    square = sum(len(group) * (fmean(group) - mean) ** 2 for group in groups) / (a - 1)
    if within is None:
        return square, f"{a} starts of one run each: what differs between starts and between runs cannot be told apart"
    weight = (n - sum(len(group) ** 2 for group in groups) / n) / (a - 1)  # the size of a start, were all alike
    return max(0.0, (square - within) / weight), f"{a} starts, {n} runs"


def _interval(means: Sequence[float]) -> tuple[float | None, float | None]:
    a = len(means)
    if a < 2:
        return None, None
    from scipy.special import stdtrit

    mean = fmean(means)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in means) / (a - 1))
    half = float(stdtrit(a - 1, 1 - ALPHA / 2)) * deviation / math.sqrt(a)
    return mean - half, mean + half


def _share(variance: float | None, mean: float) -> float | None:
    return math.sqrt(variance) / abs(mean) if variance is not None and mean else None

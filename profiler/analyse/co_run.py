"""What sharing a machine costs: each load of a backend alone and beside others, paired by load, from the runs of a co-run.

"Alone" means that the others were started and idle. Losses are of the means of runs at one load; n says of how many runs and requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
IDLE = "idle"


@dataclass(frozen=True)
class Figures:
    """Means over the runs at one load, alone or together; None where no run has it."""

    runs: int
    requests: int  # answered, of all runs
    output_tps: float | None
    request_rate: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tpot_p50_s: float | None
    tpot_p95_s: float | None
    neighbour_cpu_cores: float | None
    results: tuple[str, ...]  # verdicts, each once
    validities: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """One load of one backend. A loss is the share of throughput that is gone, a `slower` the share by which a time grew."""

    workload: str
    backend: str
    load_kind: str
    load: float
    arrivals: str
    beside: str  # the others with their loads, in words
    alone: Figures | None
    together: Figures | None

    @property
    def loss(self) -> float | None:
        """1 − output tokens/s together / alone."""
        change = self._change("output_tps")
        return None if change is None else -change

    @property
    def ttft_slower(self) -> float | None:
        """TTFT p50 together / alone − 1."""
        return self._change("ttft_p50_s")

    @property
    def tpot_slower(self) -> float | None:
        """TPOT p50 together / alone − 1."""
        return self._change("tpot_p50_s")

    def _change(self, name: str) -> float | None:
        if self.alone is None or self.together is None:
            return None
        before, after = getattr(self.alone, name), getattr(self.together, name)
        return after / before - 1 if before and after is not None else None


@dataclass(frozen=True)
class Limit:
    """How far a backend went: its highest throughput and the highest load at which every run FITS its target, of loads tried."""

    workload: str
    backend: str
    load_kind: str
    best_tps: tuple[float | None, float | None]  # alone, together
    fits_to: tuple[float | None, float | None]
    tried_to: float


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """Each load that was measured together, in the rows' order, beside the same load alone. Rows of other sweeps' cells are left out."""
    shared = [row for row in rows if row.get("co_run_with") and row["status"] == "done"]
    keys = dict.fromkeys(
        (r["workload"], r["backend"], r["load_kind"], r["load"], r.get("arrivals") or "", f"{r['co_run_with']}: {r['co_run_load']}")
        for r in shared
        if not idle(r)
    )
    found = []
    for workload, backend, kind, load, arrivals, beside in keys:
        same = [r for r in shared if (r["workload"], r["backend"], r["load_kind"], r["load"]) == (workload, backend, kind, load)]
        together = [r for r in same if f"{r['co_run_with']}: {r['co_run_load']}" == beside]
        alone = [r for r in same if idle(r)]
        found.append(Pair(workload, backend, kind, load, arrivals, beside, _figures(alone), _figures(together)))
    return found


def limits(rows: Sequence[Row]) -> list[Limit]:
    """One per workload, backend and kind of load that was measured together."""
    found: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in pairs(rows):
        found.setdefault((pair.workload, pair.backend, pair.load_kind), []).append(pair)
    result = []
    for (workload, backend, kind), group in found.items():
        sides = [[(pair.load, figures) for pair in group if (figures := getattr(pair, side)) is not None] for side in ("alone", "together")]
        best, fits = zip(*((_best(side), _fits_to(side)) for side in sides), strict=True)
        result.append(Limit(workload, backend, kind, (best[0], best[1]), (fits[0], fits[1]), max(pair.load for pair in group)))
    return result


def _best(side: Sequence[tuple[float, Figures]]) -> float | None:
    return max((figures.output_tps for _, figures in side if figures.output_tps is not None), default=None)


def _fits_to(side: Sequence[tuple[float, Figures]]) -> float | None:
    limit = None
    for load, figures in sorted(side, key=lambda one: one[0]):
        if "FAILS" in figures.results:
            break
        if figures.results == ("FITS",):
            limit = load
    return limit


def beside(row: Row) -> bool:
    """Whether another backend of the machine was loaded meanwhile."""
    return bool(row.get("co_run_with")) and not idle(row)


def idle(row: Row) -> bool:
    """Whether all other backends of a co-run's row were started and asked nothing."""
    return set(str(row["co_run_load"]).split(" + ")) == {IDLE}


def _figures(rows: Sequence[Row]) -> Figures | None:
    if not rows:
        return None

    def mean(name: str) -> float | None:
        values = [row[name] for row in rows if row.get(name) is not None]
        return sum(values) / len(values) if values else None

    return Figures(
        runs=len(rows),
        requests=sum(row["n_requests"] or 0 for row in rows),
        output_tps=mean("output_tps"),
        request_rate=mean("request_rate"),
        ttft_p50_s=mean("ttft_sched_p50_s"),
        ttft_p95_s=mean("ttft_sched_p95_s"),
        tpot_p50_s=mean("tpot_p50_s"),
        tpot_p95_s=mean("tpot_p95_s"),
        neighbour_cpu_cores=mean("neighbour_cpu_cores"),
        results=tuple(dict.fromkeys(row["qos_result"] or "not judged" for row in rows)),
        validities=tuple(dict.fromkeys(row["validity"] for row in rows)),
    )

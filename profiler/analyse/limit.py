"""λ* from stored runs: the highest load such that it and all lower measured loads FIT. Where whole cohorts of three or more starts lie around the
limit, as a search leaves them, the interval that their curves prove (profiler.analyse.crossing) says what single loads leave open.

Any target can be asked of runs that are stored: each is judged anew from its requests. Measures nothing. The one seam through which
capacity and cost learn how far a backend goes: `limits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low
from typing import Any, Literal

from profiler.analyse import crossing
from profiler.analyse.bootstrap import METHOD
from profiler.analyse.bounds import Bounds
from profiler.analyse.crossing import Interval
from profiler.analyse.percentiles import ALPHA
from profiler.analyse.qos import METRICS, QosTarget
from profiler.analyse.starts import DECIDING
from profiler.analyse.together import counts, judge_together
from profiler.analyse.verdict import Verdict, judge
from profiler.errors import QosError
from profiler.records import PLAIN, DriveResult, LoadKind, RequestRecord, Result

RUNG, WIDEST_RUNG = 0.05, 0.10  # loads this close are neighbours on a curve; of those further apart less is taken for straight
POISSON = ("poisson", "not stated", None)  # arrivals of which λ* is; evenly spaced ones carry more, bursts less
Row = Mapping[str, Any]
Provenance = Literal["measured", "imported", "predicted"]
Key = tuple[Any, ...]
KEY = ("model", "variant", "backend", "workload", "workload_version", "device", "machine_id", "provenance_class")


@dataclass(frozen=True)
class Probe:
    """One load: what its runs say together, and each run's verdict by run_id."""

    load: float
    result: Result
    reason: str
    starts: int
    rows: tuple[Row, ...]
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True)
class Limit:
    """λ* lies in [`lower`, `upper`); `lower` None: no load was proven; `upper` None: none fails. In requests/s or users, by `kind`."""

    kind: LoadKind
    lower: float | None
    upper: float | None
    provenance: Provenance
    reason: str
    probes: tuple[Probe, ...]


def key_of(row: Row) -> Key:
    """What is never pooled: model, variant, backend, workload, device, machine, provenance class."""
    return tuple(row.get(name) for name in KEY)


def usable(row: Row) -> bool:
    return bool(row["status"] == "done" and row["validity"] != "invalid")


def limits(rows: Sequence[Row], target: QosTarget, requests: Mapping[str, Sequence[RequestRecord]]) -> dict[Key, dict[LoadKind, Limit]]:
    """λ* of each key and loop. `requests` by run_id; a run without its requests proves nothing ("point estimate, no bound").

    Open loops count only with Poisson arrivals (POISSON): others carry another rate, and a trace or a ramp has no single load. Raises QosError
    for a metric that no record has.
    """
    sound = [row for row in rows if usable(row)]
    check_metrics(target, sound, requests)
    found: dict[Key, dict[LoadKind, Limit]] = {}
    for key in dict.fromkeys(key_of(row) for row in sound):
        own = [row for row in sound if key_of(row) == key]
        kinds: tuple[LoadKind, ...] = ("rate", "concurrency")
        found[key] = {
            kind: _limit(kind, [r for r in own if r["load_kind"] == kind and counts_for_limit(r)], target, requests) for kind in kinds
        }
    return found


def check_metrics(target: QosTarget, rows: Sequence[Row], requests: Mapping[str, Sequence[RequestRecord]]) -> None:
    """Raise QosError for a metric of the target that no answered request of any run has, and name a run that lacks it."""
    if not any(requests.values()):
        return
    for metric in dict.fromkeys(limit.metric for c in target.constraints for limit in c.limits):
        column, read, vacuous = METRICS[metric]
        if not vacuous and all(read(r) is None for run in requests.values() for r in run if r.error_kind is None):
            names = ", ".join(sorted({str(row["backend"]) for row in rows}))
            raise QosError(f"{metric}: no stored request has {column} ({names})", hint="measure again, or leave the condition out")


def judged(row: Row, requests: Sequence[RequestRecord], target: QosTarget) -> Verdict:
    """The verdict of one stored run for any target, by the rules of `judge`."""
    kind: LoadKind = row["load_kind"]
    arrivals = row.get("arrivals") or ("poisson" if kind == "rate" else "closed")
    return judge(target, requests, kind, row["load"], _drive(row, requests), row["validity"], arrivals, _bounds(row))


def _limit(kind: LoadKind, rows: Sequence[Row], target: QosTarget, requests: Mapping[str, Sequence[RequestRecord]]) -> Limit:
    probes = [_probe([row for row in rows if row["load"] == load], target, requests) for load in sorted({row["load"] for row in rows})]
    lower: float | None = None
    for probe in probes:
        if probe.result != "FITS":
            break
        lower = probe.load
    upper = next((probe.load for probe in probes if probe.result == "FAILS"), None)
    provenance: Provenance = rows[0].get("provenance_class") or "measured" if rows else "measured"
    reason = _reason(kind, probes, lower, upper)
    curve = _by_curve(probes) if kind == "rate" else Interval(None, None)
    if curve.lower is not None and curve.upper is not None:
        # Of several starts around the limit: worth more than what the short probes and single starts of a search say one by one.
        lower, upper = curve.lower, curve.upper
        reason = f"fits at {lower:.4g} requests/s, fails at {upper:.4g}, by the curves of the starts that lie around it"
    return Limit(kind, lower, upper, provenance, reason, tuple(probes))


def _by_curve(probes: Sequence[Probe]) -> Interval:
    """Of whole cohorts: short probes are too kind."""
    runs: list[tuple[float, Mapping[str, Any]]] = []
    for probe in probes:
        for row in probe.rows:
            verdict = probe.verdicts.get(row["run_id"])
            if verdict is None or row.get("stop_reason") == PLAIN:
                continue
            document: dict[str, Any] = {"run": {**row, "qos_result": verdict.result}, "verdicts": [verdict.to_dict()]}
            if counts(document):
                runs.append((probe.load, document))
    if len({document["run"]["start_id"] for _, document in runs}) < DECIDING or len({load for load, _ in runs}) < 2:
        return Interval(None, None)
    rung = rung_of(sorted({load for load, _ in runs}))
    return crossing.limit([crossing.seen(document, load) for load, document in runs], crossing.allowed(runs[0][1]), ALPHA / 2, rung)


def rung_of(loads: Sequence[float]) -> float:
    """That of the search that chose `loads`, of which there are two: most lie half a rung apart (profiler.analyse.search)."""
    half = median_low(above / below for below, above in pairwise(loads))
    return min(max(round(2 * (half - 1), 2), RUNG), WIDEST_RUNG)


def _probe(rows: Sequence[Row], target: QosTarget, requests: Mapping[str, Sequence[RequestRecord]]) -> Probe:
    verdicts = {row["run_id"]: judged(row, requests[row["run_id"]], target) for row in rows if requests.get(row["run_id"])}
    together = judge_together(
        {"run": {**row, "qos_result": v.result}, "verdicts": [v.to_dict()]} for row in rows if (v := verdicts.get(row["run_id"]))
    )
    if not verdicts:
        return Probe(rows[0]["load"], "UNDECIDED", "point estimate, no bound: the requests are not stored", 0, tuple(rows), {})
    reason = next(iter(verdicts.values())).reason if together.starts == 1 else together.reason
    return Probe(rows[0]["load"], together.result, reason, together.starts, tuple(rows), verdicts)


def _reason(kind: LoadKind, probes: Sequence[Probe], lower: float | None, upper: float | None) -> str:
    unit = "users" if kind == "concurrency" else "requests/s"
    if not probes:
        return f"no {'closed' if kind == 'concurrency' else 'open'}-loop run"
    if lower is None:
        worst = probes[0]
        return f"at {worst.load:g} {unit}, the lowest measured: {worst.result}: {worst.reason}"
    above = f"fails at {upper:g}" if upper is not None else "none that fails was measured"
    between = [p for p in probes if p.load > lower and (upper is None or p.load < upper)]
    undecided = f"; undecided at {', '.join(f'{p.load:g}' for p in between)}" if between else ""
    later = [p.load for p in probes if upper is not None and p.load > upper and p.result == "FITS"]
    odd = f"; not monotone: fits again at {', '.join(f'{load:g}' for load in later)}" if later else ""
    return f"fits at {lower:g} {unit} and below, {above}{undecided}{odd}"


def counts_for_limit(row: Row) -> bool:
    return row["load_kind"] == "concurrency" or row.get("arrivals") in POISSON


def _bounds(row: Row) -> Bounds:
    """The bounds the run was judged by, as its column says them."""
    method = row.get("bounds_method") or ""
    looks = method.rpartition("-of-")[2].removesuffix("-looks") if method.endswith("-looks") else "1"
    return Bounds(blocks=method.startswith(METHOD), looks=int(looks) if looks.isdigit() else 1)


def _drive(row: Row, requests: Sequence[RequestRecord]) -> DriveResult:
    """What judging needs of the client's own account: the window, and an end after the last answer."""
    intended = [r.intended_ns for r in requests] or [0]
    opened, closed = row.get("window_open_ns"), row.get("window_close_ns")
    opened, closed = (min(intended) if opened is None else opened), (max(intended) + 1 if closed is None else closed)
    ended = max([r.done_ns for r in requests if r.done_ns is not None] + [closed])
    return DriveResult(min(intended), opened, closed, ended, str(row.get("started_at")), "", 0.0, "user", None, None, 0.0, 0)

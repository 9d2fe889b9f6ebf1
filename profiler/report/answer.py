"""The answer in words: for each workload, which backend keeps its QoS at which loads, and which goes furthest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiler.analyse.together import Together
from profiler.report.selection import Row, Selection

RESULTS = ("FITS", "FAILS", "UNDECIDED")


@dataclass(frozen=True)
class Answer:
    """`sentence` answers for the workload; `by_backend` says of each backend at which loads it fits, fails, is undecided."""

    workload: str
    sentence: str
    by_backend: tuple[tuple[str, str], ...]


def answers(selection: Selection) -> list[Answer]:
    """One Answer per workload, in the selection's order. Closed and open loops are never mixed: they answer different questions."""
    return [_answer(selection, workload) for workload in selection.workloads]


def _answer(selection: Selection, workload: str) -> Answer:
    qos = selection.qos(workload)
    by_backend = tuple((backend, _loads_in_words(selection.of(workload, backend))) for backend in selection.backends)
    if qos is None:
        return Answer(workload, f"{workload}: no QoS target was set, so nothing was judged.", by_backend)
    parts = [
        text
        for kind, unit in (("concurrency", "users in lockstep (closed loop)"), ("rate", "requests/s (Poisson, open loop)"))
        if (text := _furthest(selection, workload, kind, unit))
    ]
    if parts:
        screened = " One engine start screens, and starts differ: --repeats 3 decides." if _starts(selection.of(workload)) < 2 else ""
        return Answer(workload, f"{workload}: the target is kept with 95 % confidence {'; '.join(parts)}.{screened}", by_backend)
    undecided = any(row["qos_result"] == "UNDECIDED" for row in selection.of(workload))
    why = "some are undecided, see what would decide them" if undecided else "the model is too slow for it here"
    return Answer(workload, f"{workload}: no backend was proven to keep the target at any load that was measured; {why}.", by_backend)


def _starts(rows: Sequence[Row]) -> int:
    """The most engine starts that any cell was measured on."""
    cells: dict[str, set[str]] = {}
    for row in rows:
        cells.setdefault(row["cell_id"], set()).add(str(row["start_id"]))
    return max(map(len, cells.values()), default=0)


def _furthest(selection: Selection, workload: str, kind: str, unit: str) -> str | None:
    """`at 8 users … by A and B`: the highest load of this loop that any backend was proven to keep, and who did."""
    best: dict[str, float] = {}
    for backend in selection.backends:
        limit = kept_up_to([row for row in selection.of(workload, backend) if row["load_kind"] == kind], selection.together)
        if limit is not None:
            best[backend] = limit
    if not best:
        return None
    top = max(best.values())
    winners = [backend for backend, limit in best.items() if limit == top]
    highest = max(load for load_kind, load in selection.loads(workload) if load_kind == kind)
    more = ", the highest that was tried" if top == highest else ""
    return f"at {top:g} {unit}{more}, by {_joined(winners)}"


def kept_up_to(rows: Sequence[Row], together: Callable[[Sequence[Row]], Together]) -> float | None:
    """The highest load that FITS, by one start or over several, with no lower load that FAILS; None when there is none."""
    limit = None
    for load in sorted({row["load"] for row in rows}):
        result = together([row for row in rows if row["load"] == load]).result
        if result == "FAILS":
            break
        if result == "FITS":
            limit = load
    return limit


def _loads_in_words(rows: Sequence[Row]) -> str:
    """`fits at 1, 4 users and 3/s; fails at 8, 16 users`."""
    parts = []
    for result in RESULTS:
        chosen = [row for row in rows if row["qos_result"] == result]
        if chosen:
            parts.append(f"{result.lower()} at {_loads(chosen)}")
    failed = [row for row in rows if row["status"] != "done"]
    if failed:
        parts.append(f"could not be measured at {_loads(failed)} ({failed[0]['status_reason']})")
    return "; ".join(parts) or "not judged"


def _loads(rows: Sequence[Row]) -> str:
    users = sorted({row["load"] for row in rows if row["load_kind"] == "concurrency"})
    rates = sorted({row["load"] for row in rows if row["load_kind"] == "rate"})
    words = []
    if users:
        words.append(f"{', '.join(f'{u:g}' for u in users)} user{'s' if users != [1] else ''}")
    if rates:
        words.append(f"{', '.join(f'{r:g}' for r in rates)}/s")
    return " and ".join(words)


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

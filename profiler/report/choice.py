"""Which variant should I use, and why: for each workload one sentence, the evidence as a short table, and what would change the answer.

The choice is the backend proven to keep the target at the highest load, by the open loop where one was measured, because only that proves a
fit at a request rate. Among equals the one that is proven lower in a statistic the target limits (p95 of the time per token for tpot_p95) and
proven higher in none of them; where none is, the one with the lower median time per token, and then the answer says what the limited
statistics are. Where nothing separates them, the widest weights, because nobody said how much worse a narrower variant may answer. With a
margin for quality only what is proven non-inferior is chosen from, and where nothing separates those, the smallest weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.analyse.quality_words import at_a_glance
from profiler.report import choice_quality as quality
from profiler.report.answer import RESULTS, kept_up_to
from profiler.report.figures import limit_words
from profiler.units import format_duration

if TYPE_CHECKING:
    from profiler.report.selection import Row, Selection

LOOPS = (("rate", "requests/s arriving at random (open loop)"), ("concurrency", "users at once (closed loop)"))
COLUMNS = {"ttft": "ttft_sched", "tpot": "tpot", "e2e": "e2e_sched"}  # of a longest gap the store keeps no percentile
PERCENTS = (50, 90, 95, 99)
METRICS = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "icl": "longest gap between tokens",
    "e2e": "time to the last token",
}


@dataclass(frozen=True)
class Statistic:
    """A percentile of a metric: its column, how a sentence calls it, and whether the target limits it."""

    column: str
    words: str
    limited: bool = True


MEDIAN = Statistic("tpot_p50_s", "median time per output token", limited=False)


@dataclass(frozen=True)
class Line:
    """One backend at a glance: the highest load it was proven to keep the target at, by loop, and the run that shows it best."""

    backend: str
    model: str
    variant: str
    size_bytes: int | None
    limits: Mapping[str, float | None]
    tried: Mapping[str, float | None]
    shown: Row | None  # of the load all are shown at
    chosen: bool
    quality: str = ""  # its drift and what passed, or with a margin the verdict; "" where it was not evaluated


@dataclass(frozen=True)
class Choice:
    """`headline` is the answer, `use` the backends it names first to last; `why` and `but` are sentences; `lines` the evidence."""

    workload: str
    asked: str
    headline: str
    use: tuple[str, ...]
    why: tuple[str, ...]
    but: tuple[str, ...]
    lines: tuple[Line, ...]
    shown_at: str  # the load of the figures in `lines`


def choices(selection: Selection) -> list[Choice]:
    return [_choice(selection, workload) for workload in selection.workloads]


def target_words(qos: str | None) -> str:
    """`time to first token ≤ 500 ms for 95 % of requests; time per output token ≤ 40 ms for 95 % of requests`."""
    if qos is None:
        return "no target was set"
    from profiler.analyse.qos import parse

    parts = []
    for c in parse(qos).constraints:
        limits = " and ".join(f"{METRICS[limit.metric]} ≤ {limit_words(limit.limit_s)}" for limit in c.limits)
        if c.kind == "error_rate":
            parts.append(f"at most {100 - c.percent:g} % errors")
        elif c.kind == "joint":
            parts.append(f"for {c.percent:g} % of requests {limits}")
        else:
            parts.append(f"{limits} for {c.percent:g} % of requests")
    return "; ".join(parts)


def _choice(selection: Selection, workload: str) -> Choice:
    qos = selection.qos(workload)
    limits = {kind: _limits(selection, workload, kind) for kind, _ in LOOPS}
    barred = quality.barred(selection)
    proven = {kind: {name: None if name in barred else limit for name, limit in found.items()} for kind, found in limits.items()}
    kind = next((kind for kind, _ in LOOPS if any(v is not None for v in proven[kind].values())), None)
    use: tuple[str, ...]
    why: tuple[str, ...]
    if qos is None:
        headline, use, why = f"For {workload} nothing was judged: no target was set.", (), ()
    elif kind is None:
        kept = {name for found in limits.values() for name, limit in found.items() if limit is not None}
        headline, use, why = quality.none(selection, workload, kept) if kept else _none(selection, workload)
    else:
        headline, use, why = _best(selection, workload, kind, proven, barred)
    load = _shown_load(selection, workload, kind, proven)
    chosen = use[:1]
    lines = tuple(_line(selection, workload, b, limits, load, b in chosen) for b in selection.backends if selection.of(workload, b))
    shown_at = selection.load_words(workload, load) if load is not None else ""
    return Choice(workload, target_words(qos), headline, use, why, _but(selection, workload, kind, chosen), lines, shown_at)


def _limits(selection: Selection, workload: str, kind: str) -> dict[str, float | None]:
    return {
        backend: kept_up_to([row for row in selection.of(workload, backend) if row["load_kind"] == kind], selection.together)
        for backend in selection.backends
    }


def _best(
    selection: Selection, workload: str, kind: str, limits: Mapping[str, Mapping[str, float | None]], barred: Mapping[str, str]
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    found = {backend: limit for backend, limit in limits[kind].items() if limit is not None}
    top = max(found.values())
    winners = [backend for backend, limit in found.items() if limit == top]
    at = f"{top:g} {dict(LOOPS)[kind]}".replace("1 users at once", "1 user", 1) if top == 1 else f"{top:g} {dict(LOOPS)[kind]}"
    fastest, by = _fastest(selection, workload, winners, (kind, top))
    contradicted = fastest is None and by.limited
    use = (fastest, *(w for w in winners if w != fastest)) if fastest else tuple(winners)
    headline = f"For {workload} use {use[0]}: it keeps the target at {at}"
    others = [b for b in selection.backends if b not in winners and b not in barred and selection.of(workload, b)]
    if len(winners) == 1:
        headline += f", further than any other{' of proven quality' if barred else ''}." if others else "."
        why = [] if not others else [f"{b} was proven " + _other(limits[kind][b], kind) for b in others]
    elif fastest:
        rest = _joined([w for w in winners if w != fastest])
        limited = ", which the target limits," if by.limited else ""
        headline += f", as {'do' if len(winners) > 2 else 'does'} {rest}, and its {by.words}{limited} is lower."
        why = [f"At that load the 95 % intervals of its {by.words} and of that of {rest} do not overlap."]
        why += [] if by.limited else _unproven(selection, workload, use, (kind, top))
    else:
        if selection.margins.stated:  # each is proven as good as the reference
            use = tuple(sorted(winners, key=lambda name: quality.weights(selection.of(workload, name))))
            headline = f"For {workload} use {use[0]}: it keeps the target at {at}"
        headline += f". {_joined([w for w in winners if w != use[0]])} {'do' if len(winners) > 2 else 'does'} too."
        reason = "Each is lower in another statistic" if contradicted else "Nothing measured separates them"
        why = [f"{reason}, so {quality.tie(selection, winners)}."]
    if len(winners) > 1:
        why += [f"{b} was proven " + _other(limits[kind][b], kind) for b in others]
    ladder = [load for k, load in selection.loads(workload) if k == kind]
    why += [f"{top:g} is the highest load that was tried: the end was not found."] if top == max(ladder) else []
    return headline, use, (*quality.why(selection, workload, use[0], barred), *why)


def _other(limit: float | None, kind: str) -> str:
    unit = "requests/s" if kind == "rate" else "user" if limit == 1 else "users"
    return (
        f"to keep it up to {limit:g} {unit} only."
        if limit is not None
        else f"to keep it at no {'number of users' if kind == 'concurrency' else 'rate'} that was tried."
    )


def _fastest(selection: Selection, workload: str, winners: Sequence[str], load: tuple[str, float]) -> tuple[str | None, Statistic]:
    """The winner proven lower than every other, and in what. None where none is; of a limited statistic where another one contradicts it."""
    spans = {each: _spans(selection, workload, winners, load, each.column) for each in (*_limited(selection.qos(workload)), MEDIAN)}
    for each, found in spans.items():
        best = _lowest(found)
        if best is None:
            continue
        against = any(
            high < other[best][0] for name, other in spans.items() if name.limited and best in other for _, high in other.values()
        )
        return (None if against else best), each
    return None, MEDIAN


def _limited(qos: str | None) -> list[Statistic]:
    """The statistics the target limits, the time per token first: the store has a column of each."""
    from profiler.analyse.qos import parse

    found = [
        Statistic(
            f"{COLUMNS[limit.metric]}_p{c.percent:g}_s", f"{'median' if c.percent == 50 else f'p{c.percent:g}'} {METRICS[limit.metric]}"
        )
        for c in (parse(qos).constraints if qos else ())
        for limit in c.limits
        if limit.metric in COLUMNS and c.percent in PERCENTS
    ]
    return sorted(found, key=lambda each: not each.column.startswith("tpot"))


def _spans(
    selection: Selection, workload: str, winners: Sequence[str], load: tuple[str, float], column: str
) -> dict[str, tuple[float, float]]:
    """Of each winner the outer 95 % bounds of a column over its runs there; empty where one has none."""
    spans = {}
    for backend in winners:
        rows = [r for r in _at(selection, workload, backend, load) if r[f"{column}_lo"] is not None and r[f"{column}_hi"] is not None]
        if not rows:
            return {}
        spans[backend] = (min(r[f"{column}_lo"] for r in rows), max(r[f"{column}_hi"] for r in rows))
    return spans


def _lowest(spans: Mapping[str, tuple[float, float]]) -> str | None:
    for backend, (_, high) in spans.items():
        if len(spans) > 1 and all(high < low for other, (low, _) in spans.items() if other != backend):
            return backend
    return None


def _unproven(selection: Selection, workload: str, use: Sequence[str], load: tuple[str, float]) -> list[str]:
    """What the target limits, of each winner, where it proves none of them lower."""
    found = []
    for each in _limited(selection.qos(workload)):
        shown = {
            backend: [r[each.column] for r in _at(selection, workload, backend, load) if r[each.column] is not None] for backend in use
        }
        if all(shown.values()):
            told = ", ".join(f"{backend} {_range(values)}" for backend, values in shown.items())
            found.append(f"In {each.words}, which the target limits, no difference is proven: {told}.")
    return found


def _range(seconds: Sequence[float]) -> str:
    low, high = format_duration(min(seconds)), format_duration(max(seconds))
    return low if low == high else f"{low} to {high}"


def _none(selection: Selection, workload: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    rows = selection.of(workload)
    if all(row["provenance_class"] == "imported" for row in rows):
        return f"For {workload} nothing is proven: imported figures have no bounds.", (), ("Measure the same cells with `profile sweep`.",)
    open_ = [row for row in rows if row["qos_result"] == "UNDECIDED"]
    if open_:
        names = _joined(list(dict.fromkeys(str(row["backend"]) for row in open_)))
        why = f"{names} may keep it: at some loads these runs allow no decision."
        return f"For {workload} no variant was proven to keep the target; some are undecided.", (), (why,)
    if not any(row["status"] == "done" for row in rows):
        return f"For {workload} nothing could be measured.", (), ()
    return f"For {workload} use none of these here: no variant keeps the target at any load that was tried.", (), ()


def _but(selection: Selection, workload: str, kind: str | None, chosen: Sequence[str]) -> tuple[str, ...]:
    """What weakens the answer, strongest first."""
    rows, found = selection.of(workload), []
    suspect = [row for row in rows if row["backend"] in chosen and row["status"] == "done" and row["validity"] != "valid"]
    if kind == "concurrency":
        found.append("Closed loop: each user waits for an answer, so there is no queue. It proves no fit at a request rate; add --rate.")
    starts: dict[str, set[str]] = {}
    for row in rows:
        starts.setdefault(row["cell_id"], set()).add(str(row["start_id"]))
    if kind is not None and max(map(len, starts.values()), default=0) < 3:
        found.append("One engine start screens, and starts differ: --repeats 3 decides.")
    if suspect:
        found.append(f"{len(suspect)} of the runs of {chosen[0]} are not valid; they prove nothing and are left out of the answer.")
    weak = [row for row in rows if row["status"] == "done" and row["validity"] != "valid"]
    if weak and not chosen:
        found.append(f"{len(weak)} of {len(rows)} runs are not valid and prove nothing: see their findings under Validity.")
    return (*found, *quality.but(selection, workload, chosen))


def _shown_load(
    selection: Selection, workload: str, kind: str | None, limits: Mapping[str, Mapping[str, float | None]]
) -> tuple[str, float] | None:
    """The load at which all backends are shown: the winner's limit, or the lowest that was measured."""
    if kind is not None:
        return kind, max(limit for limit in limits[kind].values() if limit is not None)
    measured = {(row["load_kind"], row["load"]) for row in selection.of(workload) if row["status"] == "done"}
    return next((load for load in selection.loads(workload) if load in measured), None)


def _line(
    selection: Selection, workload: str, backend: str, limits: Mapping[str, Mapping[str, float | None]], load: tuple[str, float] | None, chosen: bool
) -> Line:  # fmt: skip
    rows = selection.of(workload, backend)
    tried = {kind: max((r["load"] for r in rows if r["load_kind"] == kind), default=None) for kind, _ in LOOPS}
    at = _at(selection, workload, backend, load) if load is not None else []
    size = next((row["variant_size_bytes"] for row in rows if row["variant_size_bytes"]), None)
    variant = next((str(row["variant"]) for row in rows if row["variant"]), "")
    return Line(
        backend, str(rows[0]["model"]), variant, size, {k: limits[k][backend] for k, _ in LOOPS}, tried, at[-1] if at else None, chosen,
        at_a_glance(selection.standings[backend]),
    )  # fmt: skip


def _at(selection: Selection, workload: str, backend: str, load: tuple[str, float]) -> list[Row]:
    """The sound runs there; where there is none, the measured ones."""
    rows = [r for r in selection.of(workload, backend) if (r["load_kind"], r["load"]) == load and r["status"] == "done"]
    return [row for row in rows if row["validity"] == "valid"] or rows


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """Runs by verdict, and those that could not be measured."""
    found = {result: sum(1 for row in rows if row["qos_result"] == result) for result in RESULTS}
    return found | {"not measured": sum(1 for row in rows if row["status"] != "done")}


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

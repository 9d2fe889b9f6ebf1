"""What quality has to say in the answer of a report: who may not be chosen, why the chosen one may, and what nobody knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from profiler.analyse.joint import quality_of
from profiler.analyse.quality_words import told

if TYPE_CHECKING:
    from profiler.report.selection import Row, Selection


def barred(selection: Selection) -> dict[str, str]:
    """Backends that are not proven as good as the reference, with what was found; nobody without a margin."""
    if not selection.margins.stated:
        return {}
    found = {}
    for name, standing in selection.standings.items():
        result, reason, decide = quality_of(standing, selection.margins)
        if result != "NON-INFERIOR":
            lacking = f"; would decide it: {'; '.join(decide)}" if decide else ""
            found[name] = f"quality {result}: {reason}{lacking}"
    return found


def none(selection: Selection, workload: str, kept: Collection[str]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Headline, no choice, and why, where some keep the target but none is proven on quality."""
    out = barred(selection)
    headline = f"For {workload} no variant is proven on quality and QoS: {selection.margins.words}."
    return (
        headline,
        (),
        tuple(f"{name} keeps the target, but its {out[name]}." for name in selection.backends if name in kept and name in out),
    )


def why(selection: Selection, workload: str, chosen: str, out: Mapping[str, str]) -> list[str]:
    """With a margin: what proves the chosen one, and what keeps the others out."""
    if not selection.margins.stated:
        return []
    _, reason, _ = quality_of(selection.standings[chosen], selection.margins)
    others = [f"{name} is left out, {text}." for name, text in out.items() if selection.of(workload, name)]
    return [f"Of quality and QoS together; quality of {chosen}: {reason}.", *others]


def tie(selection: Selection, winners: Sequence[str]) -> str:
    """Whom to take where nothing measured separates the winners."""
    if selection.margins.stated:
        return "the smallest weights are the better choice: quality is proven of each"
    if all(selection.standings[name].row is not None for name in winners):
        return "the widest weights are the safer choice: no margin says how much worse an answer may be"
    return "the widest weights are the safer choice: quality was not evaluated"


def weights(rows: Sequence[Row]) -> int:
    """Bytes, to sort by; unknown last."""
    return min((row["variant_size_bytes"] for row in rows if row["variant_size_bytes"]), default=1 << 62)


def but(selection: Selection, workload: str, chosen: Sequence[str]) -> list[str]:
    """What weakens the answer: quality that is not known, or that nobody judged."""
    own = {name: standing for name, standing in selection.standings.items() if selection.of(workload, name)}
    known = [standing.row for standing in own.values() if standing.row is not None]
    if not known:
        several = len({row["variant"] for row in selection.done}) > 1
        command = next((standing.command for standing in own.values() if standing.command), None)
        mend = f" {command} evaluates one." if command else ""
        return [f"Quality was not evaluated: a narrower variant may answer worse.{mend}"] if several else []
    found = []
    for name in chosen:
        standing = own[name]
        if standing.row is None:
            found.append(f"Quality of {name}: {standing.reason}." + (f" {standing.command} evaluates it." if standing.command else ""))
        elif not selection.margins.stated:
            found.append(f"Quality of {name}: {told(standing)}. Whether that will do was not asked: --drift-margin and --margin judge it.")
    return found + sorted({f"Quality: {row.demonstration_only}." for row in known if row.demonstration_only})

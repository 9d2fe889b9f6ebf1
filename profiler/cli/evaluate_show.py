"""The table of `profile evaluate` in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from profiler.cli import harness_show
from profiler.cli.planning import PIPED_WIDTH

if TYPE_CHECKING:
    from profiler.analyse.quality_rows import Row

SHOWN_LOST = 6


def show(rows: Sequence[Row], documents: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("backend", "variant", "perplexity", "to the reference", "passed", "to the reference", "verdict"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "backend")
    for row in rows:
        table.add_row(row.backend, row.variant, _perplexity(row), _drift(row), _passed(row), _pairs(row), _verdict(row))
    console.print(table)
    harness_show.show(console, documents)
    for line in notes(rows, documents, failed):
        console.print(line)


def notes(rows: Sequence[Row], documents: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> list[str]:
    """What the table cannot say: why a verdict fell, what would decide it, what is missing, how far it can be trusted."""
    found = []
    for row in rows:
        for verdict in (row.drift_verdict, row.task_verdict):
            if verdict is not None:
                decide = f"; would decide it: {verdict.decide}" if verdict.decide else ""
                found.append(f"{row.backend}: {verdict.result}, {verdict.reason}, n = {verdict.n} {verdict.unit}{decide}")
        if row.lost:
            more = f" and {len(row.lost) - SHOWN_LOST} more" if len(row.lost) > SHOWN_LOST else ""
            found.append(f"{row.backend}: the reference passes, it does not: {', '.join(row.lost[:SHOWN_LOST])}{more}")
        found += [f"{row.backend}: no {what}: {why}" for what, why in row.missing.items() if what not in ("verdict", "top1_agreement")]
    found += [f"{name}: failed: {why}" for name, why in failed.items()]
    if any(row.missing.get("verdict") for row in rows if not row.is_reference):
        found.append("No verdict without a margin that you state: --drift-margin 2%, --margin 5%.")
    if any((document.get("tasks") or {}).get("too_small") for document in documents):
        found.append("The built-in examples are too few to rank models: give your own with --tasks.")
    found += sorted({row.demonstration_only for row in rows if row.demonstration_only})
    return found


def _perplexity(row: Row) -> str:
    return "?" if row.perplexity is None else f"{row.perplexity:.3f}"


def _drift(row: Row) -> str:
    if row.is_reference:
        return "reference"
    if row.drift is None:
        return "?"
    lo, hi = row.drift.ratio_lo, row.drift.ratio_hi
    bounds = f" ({lo - 1:+.2%} to {hi - 1:+.2%})" if lo is not None and hi is not None else ""
    agreement = f", top-1 {row.top1_agreement:.1%}" if row.top1_agreement is not None else ""
    return f"{row.drift.ratio - 1:+.2%}{bounds}{agreement}"


def _passed(row: Row) -> str:
    return "?" if row.passed is None else f"{row.passed} of {row.examples}"


def _pairs(row: Row) -> str:
    if row.is_reference:
        return "reference"
    if row.tasks is None:
        return "?"
    pairs = row.tasks
    return f"-{pairs.lost} +{pairs.gained} ({pairs.difference_lo * 100:+.1f} to {pairs.difference_hi * 100:+.1f} points, p = {pairs.p_value:.2g})"


def _verdict(row: Row) -> str:
    return "reference" if row.is_reference else row.verdict or "no margin"

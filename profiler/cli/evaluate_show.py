"""The table of `profile evaluate` in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from profiler.analyse.quality_words import lacking
from profiler.cli import harness_show
from profiler.cli.planning import PIPED_WIDTH

if TYPE_CHECKING:
    from profiler.analyse.quality_rows import Row

SHOWN_LOST = 6
ROUNDING = 1e-6  # nats: what is less comes from 32-bit floats


def show(rows: Sequence[Row], documents: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("backend", "variant", "perplexity", "to the reference", "KL, top-1", "passed", "to the reference", "verdict"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "backend")
    for row in rows:
        table.add_row(row.backend, row.variant, _perplexity(row), _drift(row), _near(row), _passed(row), _pairs(row), _verdict(row))
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
        found += [*_distributions(row), *(f"{row.backend}: {line}" for line in lacking(row, ("verdict",)))]
    found += [f"{document['backend']['name']}: {how['note']}" for document in documents if (how := document.get("determinism"))]
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
    return f"{row.drift.ratio - 1:+.2%}{bounds}"


def _near(row: Row) -> str:
    """KL in nats per token, and how often both find the same token most probable; their bounds are in the notes."""
    if row.is_reference:
        return "reference"
    return "?" if row.kl is None or row.top1 is None else f"{_nats(row.kl.value)}, {row.top1.value:.1%}"


def _nats(value: float) -> str:
    return f"{value:.2g}" if value >= ROUNDING else f"<{ROUNDING:.0e}"


def _distributions(row: Row) -> list[str]:
    """The bounds of KL and agreement, and all three figures after few and after many tokens."""
    found = []
    if row.kl is not None and row.top1 is not None:
        kl, top1 = row.kl, row.top1
        if kl.lo is not None and kl.hi is not None and top1.lo is not None and top1.hi is not None:
            found.append(f"KL {_nats(kl.lo)} to {_nats(kl.hi)} nats per token, top-1 {top1.lo:.1%} to {top1.hi:.1%}")
        if row.kl_per_token is not None:
            found.append(f"half of the tokens under {_nats(row.kl_per_token.p50)}, 1 % over {_nats(row.kl_per_token.p99)}")
    parts = []
    for part in row.by_position if len(row.by_position) > 1 else ():
        more = f", {_nats(part.kl.value)}, {part.top1.value:.1%}" if part.kl is not None and part.top1 is not None else ""
        parts.append(f"{part.first}-{part.last} {part.drift.ratio - 1:+.1%}{more}")
    if parts:
        found.append(f"by tokens before: {' | '.join(parts)}")
    return [f"{row.backend}: {'; '.join(found)}"] if found else []


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

"""What lm-evaluation-harness found, as a table and for --json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def as_json(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per backend what the document has, and why it has none."""
    return {one["backend"]["name"]: {key: one.get(key) for key in ("harness", "harness_reason")} for one in documents}


def show(console: Console, documents: Sequence[Mapping[str, Any]]) -> None:
    """One row per task and metric, one column per backend; nothing where it was not asked for."""
    from rich import box
    from rich.table import Table

    given = [one for one in documents if one.get("harness")]
    if given:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("task", "metric", "n", *(one["backend"]["name"] for one in given)):
            table.add_column(heading, overflow="fold")
        for task, metric in _lines(given):
            found = [one["harness"]["tasks"].get(task, {}).get(metric) for one in given]
            table.add_row(task, metric, str(next((f["n"] for f in found if f and f["n"]), "?")), *map(_figure, found))
        console.print(table)
    versions = sorted({one["harness"]["version"] for one in given})
    if versions:
        console.print(f"lm-evaluation-harness {', '.join(versions)}; ± is its standard error. It enters no verdict.")
    for one in documents:
        if one.get("harness") is None and one.get("harness_log"):
            console.print(f"{one['backend']['name']}: lm-evaluation-harness: {one['harness_reason']}")


def _lines(documents: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for one in documents:
        for task, metrics in one["harness"]["tasks"].items():
            found |= {(task, metric): None for metric in metrics}
    return list(found)


def _figure(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "?"
    return f"{found['value']:.4g}" + (f" ± {found['stderr']:.2g}" if found["stderr"] is not None else "")

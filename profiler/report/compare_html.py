"""A comparison as one page: offline, no script at all, text from anywhere escaped. The bounds are drawn as inline SVG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from profiler.analyse.compare import Compared, Comparison
from profiler.report import compare as words
from profiler.report import document

WIDTH, HEIGHT = 180, 30  # of a drawn interval, px


def write(found: Comparison, path: Path) -> Path:
    """Raises ReportError when the page cannot be written."""
    return document.write(render(found), path, "give another --html FILE")


def render(found: Comparison) -> str:
    by_cell: dict[str, list[tuple[Compared, list[str], dict[str, Any] | None]]] = {}
    for one in found.compared:
        by_cell.setdefault(one.cell, []).append((one, words.cells(one), drawn(one)))
    page = document.environment({}).get_template("compare.html")
    return page.render(
        found=found,
        cells=by_cell,
        headings=words.HEADINGS,
        remarks=words.remarks(found),
        how=words.HOW,
        confidence=f"{found.confidence * 100:.4g} %",
        style=document.asset("report.css"),
        policy=document.policy(),
        width=WIDTH,
        height=HEIGHT,
    )


def drawn(one: Compared) -> dict[str, Any] | None:
    """Where bounds, estimate, no change and limit lie, px; on a log scale for ratios. None where one of them has no place."""
    if one.lo is None or one.hi is None or one.ratio is None:
        return None
    if any(words.unbounded(one, x) for x in (one.lo, one.hi, one.ratio, one.limit)):
        return None
    none = 0.0 if one.metric == "error_rate" else 1.0

    def scale(x: float) -> float:
        return x if one.metric == "error_rate" else math.log(x)

    marks = [scale(x) for x in (one.lo, one.hi, one.ratio, none, one.limit)]
    low, high = min(marks), max(marks)
    room = (high - low) * 0.06 or 0.01
    at = [(x - low + room) / (high - low + 2 * room) * WIDTH for x in marks]
    names = ("lo", "hi", "ratio", "none", "limit")
    described = f"change {words.change(one, one.ratio)}, bounds {words.interval(one, one.lo, one.hi)}, limit {one.rule}"
    return dict(zip(names, (round(x, 1) for x in at), strict=True)) | {"described": described}

"""A comparison as one page: offline, no script at all, text from anywhere escaped. The bounds are drawn as inline SVG."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

from profiler.analyse.compare import Compared, Comparison
from profiler.errors import ReportError
from profiler.report import compare as words

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
WIDTH, HEIGHT = 180, 30  # of a drawn interval, px


def write(found: Comparison, path: Path) -> Path:
    """Raises ReportError when the page cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(found), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path}: cannot be written: {error.strerror}", hint="give another --html FILE") from error
    return path


def render(found: Comparison) -> str:
    from jinja2 import Environment, StrictUndefined

    page = resources.files("profiler.report") / "page"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    by_cell: dict[str, list[tuple[Compared, list[str], dict[str, Any] | None]]] = {}
    for one in found.compared:
        by_cell.setdefault(one.cell, []).append((one, words.cells(one), drawn(one)))
    return environment.from_string((page / "compare.html").read_text(encoding="utf-8")).render(
        found=found,
        cells=by_cell,
        headings=words.HEADINGS,
        remarks=words.remarks(found),
        how=words.HOW,
        confidence=f"{found.confidence * 100:.4g} %",
        style=(page / "report.css").read_text(encoding="utf-8"),
        policy=POLICY,
        width=WIDTH,
        height=HEIGHT,
    )


def drawn(one: Compared) -> dict[str, Any] | None:
    """Where bounds, estimate, no change and limit lie, px; on a log scale for ratios. None without bounds."""
    if one.lo is None or one.hi is None or one.ratio is None:
        return None
    none = 0.0 if one.metric == "error_rate" else 1.0

    def scale(x: float) -> float:
        return x if one.metric == "error_rate" else math.log(x)

    marks = [scale(x) for x in (one.lo, one.hi, one.ratio, none, one.limit)]
    low, high = min(marks), max(marks)
    room = (high - low) * 0.06 or 0.01
    at = [(x - low + room) / (high - low + 2 * room) * WIDTH for x in marks]
    names = ("lo", "hi", "ratio", "none", "limit")
    described = (
        f"change {words.change(one, one.ratio)}, bounds {words.change(one, one.lo)} to {words.change(one, one.hi)}, limit {one.rule}"
    )
    return dict(zip(names, (round(x, 1) for x in at), strict=True)) | {"described": described}

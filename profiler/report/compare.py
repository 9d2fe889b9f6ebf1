"""A comparison in words: for a terminal, as Markdown for a pull request, as plain data for `--json`."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from profiler.analyse.compare import Compared, Comparison
from profiler.analyse.compare_rules import percent
from profiler.report.money import finite
from profiler.units import format_duration, format_size

if TYPE_CHECKING:
    from rich.table import Table

NONE = "—"
UNBOUNDED = "no bound"
NOTHING = "none"  # no change is large enough to be detected
MARKS = {"regression": "✗ regression", "within": "✓ within", "inconclusive": "? inconclusive"}
COLOURS = {"regression": "red", "within": "green", "inconclusive": "yellow"}
HEADINGS = ("rule", "outcome", "base", "new", "change", "bounds", "resampled", "detectable", "starts", "p", "why")
FORMAT_VERSION = 1
HOW = (
    "Bounds hold each alone with the confidence, by Welch's t over engine starts on the log scale; resampled: starts, then requests. Detectable: the true "
    "change that would be proven beyond the limit in 80 % of cases with starts like these. p: of the regression, by Holm over all rows."
)


def plain(found: Comparison) -> dict[str, Any]:
    """Everything, for `--json`; NaN and infinity do not occur: where there is no upper bound it is None."""
    content: dict[str, Any] = finite(asdict(found))
    content["refused"] = [{"cell": cell, "reason": why} for cell, why in found.refused]
    return {"format": "slm-profiler comparison", "version": FORMAT_VERSION, "exit_code": found.exit_code, **content}


def change(one: Compared, value: float | None) -> str:
    """A ratio as `+5.1%`; of an error rate a difference in percentage points. `no bound` for infinity, and for a ratio of 0, its counterpart."""
    if value is None:
        return NONE
    if unbounded(one, value):
        return UNBOUNDED
    return f"{value * 100:+.3g}pp" if one.metric == "error_rate" else percent(value)


def unbounded(one: Compared, value: float) -> bool:
    """Whether an end of an interval is no bound at all; a share may well differ by 0."""
    return not math.isfinite(value) or (value <= 0 and one.metric != "error_rate")


def interval(one: Compared, lo: float | None, hi: float | None) -> str:
    """`+1% to +9%`; `no bound` once where neither end has one."""
    if lo is None or hi is None:
        return NONE
    return UNBOUNDED if unbounded(one, lo) and unbounded(one, hi) else f"{change(one, lo)} to {change(one, hi)}"


def figure(one: Compared, value: float | None) -> str:
    if value is None:
        return NONE
    if one.unit == "s":
        return format_duration(value)
    if one.unit == "bytes":
        return format_size(value)
    return f"{value:.2%}" if one.metric == "error_rate" else f"{value:.4g} {one.unit}"


def cells(one: Compared) -> list[str]:
    """The row of a table, in the order of HEADINGS."""
    bounds, resampled = interval(one, one.lo, one.hi), interval(one, one.resampled_lo, one.resampled_hi)
    p = NONE if one.p_regression_holm is None else "<0.0001" if one.p_regression_holm < 1e-4 else f"{one.p_regression_holm:.2g}"
    starts = f"{one.starts[0]} | {one.starts[1]}"
    shown = [one.rule, MARKS[one.outcome], figure(one, one.base), figure(one, one.new), change(one, one.ratio), bounds, resampled]
    detectable = NOTHING if one.detectable is not None and unbounded(one, one.detectable) else change(one, one.detectable)
    return [*shown, detectable, starts, p, why(one)]


def why(one: Compared) -> str:
    """The reason, and what of a start's spread its requests make."""
    if one.start_cv is None or one.metric == "error_rate":
        return one.reason
    text = f"{one.reason}; starts differ by {one.start_cv[0]:.1%} | {one.start_cv[1]:.1%}"
    return text + (f", {one.within_cv[0]:.1%} | {one.within_cv[1]:.1%} by their requests alone" if one.within_cv else "")


def remarks(found: Comparison) -> list[tuple[str, list[str]]]:
    """(heading, lines) of what a reader must know beside the table."""
    parts = [
        ("What else differs", list(found.changed)),
        ("Refused", [f"{cell}: {reason}" for cell, reason in found.refused]),
        ("Only in base", list(found.only_base)),
        ("Only in new", list(found.only_new)),
        ("Quality", [change.text for change in found.quality]),
        ("Set aside", [f"{found.set_aside} runs: failed, invalid or disturbed"] if found.set_aside else []),
    ]
    return [(heading, lines) for heading, lines in parts if lines]


def render(found: Comparison) -> list[Any]:
    """Rich renderables: a table per cell, the remarks, the answer last."""
    from rich.markup import escape

    parts: list[Any] = [f"base [bold]{escape(found.base)}[/], new [bold]{escape(found.new)}[/]", ""]
    for cell in dict.fromkeys(one.cell for one in found.compared):
        rows = [one for one in found.compared if one.cell == cell]
        parts.append(_table(cell, rows))
        parts += [f"  {escape(one.metric)}: {escape(why(one))}" for one in rows]
        parts.append("")
    for heading, lines in remarks(found):
        parts += [f"[magenta]{heading}[/]: {escape(line)}" for line in lines]
    return [*parts, f"[dim]{escape(HOW)}[/]", "", f"[bold {COLOURS[found.outcome]}]{escape(found.reason)}[/]"]


def _table(cell: str, rows: list[Compared]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(cell), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in HEADINGS[:-1]:
        table.add_column(name, justify="left" if name in ("rule", "outcome") else "right")
    for one in rows:
        shown = [escape(text) for text in cells(one)[:-1]]
        shown[1] = f"[{COLOURS[one.outcome]}]{shown[1]}[/]"
        table.add_row(*shown)
    return table


def markdown(found: Comparison) -> str:
    """A section for a CI summary or a pull request. Text of models and backends stands in code marks or is escaped."""
    lines = [f"## {MARKS[found.outcome].split()[0]} {_safe(found.reason)}", "", f"base `{_code(found.base)}`, new `{_code(found.new)}`", ""]
    for cell in dict.fromkeys(one.cell for one in found.compared):
        lines += [f"**{_safe(cell)}**", "", "| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
        lines += ["| " + " | ".join(_safe(text) for text in cells(one)) + " |" for one in found.compared if one.cell == cell]
        lines.append("")
    for heading, items in remarks(found):
        lines += [f"{heading}:", "", *(f"* {_safe(item)}" for item in items), ""]
    return "\n".join([*lines, HOW, ""])


def _safe(text: str) -> str:
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, "\\" + sign) if sign != "<" else text.replace(sign, "&lt;")
    return " ".join(text.split())


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())

"""The figures of quality: drift by variant with its bounds, and what a smaller variant gives in goodput or costs against what it loses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from profiler.report.figures import DASHES, PALETTE, Figure, layout, named, of_trace
from profiler.report.selection import label

if TYPE_CHECKING:
    from profiler.analyse.fit import Answer, Candidate
    from profiler.analyse.quality_rows import Row
    from profiler.report.selection import Selection

BOUNDS = "Bars: one-sided 95 % bounds over windows."


def all_of(selection: Selection) -> list[Figure]:
    made = [_drift(selection), *(_against_goodput(selection, workload) for workload in selection.workloads)]
    return [figure for figure in made if figure is not None]


def of_answer(answer: Answer, workload: str) -> list[Figure]:
    """With a planner's answer: cost against quality."""
    found = _against_cost(answer.of(workload), workload, answer.workloads.index(workload))
    return [found] if found is not None else []


def _drift(selection: Selection) -> Figure | None:
    """One line per variant that was compared, the reference at zero."""
    import plotly.graph_objects as go

    own = [(name, s.row) for name, s in selection.standings.items() if s.row is not None and _ratio(s.row) is not None]
    if not any(row.drift is not None for _, row in own):
        return None
    plot, words = go.Figure(), []
    for name, row in reversed(own):
        run = next(each for each in selection.rows if each["backend"] == name)
        number = selection.backends.index(name)
        plot.add_trace(_point([_ratio(row)], [named(name)], row, number, name, of_trace(run), axis="x"))
        words.append(f"{name}: {_told(row)}")
    layout(plot, "drift of the perplexity", "")
    plot.update_layout(showlegend=False)
    plot.update_xaxes(tickformat="+.1%")
    if selection.margins.drift_margin is not None:
        plot.add_vline(x=selection.margins.drift_margin, line={"dash": "dot", "width": 1.5, "color": "#888"})
    margin = " Dotted: the margin." if selection.margins.drift_margin is not None else ""
    n = next(row.drift for _, row in own if row.drift is not None)
    caption = f"How much higher the perplexity is than the reference's, on the same {n.tokens:,} tokens in {n.windows} windows. {BOUNDS}{margin} Less is better."
    return Figure("quality-drift", "Drift by variant", caption, f"Drift. {'; '.join(words)}.", plot)


def _against_goodput(selection: Selection, workload: str) -> Figure | None:
    """The highest goodput of each backend under one workload against its drift."""
    import plotly.graph_objects as go

    points = []
    for name, standing in selection.standings.items():
        rows = [
            r for r in selection.of(workload, name) if r["status"] == "done" and r["validity"] != "invalid" and r["goodput"] is not None
        ]
        if standing.row is not None and _ratio(standing.row) is not None and rows:
            points.append((name, standing.row, max(rows, key=lambda r: r["goodput"])))
    if len(points) < 2:
        return None
    plot = go.Figure()
    for name, row, run in points:
        number = selection.backends.index(name)
        trace = _point([run["goodput"]], [_ratio(row)], row, number, name, of_trace(run), axis="y")
        trace.customdata = [[label(run), run["run_id"]]]
        trace.hovertemplate = "%{x:.3g} requests/s at %{customdata[0]}<br>%{y:+.2%}"
        plot.add_trace(trace)
    front = _front([(name, -run["goodput"], _ratio(row) or 0.0) for name, row, run in points])
    _line(plot, sorted((run["goodput"], _ratio(row)) for name, row, run in points if name in front))
    layout(plot, "highest goodput, requests/s", "drift of the perplexity")
    plot.update_yaxes(tickformat="+.1%")
    words = "; ".join(f"{name}: {run['goodput']:.3g}/s at {label(run)}, {_told(row)}" for name, row, run in points)
    caption = f"Right and low is good. On the front, where no other has as much goodput and as little drift: {', '.join(front)}; by the estimates. {BOUNDS}"
    return Figure(f"quality-goodput-{workload}", f"{workload}: goodput and quality", caption, f"Goodput and drift. {words}.", plot)


def _against_cost(own: Sequence[Candidate], workload: str, number: int) -> Figure | None:
    """Cost of 1,000 requests of each one's cheapest offer against its drift."""
    import plotly.graph_objects as go

    points = [
        (c.name, c.quality.row, c.cheapest.points[0].per_1k_requests, c.cheapest.offer.currency, c)
        for c in own
        if c.cheapest is not None and c.quality.row is not None and _ratio(c.quality.row) is not None
    ]
    if len(points) < 2:
        return None
    plot = go.Figure()
    for k, (name, row, cost, _, c) in enumerate(points):
        plot.add_trace(_point([cost], [_ratio(row)], row, k, name, of_trace(c.row), axis="y"))
    front = _front([(name, cost, _ratio(row) or 0.0) for name, row, cost, _, _ in points])
    _line(plot, sorted((cost, _ratio(row)) for name, row, cost, _, _ in points if name in front))
    layout(plot, f"{points[0][3]} per 1,000 requests", "drift of the perplexity")
    plot.update_yaxes(tickformat="+.1%")
    words = "; ".join(f"{name}: {cost:.3g} {currency}, {_told(row)}" for name, row, cost, currency, _ in points)
    caption = f"Left and low is good. On the front, where no other costs as little and drifts as little: {', '.join(front)}; by the estimates, at the demand. {BOUNDS}"
    return Figure(f"money-quality-{number}", "Cost and quality", caption, f"Cost and drift. {words}.", plot)


def _point(x: list[Any], y: list[Any], row: Row, number: int, name: str, meta: dict[str, str], axis: str) -> Any:
    import plotly.graph_objects as go

    colour = PALETTE[number % len(PALETTE)]
    found = row.drift
    bars: dict[str, Any] = {}
    if found is not None and found.ratio_lo is not None and found.ratio_hi is not None:
        ends = {"array": [found.ratio_hi - found.ratio], "arrayminus": [found.ratio - found.ratio_lo]}
        bars = {f"error_{axis}": {"type": "data", **ends, "thickness": 1.5, "width": 5}}
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        cliponaxis=False,
        marker={"size": 11, "color": colour, "symbol": "circle-open" if row.is_reference else "circle", "line": {"width": 2}},
        name=named(name) + (" (reference)" if row.is_reference else ""),
        meta=meta,
        **bars,
    )


def _line(plot: Any, points: list[Any]) -> None:
    import plotly.graph_objects as go

    if len(points) > 1:
        xs, ys = zip(*points, strict=True)
        line = {"dash": DASHES[2], "width": 1.5, "color": "#888"}
        plot.add_trace(go.Scatter(x=list(xs), y=list(ys), mode="lines", line=line, name="front", hoverinfo="skip"))


def _front(points: list[tuple[str, float, float]]) -> list[str]:
    """Names of those that no other equals or beats in both and beats in one; less is better."""
    return [a for a, *x in points if not any(y != x and y[0] <= x[0] and y[1] <= x[1] for _, *y in points)]


def _ratio(row: Row) -> float | None:
    if row.is_reference and row.perplexity is not None:
        return 0.0
    return row.drift.ratio - 1 if row.drift is not None and math.isfinite(row.drift.ratio) else None


def _told(row: Row) -> str:
    from profiler.analyse.quality_words import drift_words

    return drift_words(row)

"""Goodput against load: how many requests per second keep every threshold of the target, with the exact bounds of their share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.analyse.percentiles import ALPHA, share_lower, share_upper
from profiler.report.figures import SYMBOLS, Figure, layout, line_of, named, of_trace, span
from profiler.report.selection import Row, Selection, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

LOOPS = {"concurrency": ("closed loop", "concurrent users"), "rate": ("open loop", "offered requests/s")}


def all_of(selection: Selection, workload: str) -> dict[str, list[Figure]]:
    """The figures of one workload: "goodput", one for each loop, because their loads are different quantities."""
    found = [against_load(selection, workload, kind) for kind in LOOPS]
    return {"goodput": [figure for figure in found if figure is not None]}


def against_load(selection: Selection, workload: str, kind: str) -> Figure | None:
    """Goodput of every run of one loop; None without a target, and where no run has one."""
    import plotly.graph_objects as go

    rows = [row for row in selection.of(workload) if row["load_kind"] == kind and _known(row)]
    if not rows:
        return None
    plot = go.Figure()
    for number, backend in enumerate(selection.backends):
        own = [row for row in rows if row["backend"] == backend]
        if own:
            plot.add_trace(_trace(own, backend, kind, number))
    if kind == "rate":
        top = max(row["load"] for row in rows)
        plot.add_trace(go.Scatter(x=[0, top], y=[0, top], mode="lines", line={"dash": "dot", "width": 1, "color": "#888"}, name="all of them", hoverinfo="skip"))  # fmt: skip
    loop, axis = LOOPS[kind]
    layout(plot, axis, "goodput, requests/s")
    plot.update_yaxes(rangemode="tozero")
    if kind == "concurrency":
        plot.update_xaxes(tickvals=sorted({row["load"] for row in rows}))
    n = span(sorted(row["n_cohort"] for row in rows))
    beyond = " Dotted: every offered request." if kind == "rate" else ""
    caption = (
        f"Requests of the cohort that keep every threshold of {selection.qos(workload)}, per second of the window, {loop}. "
        f"Bars: exact 95 % bounds of their share.{beyond} n per point {n} requests."
    )
    told = "; ".join(f"{r['backend']} at {label(r)}: {r['goodput']:.3g}/s of {r['n_cohort'] / r['window_s']:.3g}/s" for r in rows)
    return Figure(f"goodput-{workload}-{kind}", f"{workload}: goodput, {loop}", caption, f"Goodput. {told}.", plot)


def _known(row: Row) -> bool:
    return row["status"] == "done" and row["validity"] != "invalid" and row["goodput"] is not None and bool(row["n_cohort"])


def _trace(own: list[Row], backend: str, kind: str, number: int) -> go.Scatter:
    import plotly.graph_objects as go

    line = line_of(number)
    bounds = [_bounds(row) for row in own]
    bars: dict[str, Any] = {
        "type": "data",
        "array": [hi - row["goodput"] for row, (_, hi) in zip(own, bounds, strict=True)],
        "arrayminus": [row["goodput"] - lo for row, (lo, _) in zip(own, bounds, strict=True)],
        "thickness": 1,
        "width": 3,
    }
    return go.Scatter(
        x=[row["load"] for row in own],
        y=[row["goodput"] for row in own],
        error_y=bars,
        mode="lines+markers",
        line=line,
        marker={"symbol": SYMBOLS[kind], "size": 9, "color": line["color"]},
        name=named(backend),
        meta=of_trace(own[0]),
        customdata=[[f"{row['qos_result']}, {row['validity']}, n {row['n_cohort']}", row["run_id"]] for row in own],
        hovertemplate="%{x:g}: %{y:.3g} requests/s<br>%{customdata[0]}",
    )


def _bounds(row: Row) -> tuple[float, float]:
    """Goodput if the share of the cohort that keeps the target were at its two-sided exact bounds."""
    n, rate = int(row["n_cohort"]), row["n_cohort"] / row["window_s"]
    good = min(n, round(row["goodput"] * row["window_s"]))
    return share_lower(good, n, ALPHA / 2) * rate, share_upper(good, n, ALPHA / 2) * rate

"""The figures of a report as plotly figures. Each comes with a caption that says what is drawn, how it is defined, and of how many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.report.selection import Row, Selection, label
from profiler.units import format_duration

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito's palette (jfly.uni-koeln.de/color, 2008), told apart by colour-blind readers too; its yellow and its sky blue are darkened until
# every colour has a contrast of 3 with white and with the dark ground (WCAG 2.2, 1.4.11). Dashes tell the lines apart as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A87400", "#3D93C9")
SYMBOLS = {"concurrency": "circle", "rate": "diamond"}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# Whole numbers at 1, 2 and 5 of each decade: plotly's own labels leave the zeros out.
_MARKS = [mark * 10**power for power in range(-3, 7) for mark in (1, 2, 5)]
LOG_TICKS = {"tickvals": _MARKS, "ticktext": [f"{mark:,.12g}" for mark in _MARKS]}
METRICS = {"ttft": ("TTFT", "ttft_sched"), "tpot": ("TPOT", "tpot")}
N_UNKNOWN = "n not stated by the source"
DISTRIBUTION_POINTS = 400  # of a curve that has more: a screen shows no more
ROWS = 2  # of a legend, of one name each, that a plot has room for


@dataclass(frozen=True)
class Figure:
    """`title` stands above, `caption` (definition and n) below; `description` is for readers who do not see the picture.

    A trace's `meta` says of which model and backend it is, for the page's filters; the last item of a point's `customdata` is its run_id, or `meta` has the `run`.
    """

    key: str
    title: str
    caption: str
    description: str
    plot: go.Figure

    @property
    def more_rows(self) -> int:
        """Of the legend, beyond ROWS: the page makes the plot so much higher, or the legend would take its room."""
        return max(0, sum(trace.showlegend is not False for trace in self.plot.data) - ROWS)


def throughput_latency(selection: Selection, workload: str, metric: str) -> Figure | None:
    """p95 of `metric` against output tokens/s: one line per backend through its closed loops, open loops as diamonds."""
    import plotly.graph_objects as go

    name, column = METRICS[metric]
    rows = [row for row in selection.of(workload) if row["status"] == "done" and row["validity"] != "invalid"]
    rows = [row for row in rows if row[f"{column}_p95_s"] is not None and row["output_tps"] is not None]  # an import may lack either
    if not rows:
        return None
    plot = go.Figure()
    for number, backend in enumerate(selection.backends):
        own = [row for row in rows if row["backend"] == backend]
        for kind, symbol in SYMBOLS.items():
            points = [row for row in own if row["load_kind"] == kind]
            if points:
                plot.add_trace(_curve(points, backend, kind, symbol, number, f"{column}_p95_s"))
    layout(plot, "output tokens/s", f"{name} p95, ms", y_type="log")
    _mark_limit(plot, selection.qos(workload), metric)
    caption = (
        f"{name} p95 ({'from the intended send: what a user waits' if metric == 'ttft' else 'time per output token after the first read'}) "
        f"against output tokens arriving per second. Circles: closed loop, labelled with concurrent users; diamonds: open loop (Poisson), "
        f"labelled with requests/s. Bars: exact 95 % bounds. Logarithmic upwards. {answered(rows)}."
    )
    return Figure(
        f"curve-{workload}-{metric}", f"{workload}: {name} against throughput", caption, _describe_curve(rows, name, column), plot
    )


def distribution(selection: Selection, workload: str, metric: str, load: tuple[str, float]) -> Figure | None:
    """Empirical distribution of `metric` at one load, a step curve per backend; requests that failed are the share above the curve."""
    import numpy as np
    import plotly.graph_objects as go

    name, column = METRICS[metric]
    rows = [row for row in selection.done if (row["workload"], row["load_kind"], row["load"]) == (workload, *load)]
    if not rows:
        return None
    plot = go.Figure()
    counts = []
    for row in rows:
        values, n = selection.cohort_values(row["run_id"], f"{column}_s", vacuous=metric == "tpot")
        if values:
            line = line_of(selection.backends.index(row["backend"]), 2 if row["repeat"] == 0 else 1)
            line["shape"] = "hv"
            # Not lists: plotly looks at every number of one, and writes it as text, three times as long as seven digits in base64.
            x, y = (np.asarray(axis, np.float32) for axis in thinned(values, n))
            meta = {**of_trace(row), "run": row["run_id"]}
            counts.append(row["n_cohort"] if row["n_cohort"] is not None else n)
            plot.add_trace(go.Scatter(x=x, y=y, mode="lines", line=line, name=_legend(row), meta=meta))
    if not plot.data:
        return None
    _mark_limit(plot, selection.qos(workload), metric, vertical=True)
    layout(plot, f"{name}, ms", "share of requests")
    plot.update_yaxes(range=[0, 1.02], tickformat=".0%")
    plot.update_xaxes(rangemode="tozero")
    counts.sort()
    where = selection.load_words(workload, load)
    cut = f"; drawn with at most {DISTRIBUTION_POINTS} steps, both ends kept" if counts[-1] > DISTRIBUTION_POINTS else ""
    caption = f"Share of the cohort with a {name} of at most x, at {where}. n per curve {span(counts)} requests{cut}."
    spread = "; ".join(
        f"{row['backend']}: p50 {format_duration(row[f'{column}_p50_s'])}, p95 {format_duration(row[f'{column}_p95_s'])}" for row in rows
    )
    key = f"distribution-{workload}-{metric}-{load[0]}-{load[1]:g}".replace(".", "_")
    return Figure(key, f"{name} at {where}", caption, f"Distribution of {name}. {spread}.", plot)


def thinned(values: Sequence[float], n: int) -> tuple[list[float], list[float]]:
    """The step curve through sorted `values` (s) of a cohort of `n`, in ms, cut to DISTRIBUTION_POINTS; extremes stay."""
    step = max(1, -(-len(values) // DISTRIBUTION_POINTS))
    chosen = sorted({0, len(values) - 1, *range(step - 1, len(values), step)})
    return [0.0, *(values[i] * 1e3 for i in chosen)], [0.0, *((i + 1) / n for i in chosen)]


def of_trace(row: Row) -> dict[str, str]:
    """What the page's filters ask of a trace."""
    return {"model": str(row["model"]), "backend": str(row["backend"])}


def line_of(number: int, width: float = 2) -> dict[str, Any]:
    """Colour and dash of the `number`-th backend: the same in every figure."""
    return {"color": PALETTE[number % len(PALETTE)], "dash": DASHES[number % len(DASHES)], "width": width}


def named(text: object) -> str:
    """Text for a legend or an annotation, where plotly would read `<b>` as markup and `&lt;` as `<`."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;")


def limit_words(seconds: float) -> str:
    """`500 ms`, `1.5 s`: a limit has no decimals that nobody wrote."""
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def span(counts: Sequence[int]) -> str:
    """`60`, `60–75`: of sorted counts."""
    return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]}–{counts[-1]}"


def with_n(row: Row) -> str:
    """`n 60`; imported figures may come without it."""
    return f"n {row['n_requests']}" if row["n_requests"] is not None else N_UNKNOWN


def answered(rows: Sequence[Row]) -> str:
    """`n per point 60–75 requests`, of runs that are drawn as a point each."""
    known = sorted(row["n_requests"] for row in rows if row["n_requests"] is not None)
    if not known:
        return N_UNKNOWN
    rest = f", {len(rows) - len(known)} of {len(rows)} points: {N_UNKNOWN}" if len(known) < len(rows) else ""
    return f"n per point {span(known)} requests{rest}"


def _curve(points: Sequence[Row], backend: str, kind: str, symbol: str, number: int, column: str) -> go.Scatter:
    import plotly.graph_objects as go

    unit = "users" if kind == "concurrency" else "/s"
    line = line_of(number)
    value = [row[column] * 1e3 for row in points]
    upper = [((row[f"{column}_hi"] or row[column]) - row[column]) * 1e3 for row in points]
    lower = [(row[column] - (row[f"{column}_lo"] or row[column])) * 1e3 for row in points]
    notes = [[f"{row['qos_result'] or 'not judged'}, {row['validity']}, {with_n(row)}", row["run_id"]] for row in points]
    return go.Scatter(
        x=[row["output_tps"] for row in points],
        y=value,
        error_y={"type": "data", "array": upper, "arrayminus": lower, "thickness": 1, "width": 3},
        mode="lines+markers+text" if kind == "concurrency" else "markers+text",
        line=line,
        marker={"symbol": symbol, "size": 9, "color": line["color"]},
        text=[f"{row['load']:g}" + ("/s" if kind == "rate" else "") for row in points],
        textposition="top center",
        cliponaxis=False,
        name=named(backend) if kind == "concurrency" else f"{named(backend)}, open loop",
        meta=of_trace(points[0]),
        customdata=notes,
        hovertemplate="%{text} " + ("users" if unit == "users" else "") + "<br>%{x:.0f} tokens/s, %{y:.1f} ms<br>%{customdata[0]}",
    )


def _mark_limit(plot: go.Figure, qos: str | None, metric: str, vertical: bool = False) -> None:
    """A dotted line at the target's limit on this metric, if it has one."""
    from profiler.analyse.qos import parse

    limits = [limit for c in parse(qos).constraints for limit in c.limits if limit.metric == metric] if qos else []
    for limit in limits:
        at, text = limit.limit_s * 1e3, f"limit {limit_words(limit.limit_s)}"
        line = {"dash": "dot", "width": 1.5, "color": "#888"}
        if vertical:
            plot.add_vline(x=at, line=line)
            plot.add_annotation(x=at, y=0.04, yref="paper", text=text, showarrow=False, xanchor="right", xshift=-3, font={"size": 11})
        else:  # on a logarithmic axis a line stands at its value, an annotation at its logarithm
            plot.add_hline(y=at, line=line)
            plot.add_annotation(y=math.log10(at), x=0, xref="paper", text=text, showarrow=False, xanchor="left", yanchor="bottom", font={"size": 11})  # fmt: skip


def layout(plot: go.Figure, x: str, y: str, y_type: str | None = None) -> None:
    """Grounds are transparent and colours of text and grid are the page's own, so that one figure serves light, dark and paper."""
    plot.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 62, "r": 12, "t": 14, "b": 46},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        font={"size": 12},
        hovermode="closest",
        xaxis={"title": {"text": x}, "rangemode": "tozero", "automargin": True},
        yaxis={"title": {"text": y}, "automargin": True, **({"type": y_type, **LOG_TICKS} if y_type else {})},
    )


def _legend(row: Row) -> str:
    return named(row["backend"]) + (f" · repeat {row['repeat']}" if row["repeat"] else "")


def _describe_curve(rows: Sequence[Row], name: str, column: str) -> str:
    parts = [
        f"{row['backend']} at {label(row)}: {row['output_tps']:.0f} tokens/s, {format_duration(row[f'{column}_p95_s'])}" for row in rows
    ]
    return f"{name} p95 against throughput. " + "; ".join(parts) + "."


def all_of(selection: Selection, workload: str) -> dict[str, list[Figure]]:
    """The figures of one workload: "curves" and "distributions"."""
    curves: list[Any] = [throughput_latency(selection, workload, metric) for metric in METRICS]
    spread: list[Any] = [distribution(selection, workload, metric, load) for metric in METRICS for load in selection.loads(workload)]
    return {"curves": [f for f in curves if f], "distributions": [f for f in spread if f]}

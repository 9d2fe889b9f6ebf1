"""The report's figures as plotly figures, one call each; title above, caption with definition and n below.

They are made by the report's own functions, so that a notebook and a report of the same runs never differ.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Literal, Unpack

from profiler.errors import ReportError, UnknownNameError, UsageError

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from profiler.frames.money import Options
    from profiler.frames.results import Results
    from profiler.report.figures import Figure
    from profiler.report.selection import Selection

HEIGHT_PX = 400
LINE_PX = 15
CAPTION_CHARACTERS = 135
Metric = Literal["ttft", "tpot"]


class Plot:
    """`workload` may be left out where the runs have only one. Raises UsageError, or ReportError where there is nothing to draw."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def throughput_latency(self, metric: Metric = "ttft", workload: str | None = None) -> go.Figure:
        """p95 of `metric` against output tokens/s, a line per backend."""
        from profiler.report import figures

        if metric not in figures.METRICS:
            raise UnknownNameError("metric of this figure", metric, figures.METRICS)
        chosen, name = self._of(workload)
        return shown(figures.throughput_latency(chosen, name, metric), f"{metric} against throughput")

    def distribution(
        self, metric: Metric = "ttft", *, users: int | None = None, rate: float | None = None, workload: str | None = None
    ) -> go.Figure:
        """Distribution of `metric` in the cohort at one load: so many `users` (closed loop) or a `rate` in requests/s (open loop)."""
        from profiler.report import figures

        if metric not in figures.METRICS:
            raise UnknownNameError("metric of this figure", metric, figures.METRICS)
        if (users is None) == (rate is None):
            raise UsageError("a distribution is of one load", hint="give users=4 or rate=0.5")
        chosen, name = self._of(workload)
        load = ("concurrency", float(users)) if users is not None else ("rate", float(rate or 0))
        if load not in chosen.loads(name):
            known = ", ".join(f"{'users' if kind == 'concurrency' else 'rate'}={value:g}" for kind, value in chosen.loads(name))
            raise UsageError(f"{name}: no run at {load[1]:g} {'users' if users is not None else 'requests/s'}", hint=f"measured: {known}")
        return shown(figures.distribution(chosen, name, metric, load), f"the distribution of {metric}")

    def telemetry(self, workload: str | None = None) -> go.Figure:
        """Power over time, or where nothing told it the engine's CPU cores; the window marked."""
        from profiler.report import telemetry

        chosen, name = self._of(workload)
        return shown(telemetry.over_time(chosen, name), "telemetry: nothing was sampled")

    def attainment(self, qos: str, demand: str | None = None, **options: Unpack[Options]) -> go.Figure:
        """Share of requests that keeps the target against load, with bounds and λ*."""
        return self._money("money-attainment", qos, demand, options)

    def cost_at_demand(self, qos: str, demand: str | None = None, **options: Unpack[Options]) -> go.Figure:
        """Cost of a month against demand, in whole offers; crossings marked."""
        return self._money("money-demand", qos, demand, options)

    def idle(self, qos: str, demand: str, **options: Unpack[Options]) -> go.Figure:
        """What of a month is used, idle, spare, left over."""
        return self._money("money-idle", qos, demand, options)

    def sensitivity(self, qos: str, demand: str | None = None, **options: Unpack[Options]) -> go.Figure:
        """Which input moves the cost most."""
        return self._money("money-tornado", qos, demand, options)

    def imported(
        self, qos: str, what: Literal["throughput", "ttft", "tpot", "e2e"] = "throughput", **options: Unpack[Options]
    ) -> go.Figure:
        """Imported figures: throughput and its knee, or a mean against the offered rate."""
        return self._money(f"imported-{what}", qos, None, options)

    def all(self, workload: str | None = None) -> dict[str, go.Figure]:
        """Every figure of the report's section of a workload, by the report's key."""
        from profiler.report import figures, telemetry

        chosen, name = self._of(workload)
        groups = [*figures.all_of(chosen, name).values(), *telemetry.all_of(chosen, name).values()]
        return {figure.key: shown(figure, figure.title) for group in groups for figure in group}

    def _of(self, workload: str | None) -> tuple[Selection, str]:
        chosen = self._results.selection()
        by_name: dict[str, set[str]] = {}
        for row in chosen.rows:
            by_name.setdefault(row["backend"], set()).add(str(row["comparison_id"]))
        twice = [name for name, machines in by_name.items() if len(machines) > 1]
        if twice:
            hint = 'one figure is of one machine: r.where(comparison_id="…").plot; r.runs.comparison_id has them'
            raise UsageError(f"{', '.join(twice)}: runs of differing machines or settings", hint=hint)
        if workload is None and len(chosen.workloads) > 1:
            raise UsageError(f"runs of {len(chosen.workloads)} workloads", hint=f"give workload=: {', '.join(chosen.workloads)}")
        if workload is not None and workload not in chosen.workloads:
            raise UnknownNameError("workload among these runs", workload, chosen.workloads)
        return chosen, workload or chosen.workloads[0]

    def _money(self, key: str, qos: str, demand: str | None, options: Options) -> go.Figure:
        from profiler.report import money_figures

        answer = self._results.answer(qos, demand, **options)
        if len(answer.workloads) > 1:
            raise UsageError(f"runs of {len(answer.workloads)} workloads", hint=f"give workload=: {', '.join(answer.workloads)}")
        for figure in money_figures.all_of(answer, answer.workloads[0]):
            if figure.key.startswith(key):
                return shown(figure, key)
        raise ReportError(
            f"nothing to draw of {key.partition('-')[2]}", hint="the column `missing` of r.fit(QOS, demand) says what each lacks"
        )


def shown(figure: Figure | None, what: str) -> go.Figure:
    """A figure of the report as it stands alone: white ground, title, wrapped caption. Raises ReportError for none."""
    import plotly.graph_objects as go

    if figure is None:
        raise ReportError(f"nothing to draw for {what}", hint="r.runs says what was measured and r.latency() what is missing and why")
    plot = go.Figure(figure.plot)
    lines = textwrap.wrap(figure.caption, CAPTION_CHARACTERS)
    below = LINE_PX * len(lines)
    plot.update_layout(
        title={"text": f"<b>{figure.title}</b>", "x": 0, "xref": "paper", "font": {"size": 15}},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"color": "#222"},
        height=HEIGHT_PX + below,
        margin={"l": 70, "r": 20, "t": 90, "b": 74 + below},
        meta={"key": figure.key, "title": figure.title, "caption": figure.caption, "description": figure.description},
    )
    plot.update_xaxes(title_standoff=8, automargin=False, gridcolor="#ddd", zerolinecolor="#bbb", linecolor="#888")
    plot.update_yaxes(gridcolor="#ddd", zerolinecolor="#bbb", linecolor="#888")
    plot.add_annotation(
        text="<br>".join(lines), x=0, xref="paper", xanchor="left", y=0, yref="paper", yanchor="top", yshift=-64, showarrow=False, align="left",
        font={"size": 11, "color": "#555"},
    )  # fmt: skip
    return plot

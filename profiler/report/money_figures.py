"""The figures of the cost section: attainment against load, cost against demand, idle share, tornado."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from profiler.analyse.cost import HOURS_PER_MONTH
from profiler.analyse.fit import Answer, Candidate
from profiler.analyse.rightsize import passes
from profiler.report import published
from profiler.report.figures import PALETTE, Figure, layout

if TYPE_CHECKING:
    import plotly.graph_objects as go

RATES = 60  # points of a cost curve


def all_of(answer: Answer, workload: str) -> list[Figure]:
    own = answer.of(workload)
    number = answer.workloads.index(workload)
    made = [
        _attainment(own, workload, number),
        _against_demand(own, workload, number),
        _idle(own, workload, number),
        _tornado(own, workload, number),
    ]
    return [*published.figures(own, number), *(figure for figure in made if figure is not None)]


def _attainment(own: Sequence[Candidate], workload: str, number: int) -> Figure | None:
    """Share of requests that keep the constraint that is kept least, with its bounds, against load; λ* as a vertical line."""
    import plotly.graph_objects as go

    plot, words = go.Figure(), []
    for k, c in enumerate(own):
        colour = PALETTE[k % len(PALETTE)]
        for kind, symbol in (("rate", "diamond"), ("concurrency", "circle")):
            points = [(*_worst(v), p.load) for p in c.limits[kind].probes for v in p.verdicts.values()]  # type: ignore[index]
            if points:
                plot.add_trace(
                    go.Scatter(
                        x=[p[3] for p in points], y=[p[0] for p in points], mode="markers+lines" if kind == "concurrency" else "markers",
                        error_y={"type": "data", "array": [p[2] - p[0] for p in points], "arrayminus": [p[0] - p[1] for p in points], "width": 3},
                        marker={"color": colour, "symbol": symbol, "size": 9}, name=c.name + (" open loop" if kind == "rate" else ""),
                    )
                )  # fmt: skip
                words.append(f"{c.name}: " + ", ".join(f"{p[3]:g}: {p[0]:.0%}" for p in points))
        if c.range is not None:
            plot.add_vline(
                x=c.range.lower, line={"dash": "dash" if c.range.provenance == "predicted" else "solid", "color": colour, "width": 1.5}
            )
    if not plot.data:
        return None
    layout(plot, "load: requests/s (diamonds) or users (circles)", "share that keeps the target")
    plot.update_yaxes(range=[0, 1.03], tickformat=".0%")
    caption = (
        "Share of the cohort that keeps the constraint kept least, with its bounds. Vertical lines: the lower end of λ* in requests/s, solid where "
        "measured, dashed where predicted. Closed and open loops answer different questions."
    )
    return Figure(f"money-attainment-{number}", "Attainment against load", caption, f"Attainment. {'; '.join(words)}.", plot)


def _worst(verdict: Any) -> tuple[float, float, float]:
    """Attainment of the constraint that is kept least: estimate, lower, upper."""
    c = min(verdict.constraints, key=lambda c: (1 - (c.miss_share if c.miss_share is not None else 1.0)) / (1 - c.allowed_share))
    share = 1 - c.miss_share if c.miss_share is not None else 0.0
    return share, min(share, 1 - c.miss_hi), max(share, 1 - c.miss_lo)


def _against_demand(own: Sequence[Candidate], workload: str, number: int) -> Figure | None:
    """Month against demand, a staircase of whole offers by λ* (the replay may ask for more), hosted beside it; crossings are marked."""
    import plotly.graph_objects as go

    costed = [(c, c.cheapest) for c in own if c.cheapest is not None and c.span is not None]
    if not costed:
        return None
    top = 4 * max(c.span.lower for c, _ in costed if c.span is not None)
    rates = [top * (k + 1) / RATES for k in range(RATES)]
    plot = go.Figure()
    curves: list[tuple[str, list[float]]] = []
    dashes: list[str] = []  # one for each curve
    for c, best in costed:
        assert best is not None and c.span is not None
        lower, peak = c.span.lower, c.demand.peak if c.demand is not None else 1.0
        replicas = [max(1, math.ceil(rate * peak / lower - 1e-9)) for rate in rates]
        offers = [math.ceil(n / best.replicas_per_offer) for n in replicas]
        known = c.span.provenance == "measured"
        curves.append((c.name if known else f"{c.name} ({c.span.provenance})", [n * (best.monthly.total or 0.0) for n in offers]))
        dashes.append("solid" if known else "dash")
        if c.break_even is not None and all(name != c.break_even.api.name for name, _ in curves):
            hosted = [rate * HOURS_PER_MONTH * 3600 * c.break_even.api_per_1k / 1e3 for rate in rates]
            curves.append((c.break_even.api.name, hosted))
            dashes.append("solid")
    for k, ((name, values), dash) in enumerate(zip(curves, dashes, strict=True)):
        line = {"shape": "vh", "color": PALETTE[k % len(PALETTE)], "dash": dash}
        plot.add_trace(go.Scatter(x=rates, y=values, mode="lines", line=line, name=name))
    crossings = crossings_of(rates, curves)
    if crossings:
        plot.add_trace(
            go.Scatter(x=[x for x, _, _ in crossings], y=[y for _, y, _ in crossings], mode="markers", marker={"symbol": "x", "size": 8, "color": "#888"},
                       text=[text for _, _, text in crossings], name="crossing")
        )  # fmt: skip
    demand = next((c.demand for c, _ in costed if c.demand is not None), None)
    if demand is not None and demand.rate is not None and demand.rate <= top:
        plot.add_vline(x=demand.rate, line={"dash": "dot", "color": "#888"})
    currency = next(best.offer.currency for _, best in costed if best is not None)
    layout(plot, "demand, requests/s", f"{currency} a month")
    cross = f"{len(crossings)} crossings, marked" if crossings else "no curve crosses another in this range"
    caption = f"Whole offers by the lower end of λ* (a replay may ask for more), cheapest offer of each; {cross}. Dotted: the demand that was asked."
    if "dash" in dashes:
        caption += " Dashed: λ* is not measured; a crossing with such a curve is no surer than it."
    names = ", ".join(name for name, _ in curves)
    return Figure(f"money-demand-{number}", "Cost against demand", caption, f"Monthly cost against demand of {names}: {cross}.", plot)


def crossings_of(rates: Sequence[float], curves: Sequence[tuple[str, Sequence[float]]]) -> list[tuple[float, float, str]]:
    """Where the order of two curves changes: (rate, the dearer one's cost there, who passes whom)."""
    found = []
    for i, (a, ya) in enumerate(curves):
        for b, yb in curves[i + 1 :]:
            sign = 0.0
            for rate, va, vb in zip(rates, ya, yb, strict=True):
                now = math.copysign(1.0, va - vb) if va != vb else 0.0
                if now and sign and now != sign:
                    found.append((rate, max(va, vb), f"{a if now > 0 else b} begins to cost more than {b if now > 0 else a}"))
                sign = now or sign
    return found


def _idle(own: Sequence[Candidate], workload: str, number: int) -> Figure | None:
    import plotly.graph_objects as go

    costed = [(c, c.cheapest) for c in own if c.cheapest is not None and c.capacity is not None]
    if not costed:
        return None
    plot = go.Figure()
    names = [c.name for c, _ in costed]
    for k, part in enumerate(("used", "idle", "spare", "left_over")):
        values = [getattr(best, part) for _, best in costed]
        plot.add_trace(go.Bar(x=names, y=values, name=part.replace("_", " "), marker={"color": PALETTE[k]}))
    currency = next(best.offer.currency for _, best in costed if best is not None)
    layout(plot, "", f"{currency} a month")
    plot.update_layout(barmode="stack")
    text = "; ".join(f"{c.name} {c.capacity.idle_share:.0%} idle" for c, _ in costed if c.capacity is not None)
    caption = "Where the month goes, of each one's cheapest offer. Idle = 1 − demand / (replicas × λ*); spares and unused devices of whole offers apart."
    return Figure(f"money-idle-{number}", "Used and idle", caption, f"{text}.", plot)


def _tornado(own: Sequence[Candidate], workload: str, number: int) -> Figure | None:
    import plotly.graph_objects as go

    chosen = [c for c in own if c.tornado and c.cheapest is not None and passes(c)]
    if not chosen:
        return None
    best = min(chosen, key=lambda c: c.cheapest.points[0].per_1k_requests if c.cheapest is not None else math.inf)
    bars = [b for b in reversed(best.tornado) if b.low is not None and b.high is not None]
    plot: go.Figure = go.Figure()
    for k, (name, values) in enumerate((("low end", [b.low for b in bars]), ("high end", [b.high for b in bars]))):
        ends = [b.low_input if k == 0 else b.high_input for b in bars]
        plot.add_trace(go.Scatter(x=values, y=[b.name for b in bars], mode="markers+text", text=ends, textposition="top center", name=name,
                                  marker={"size": 12, "symbol": "line-ns-open", "color": PALETTE[k]}))  # fmt: skip
    for b in bars:
        plot.add_shape(type="line", x0=b.low, x1=b.high, y0=b.name, y1=b.name, line={"width": 10, "color": "rgba(120,120,120,.35)"})
    assert best.cheapest is not None
    layout(plot, f"{best.cheapest.offer.currency} per 1,000 requests", "")
    caption = f"Which input moves the answer of {best.name} most: each from its low to its high end, the others as they are; widest on top."
    text = "; ".join(f"{b.name}: {b.low:.3g} to {b.high:.3g}" for b in best.tornado if b.low is not None and b.high is not None)
    return Figure(f"money-tornado-{number}", "Sensitivity", caption, f"{text}.", plot)

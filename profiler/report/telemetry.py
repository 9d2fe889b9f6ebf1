"""Telemetry over time, the window marked, and the words for energy: joules stand beside their scope, and scopes are not compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from profiler.report.figures import Figure, answered, layout, line_of, named, of_trace, with_n
from profiler.report.selection import Row, Selection, label

if TYPE_CHECKING:
    import pandas as pd

POINTS = 600  # of a curve: a screen shows no more
DEVICES = {"nvml": "gpu_board", "amdsmi": "gpu_board", "rapl": "cpu_package"}


def joules(row: Row) -> str | None:
    """`0.52 J/token (gpu_board)`; None where it was not measured."""
    value = row.get("energy_per_output_token_j")
    return None if value is None else f"{value:.3g} J/token ({row['energy_scope']})"


def warnings(rows: Sequence[Row]) -> list[str]:
    """One where runs of one report have energy of different scopes."""
    found = sorted({str(row["energy_scope"]) for row in rows if row.get("energy_j") is not None})
    text = f"Energy was measured at different scopes ({', '.join(found)}): joules of one scope must not be compared with those of another."
    return [text] if len(found) > 1 else []


def all_of(selection: Selection, workload: str) -> dict[str, list[Figure]]:
    """The figures of one workload: "telemetry" and "energy"."""
    figure = over_time(selection, workload)
    scopes = dict.fromkeys(str(row["energy_scope"]) for row in selection.of(workload) if joules(row))
    energy = [per_token(selection, workload, scope) for scope in scopes]
    return {"telemetry": [figure] if figure else [], "energy": [one for one in energy if one is not None]}


def per_token(selection: Selection, workload: str, scope: str) -> Figure | None:
    """Joules per output token against output tokens/s, of one scope: scopes are never drawn together. None where no run that counts has both."""
    import plotly.graph_objects as go

    rows = [r for r in selection.of(workload) if r["status"] == "done" and r["validity"] != "invalid" and joules(r)]
    rows = [r for r in rows if r["energy_scope"] == scope and r["output_tps"] is not None]
    if not rows:
        return None
    plot = go.Figure()
    for number, backend in enumerate(selection.backends):
        own = [row for row in rows if row["backend"] == backend]
        if own:
            plot.add_trace(
                go.Scatter(
                    x=[row["output_tps"] for row in own],
                    y=[row["energy_per_output_token_j"] for row in own],
                    mode="lines+markers+text",
                    line=line_of(number),
                    marker={"size": 9},
                    text=[f"{row['load']:g}" + ("/s" if row["load_kind"] == "rate" else "") for row in own],
                    textposition="top center",
                    cliponaxis=False,
                    name=named(backend),
                    meta=of_trace(own[0]),
                    customdata=[[row["run_id"]] for row in own],
                    hovertemplate="%{text}<br>%{x:.0f} tokens/s, %{y:.3g} J/token",
                )
            )
    layout(plot, "output tokens/s", f"J per output token ({scope})")
    plot.update_yaxes(rangemode="tozero")
    told = "; ".join(f"{r['backend']} at {label(r)}: {joules(r)}, {with_n(r)}" for r in rows)
    caption = (
        f"Energy of the window at scope {scope}, idle power included, divided by the output tokens that arrived in it; labelled with users or "
        f"requests/s. {answered(rows)}. Another scope is another quantity."
    )
    return Figure(f"energy-{workload}-{scope}", f"{workload}: energy per output token, {scope}", caption, f"Energy. {told}.", plot)


def over_time(selection: Selection, workload: str) -> Figure | None:
    """Power, or where nothing told it the engine's CPU cores, of each backend's highest load; thick inside the window, thin outside."""
    import plotly.graph_objects as go

    rows = [row for row in selection.of(workload) if row["status"] == "done" and row["window_open_ns"] is not None]
    shown = [
        max(own, key=lambda row: (row["load_kind"], row["load"]))
        for b in selection.backends
        if (own := [r for r in rows if r["backend"] == b])
    ]
    has_power = any(row.get("energy_j") is not None for row in shown)
    plot = go.Figure()
    told = []
    for row in shown:
        points = _series(selection.telemetry_of(row["run_id"]), row, has_power)
        if len(points) < 2:
            continue
        line, meta = line_of(selection.backends.index(row["backend"]), 2.5), of_trace(row)
        x = [(t - row["window_open_ns"]) / 1e9 for t, _ in points]
        y = [value for _, value in points]
        end_s = (row["window_close_ns"] - row["window_open_ns"]) / 1e9
        inside = [value if 0 <= t <= end_s else None for t, value in zip(x, y, strict=True)]
        thin = {"color": line["color"], "width": 1, "dash": "dot"}
        plot.add_trace(go.Scatter(x=x, y=y, mode="lines", line=thin, showlegend=False, hoverinfo="skip", meta=meta))
        name = f"{row['backend']}, {label(row)}" + (f" ({row['energy_scope']})" if has_power else "")
        ids = [[row["run_id"]]] * len(x)
        plot.add_trace(go.Scatter(x=x, y=inside, mode="lines", line=line, name=named(name), meta=meta, customdata=ids))
        close = {"symbol": "line-ns-open", "size": 16, "color": line["color"], "line": {"width": 2}}
        last = next((value for value in reversed(inside) if value is not None), None)
        plot.add_trace(go.Scatter(x=[end_s], y=[last], mode="markers", marker=close, showlegend=False, hoverinfo="skip", meta=meta))
        told.append(f"{name}: {min(y):.3g} to {max(y):.3g}")
    if not told:
        return None
    plot.add_vline(x=0, line={"dash": "dot", "width": 1.5, "color": "#888"})
    plot.add_annotation(x=0, y=1, yref="paper", text="window opens", showarrow=False, xanchor="right", xshift=-3, font={"size": 11})
    layout(plot, "s from the opening of the window", "power, W" if has_power else "CPU cores of the engine")
    plot.update_xaxes(rangemode="normal")
    plot.update_yaxes(rangemode="tozero")
    title = "Power over time" if has_power else "The engine's CPU cores over time"
    caption = (
        f"{title}, of each backend at its highest load (n {len(told)} runs), from telemetry.parquet. Thick inside the window, which opens at 0 "
        f"and closes at the upright stroke; thin before (idle, then warm-up) and after (drain). At most about {POINTS} samples of a curve are drawn, evenly chosen."
    )
    return Figure(f"telemetry-{workload}", title, caption, f"{title}. " + "; ".join(told) + ".", plot)


def _series(frame: pd.DataFrame, row: Row, power: bool) -> list[tuple[int, float]]:
    """Of one run: W at its scope, all devices together, or cores. A running total becomes its rate between samples."""
    own = frame
    if power:
        source, _, method = str(row.get("energy_source") or "").partition(" ")
        own = own[(own["source"] == source) & (own["metric"] == ("energy_j" if method == "counter" else "power_w"))]
        if source == "rapl":
            kind = {"cpu_package": "package", "dram": "dram", "host": "psys"}[str(row["energy_scope"])]
            own = own[own["device"].str.startswith(kind)]
        total = method == "counter"
    else:
        own, total = own[(own["device"] == "engine") & (own["metric"] == "cpu_s")], True
    step = max(1, len(own) // POINTS)
    parts: list[list[tuple[int, float]]] = []
    for _, one in own.groupby("device"):
        points = list(zip(one["t_ns"].tolist(), one["value"].tolist(), strict=True))[::step]
        pairs = list(pairwise(points))
        parts.append([(b[0], (b[1] - a[1]) * 1e9 / (b[0] - a[0])) for a, b in pairs if b[0] > a[0]] if total else points)
    # Devices are read one after the other within a sample: the k-th readings belong together.
    return [(group[0][0], sum(value for _, value in group)) for group in zip(*parts, strict=False)]

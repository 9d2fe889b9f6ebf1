"""Telemetry over time, the window marked, and the words for energy: joules stand beside their scope, and scopes are not compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from profiler.report.figures import PALETTE, Figure, layout
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
    """The figures of one workload: "telemetry"."""
    figure = over_time(selection, workload)
    return {"telemetry": [figure] if figure else []}


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
        colour = PALETTE[selection.backends.index(row["backend"]) % len(PALETTE)]
        x = [(t - row["window_open_ns"]) / 1e9 for t, _ in points]
        y = [value for _, value in points]
        end_s = (row["window_close_ns"] - row["window_open_ns"]) / 1e9
        inside = [value if 0 <= t <= end_s else None for t, value in zip(x, y, strict=True)]
        plot.add_trace(
            go.Scatter(x=x, y=y, mode="lines", line={"color": colour, "width": 1, "dash": "dot"}, showlegend=False, hoverinfo="skip")
        )
        name = f"{row['backend']}, {label(row)}" + (f" ({row['energy_scope']})" if has_power else "")
        plot.add_trace(go.Scatter(x=x, y=inside, mode="lines", line={"color": colour, "width": 2.5}, name=name))
        plot.add_vline(x=end_s, line={"dash": "dot", "width": 1, "color": colour})
        told.append(f"{name}: {min(y):.3g} to {max(y):.3g}")
    if not told:
        return None
    plot.add_vline(x=0, line={"dash": "dot", "width": 1.5, "color": "#888"})
    layout(plot, "s from the opening of the window", "power, W" if has_power else "CPU cores of the engine")
    plot.update_xaxes(rangemode="normal")
    plot.update_yaxes(rangemode="tozero")
    title = "Power over time" if has_power else "The engine's CPU cores over time"
    caption = (
        f"{title}, of each backend at its highest load, from telemetry.parquet. Thick inside the window, which opens at 0 and closes at the "
        "dotted line of the same colour; thin before (idle, then warm-up) and after (drain)."
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

"""The tables and the figure of docs/worked-example.md, by the product's own commands from the rows in docs/worked-example/.

    .venv/bin/python bench/worked_example.py            # writes both into the page
    .venv/bin/python bench/worked_example.py --check    # only says whether the page still holds what the commands print

Imports five tables with `profile results import`, asks `profile cost --json` for 2 requests/s, and lays its figures out by basis.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from profiler.analyse.crossings import Curve, Stretch, stretches
from profiler.analyse.offers import BASES, Basis
from profiler.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "worked-example.md"
FIGURES = ROOT / "docs" / "worked-example"
TABLES = ("openvino", "openvino-fp16", "openvino-at-once", "h100", "l4")
QOS, RATE = "tpot_p95<=100ms", 2.0
COMMAND = ("cost", "--qos", QOS, "--demand", f"{RATE:g}rps", "--prices", str(FIGURES / "prices.toml"), "--json")
COLOURS = {"h100-sglang": "#6929c4", "l4-vllm": "#1192e8", "xeon-8580-fp16": "#005d5d", "xeon-8580-int8": "#9f1853"}
SIGNS = {"=": "", "<=": "≤ ", ">=": "≥ "}


def profile(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(f"profile {' '.join(words)}: {done.output}")
    return done.stdout


def answer(folder: Path) -> dict[str, Any]:
    """What `profile cost --json` says of the imported rows."""
    for name in TABLES:
        profile("results", "import", str(FIGURES / f"{name}.csv"), "--map", str(FIGURES / f"{name}.toml"), "--results", str(folder))
    return dict(json.loads(profile(*COMMAND, "--results", str(folder))))


def sections(said: dict[str, Any]) -> dict[str, str]:
    """The generated parts of the page, by name."""
    return {"limits": _limits(said), "money": _money(said), "crossings": _crossings(said)}


def lengths(folder: Path) -> str:
    """What `profile fit --lengths` predicts of the H100 at 2 requests/s."""
    name = "h100-lengths"
    profile("results", "import", str(FIGURES / f"{name}.csv"), "--map", str(FIGURES / f"{name}.toml"), "--results", str(folder))
    asked = (
        "fit",
        "--qos",
        "ttft_p95<=1s, tpot_p95<=100ms",
        "--lengths",
        "1024:198",
        "--demand",
        f"{RATE:g}rps",
        "--json",
        "--results",
        str(folder),
    )
    c = json.loads(profile(*asked))["candidates"][0]
    size, limit = c["capacity"], c["limit"]
    lines = [
        f"* at 2/s: TTFT p95 {size['ttft_p95_s'] * 1e3:.0f} ms, TPOT p95 {size['tpot_p95_s'] * 1e3:.1f} ms, {size['replicas']} replica, "
        f"{size['idle_share']:.0%} idle; λ* {limit['lower']:.3g} to {limit['upper']:.3g}/s ({limit['note']}).",
        *(f"* {text}." for text in c["missing"] if not text.startswith("not costed")),
    ]
    return "\n".join(lines)


def _limits(said: dict[str, Any]) -> str:
    lines = ["| | λ*, requests/s | by | saturated | replicas at 2/s | idle |", "|---|---|---|---|---|---|"]
    for c in said["candidates"]:
        guess, size = c["estimate"], c["capacity"]
        span = f"at most {guess['range']['lower']:.3g}" + (f"–{guess['range']['upper']:.3g}" if guess["range"]["upper"] else "")
        saturated = f"{'' if guess['saturation']['proven'] else '≥ '}{guess['saturation']['rate']:.3g}"
        why = "; ".join(guess["notes"])
        lines.append(f"| {c['backend']} | {span} | {why} | {saturated} | at least {size['replicas']} | {size['idle_share']:.0%} |")
    return "\n".join(lines)


def _money(said: dict[str, Any]) -> str:
    lines = ["| | | $ a month at 2/s | $ per 1,000 requests at 2/s | at λ* | at saturation |", "|---|---|---|---|---|---|"]
    for basis in BASES:
        rows = [(c["backend"], cost) for c in said["candidates"] for cost in c["costs"] if cost["offer"]["basis"] == basis]
        for name, cost in sorted(rows, key=lambda row: row[1]["points"][0]["per_month"]):
            points = {point["at"]: point for point in cost["points"]}
            at = [f"{SIGNS[points[p]['relation']]}{points[p]['per_1k_requests']:.3g}" for p in ("demand", "limit", "saturation")]
            month = f"{SIGNS[points['demand']['relation']]}{points['demand']['per_month']:,.0f}"
            lines.append(f"| {basis} | {name}, {cost['offers']} x {cost['offer']['name']} | {month} | {' | '.join(at)} |")
    return "\n".join(lines)


def curve(said: dict[str, Any], backend: str, basis: Basis, at: str = "limit") -> Curve:
    """One staircase of the page: `at` λ* or at saturation."""
    c = next(c for c in said["candidates"] if c["backend"] == backend)
    cost = next(cost for cost in c["costs"] if cost["offer"]["basis"] == basis)
    rate = next(point["rate"] for point in cost["points"] if point["at"] == at)
    return Curve(f"{backend} ({basis})", basis, rate * cost["replicas_per_offer"], cost["monthly"]["total"])


def _crossings(said: dict[str, Any]) -> str:
    from profiler.analyse.crossings import words

    lines = []
    for basis, found in said["rankings"][0]["cheapest_by_demand"].items():
        made = [Stretch(s["above"], s["upto"], Curve(**s["curve"]), s["month"]) for s in found["imported"]]
        lines.append(f"* {basis}: {words(made, 4)}.")
    for basis in BASES[:2]:
        for xeon in (curve(said, name, "paid") for name in ("xeon-8580-fp16", "xeon-8580-int8")):
            mixed = stretches([xeon, curve(said, "l4-vllm", basis), curve(said, "h100-sglang", basis)], 30.0)
            lines.append(f"* {xeon.name} against {basis} accelerators: {words(mixed, 4)}.")
    return "\n".join(lines)


def page(text: str, made: dict[str, str]) -> str:
    """The page with its generated parts replaced."""
    for name, part in made.items():
        text, n = re.subn(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, part=part: m[1] + part + m[2], text, flags=re.S)  # type: ignore[misc]
        if n != 1:
            raise SystemExit(f"{PAGE}: no part called {name}")
    return text


def figure(said: dict[str, Any], out: Path) -> None:
    """Monthly cost against demand of the three bases, with the crossings; a PNG by Chromium."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    top, n = 32.0, 1600
    rates = [top * (k + 1) / n for k in range(n)]
    plot = make_subplots(
        rows=1, cols=3, subplot_titles=[f"{basis}" for basis in ("rented", "owned", "already paid: power alone")], horizontal_spacing=0.06
    )
    for column, basis in enumerate(BASES, 1):
        own = [curve(said, name, basis) for name in COLOURS]
        for name, line in zip(COLOURS, own, strict=True):
            plot.add_trace(go.Scatter(x=rates, y=[line.at(r) for r in rates], mode="lines", name=name, legendgroup=name, showlegend=column == 1,
                                      line={"color": COLOURS[name], "width": 2}), row=1, col=column)  # fmt: skip
        changes = [s for s in stretches(own, top) if s.above > 0]
        plot.add_trace(go.Scatter(x=[s.above for s in changes], y=[s.curve.at(s.above * 1.0001) for s in changes], mode="markers", name="crossing",
                                  legendgroup="crossing", showlegend=column == 1, marker={"symbol": "x", "size": 11, "color": "#da1e28"}), row=1, col=column)  # fmt: skip
        plot.add_vline(x=RATE, line={"dash": "dot", "color": "#888"}, row=1, col=column)
        plot.update_yaxes(type="log", title_text="USD a month" if column == 1 else "", row=1, col=column)
        plot.update_xaxes(title_text="demand, requests/s", row=1, col=column)
    plot.update_layout(
        template="plotly_white", width=1320, height=470, margin={"l": 70, "r": 20, "t": 40, "b": 90}, legend={"orientation": "h", "y": -0.2}
    )
    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("no Chromium on this machine: the figure was not drawn")
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "figure.html"
        html.write_text(plot.to_html(include_plotlyjs=True, config={"staticPlot": True}))
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=8000", "--window-size=1340,500"]
        subprocess.run([chromium, *flags, f"--screenshot={out}", html.as_uri()], check=True, capture_output=True, timeout=120)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        said = answer(Path(folder) / "results")
        made = page(text := PAGE.read_text(), sections(said) | {"lengths": lengths(Path(folder) / "lengths")})
    if check:
        raise SystemExit(0 if made == text else f"{PAGE} does not hold what the commands print: run this without --check")
    PAGE.write_text(made)
    figure(said, FIGURES / "cost-against-demand.png")


if __name__ == "__main__":
    main()

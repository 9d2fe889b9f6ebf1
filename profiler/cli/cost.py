"""`profile cost`: the money in full: every offer, the three bases, input and output, break-even, sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from profiler.cli import complete
from profiler.cli.planning import ask, fleet_options, options, show


@click.command("cost")
@click.option(
    "--qos", required=True, shell_complete=complete.presets, help='The target that the fleet keeps, e.g. "ttft_p95<=1s, tpot_p95<=100ms".'
)
@click.option("--demand", "demand_text", default=None, help="As of `profile fit`.  [default: what one replica carries at λ*]")
@fleet_options
@options
def command(qos: str, demand_text: str | None, results: Path, out: Path | None, as_json: bool, **asked: Any) -> None:
    """What serving costs: each offer at the demand, at λ* and at saturation; idle money, break-even, which input matters most."""
    from profiler.analyse.demand import parse
    from profiler.report import money

    demand = parse(demand_text) if demand_text is not None else None
    show(ask(results, qos, None, demand, **asked), money.costs, as_json, out, results)

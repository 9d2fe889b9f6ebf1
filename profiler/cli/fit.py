"""`profile fit`: does it fit, how far, how many, at what cost; from the store alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from profiler.cli import complete
from profiler.cli.planning import ask, fleet_options, options, show


@click.command("fit")
@click.option(
    "--qos",
    required=True,
    shell_complete=complete.presets,
    help='The target, e.g. "ttft_p95<=1s, tpot_p95<=100ms", or a preset such as chat.',
)
@click.option("--demand", "demand_text", default=None, help="0.5rps, 30tps (output tokens/s), 200users:30s (with their pause), trace:FILE.")
@fleet_options
@options
def command(qos: str, demand_text: str | None, results: Path, out: Path | None, as_json: bool, **asked: Any) -> None:
    """Verdicts, limits, replicas and costs of everything in a results folder, for any QoS target. Measures nothing."""
    from profiler.analyse.demand import parse
    from profiler.report import money

    demand = parse(demand_text) if demand_text is not None else None
    show(ask(results, qos, None, demand, **asked), money.fit, as_json, out, results)

"""`profile plan demand.toml`: the same answer for a demand with its daily shape, spares, routing and autoscaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from profiler.cli.planning import ask, options, show


@click.command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--qos", default=None, help="Replaces the target of the file.")
@options
def command(file: Path, qos: str | None, results: Path, out: Path | None, as_json: bool, **asked: Any) -> None:
    """Plan a fleet for the demand that FILE (a demand.toml) describes, from the store alone."""
    from profiler.analyse.demand import read_plan
    from profiler.errors import SpecError
    from profiler.report import money

    plan = read_plan(file)
    target = qos or plan.qos
    if target is None:
        raise SpecError(f"{file}: demand.qos: missing", hint='add qos = "ttft_p95<=1s, tpot_p95<=100ms", or give --qos')
    asked["workload"] = asked["workload"] or plan.workload
    show(ask(results, target, plan, None, **asked), money.fit, as_json, out, results)

"""`profile plan demand.toml`: the same answer for a demand with its daily shape, spares, routing and autoscaling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.cli.planning import ask, options, show

if TYPE_CHECKING:
    from profiler.analyse.demand import Plan


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
    if plan.mix:
        if out is not None:
            raise click.UsageError("--out: the report has no section for a mix: leave it out")
        _mixed(plan, target, results, as_json, **asked)
        return
    asked["workload"] = asked["workload"] or plan.workload
    show(ask(results, target, plan, None, **asked), money.fit, as_json, out, results)


def _mixed(plan: Plan, target: str, results: Path, as_json: bool, **asked: Any) -> None:
    """The cheapest fleet for several workloads at once, from the answer for each of them."""
    import json
    from dataclasses import asdict

    from profiler.analyse import mix
    from profiler.analyse.demand import Demand
    from profiler.analyse.rightsize import passes

    for name in ("lengths", "workload", "grid", "api"):
        if asked.pop(name) is not None:
            raise click.UsageError(f"--{name} is of one workload: leave it out with a mix")
    answers = [
        ask(
            results,
            share.qos or target,
            None,
            Demand(f"{share.rate:g}rps", rate=share.rate),
            workload=share.workload,
            quality=plan.quality,
            **asked,
        )
        for share in plan.mix
    ]
    kinds, left_out = mix.kinds([[c for c in answer.candidates if passes(c)] for answer in answers])
    notes = list(dict.fromkeys([*(note for answer in answers for note in answer.notes), *left_out]))
    made = mix.cheapest(kinds, [share.rate for share in plan.mix])
    names, currency = [share.workload for share in plan.mix], answers[0].question.prices.currency
    if as_json:
        whole = {"provenance_class": "predicted", "workloads": names, "currency": currency, "kinds": [asdict(kind) for kind in kinds]}
        none: dict[str, Any] = {"parts": [], "month": None, "single": None, "proven": None}
        found = none | {"reason": made} if isinstance(made, str) else asdict(made) | {"reason": None}
        click.echo(json.dumps(whole | found | {"notes": notes}, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for line in [*mix.words(made, names, currency), *(f"note: {note}" for note in notes)]:
        click.echo(line)

"""`profile doctor`: what this machine can run and measure, and what is missing, with the command that adds it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(as_json: bool) -> None:
    """Look at this machine; change nothing.

    Says which engines are installed, what the CPU and GPU can do, whether power is measurable, how much disk is free, and for each
    thing that is missing the command that adds it.
    """
    from profiler.machine.doctor import checks

    found = checks()
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
        return
    for check in found:
        mark = click.style("ok  ", fg="green") if check.ok else click.style("miss", fg="yellow")
        click.echo(f"{mark} {check.name}: {check.detail}")
        if check.fix_command:
            click.echo(f"       -> {check.fix_command}")

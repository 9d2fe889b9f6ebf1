"""`profile report`: the HTML of a results folder."""

from __future__ import annotations

from pathlib import Path

import click

from profiler.cli.results_folder import RESULTS


@click.command("report")
@click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Where the report goes.  [default: RESULTS/report.html]")
@click.option("--sweep", "sweep_id", default=None, help="Only this sweep (an id from `profile results ls`).  [default: the newest]")
def command(results: Path, out: Path | None, sweep_id: str | None) -> None:
    """Make one self-contained HTML file: opens offline, loads nothing from the network."""
    from profiler.analyse.recover import open_store
    from profiler.report import html
    from profiler.report.selection import select

    store = open_store(results)
    written = html.write(select(store, sweep_id), out or results / "report.html")
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(str(written))

"""`profile report`: the HTML of a results folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="The results folder.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Where the report goes.  [default: RESULTS/report.html]")
@click.option("--sweep", "sweep_id", default=None, help="Only this sweep (an id from `profile results ls`).  [default: the newest]")
@click.option(
    "--index",
    "folder",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Write DIR/index.html, which lists the reports in DIR, and make no report.",
)
def command(results: Path, out: Path | None, sweep_id: str | None, folder: Path | None) -> None:
    """Make one self-contained HTML file: opens offline, loads nothing from the network."""
    if folder is not None:
        _index(folder)
        return
    from profiler.report import html
    from profiler.report.selection import select
    from profiler.store.store import Store

    store = Store(results)
    written = html.write(select(store, sweep_id), out or results / "report.html")
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(str(written))


def _index(folder: Path) -> None:
    from profiler.report import index

    written, _, others = index.write(folder)
    for name in others:
        click.echo(f"warning: {name}: is no report of this program, left out", err=True)
    click.echo(str(written))

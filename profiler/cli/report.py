"""`profile report`: the HTML of a results folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from profiler.cli import complete
from profiler.cli.results_folder import RESULTS


@click.command("report")
@click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Where the report goes.  [default: RESULTS/report.html]")
@click.option(
    "--sweep",
    "sweep_id",
    default=None,
    shell_complete=complete.sweeps,
    help="Only this sweep (an id from `profile results ls`).  [default: the newest]",
)
@click.option("--margin", metavar="SHARE", help="How far the pass rate may fall below the reference's, e.g. 5%: quality joins the answer.")
@click.option("--drift-margin", metavar="SHARE", help="How far the perplexity may rise above the reference's, e.g. 2%.")
@click.option(
    "--reference",
    shell_complete=complete.backends,
    help="The evaluated backend the others are compared with.  [default: the widest weights]",
)
@click.option(
    "--index",
    "folder",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Write DIR/index.html, which lists the reports in DIR, and make no report.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    results: Path,
    out: Path | None,
    sweep_id: str | None,
    margin: str | None,
    drift_margin: str | None,
    reference: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Make one self-contained HTML file: opens offline, loads nothing from the network."""
    if folder is not None:
        _index(folder, as_json)
        return
    from profiler.analyse.margins import given
    from profiler.analyse.recover import open_store
    from profiler.report import html
    from profiler.report.selection import select

    margins, store = given(margin, drift_margin, reference), open_store(results)
    selection = select(store, sweep_id, margins)
    written = html.write(selection, out or results / "report.html")
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        plain = {"report": str(written), "sweep_id": selection.sweep_id, "runs": len(selection.rows), "warnings": store.warnings}
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        click.echo(str(written))


def _index(folder: Path, as_json: bool) -> None:
    from profiler.report import index

    written, listed, others = index.write(folder)
    for name in others:
        click.echo(f"warning: {name}: is no report of this program, left out", err=True)
    plain = {"index": str(written), "reports": [one.href for one in listed], "left_out": others}
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False) if as_json else str(written))

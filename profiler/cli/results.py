"""`profile results ls|show|sql|import|tools|export|verify|push|pull`: look into the store, bring files of other tools into it, keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.cli import complete, results_keep
from profiler.cli.exporting import export
from profiler.cli.importing import import_, tools
from profiler.cli.results_folder import RESULTS
from profiler.cli.results_sql import sql

if TYPE_CHECKING:
    from profiler.store.store import Store

LS_COLUMNS = [
    "run_id",
    "sweep_id",
    "status",
    "validity",
    "backend",
    "workload",
    "load_kind",
    "load",
    "n_requests",
    "output_tps",
    "qos_result",
]

_results = click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group("results")
def command() -> None:
    """List, show and query stored runs."""


for _other in (sql, import_, tools, export, results_keep.verify, results_keep.push, results_keep.pull):
    command.add_command(_other)


@command.command("ls")
@_results
@_as_json
def ls(results: Path, as_json: bool) -> None:
    """One line per run, oldest first; then one per evaluation."""
    store = _open(results)
    rows = store.rows()  # not runs(): a frame would wait a second for pandas
    _warn(store)
    if (machines := len({row["comparison_id"] for row in rows} - {None})) > 1:
        hint = "compare only rows of one comparison_id (`profile report` says in what they differ)"
        click.echo(f"warning: runs of {machines} differing machines or settings: {hint}", err=True)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not rows:
        click.echo(f"no runs in {results}")
    else:
        table = [LS_COLUMNS, *([_cell(row[name]) for name in LS_COLUMNS] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        click.echo("\n".join(" ".join(map(str.rjust, line, widths)) for line in table))
    if not as_json:
        from profiler.quality import documents

        for key, words in documents.told(store.path):
            click.echo(f"evaluation {key}: {words}")


@command.command("show")
@click.argument("run_id", shell_complete=complete.runs)
@_results
@_as_json
def show(run_id: str, results: Path, as_json: bool) -> None:
    """Everything stored of one run, as JSON (its provenance, quality, verdicts and samples), with --json or without.

    The key of an evaluation shows its document.
    """
    from profiler import catalog
    from profiler.quality import documents

    document = documents.load(catalog.results(results), run_id) if documents.is_key(run_id) else None
    click.echo(json.dumps(document or _open(results).run(run_id), indent=2, ensure_ascii=False))


def _open(results: Path) -> Store:
    from profiler import catalog
    from profiler.analyse.recover import open_store
    from profiler.errors import StoreError

    results = catalog.results(results)
    if not results.exists():
        raise StoreError(f"{results}: no such results folder", hint="run `profile sweep`, or give --results FOLDER")
    return open_store(results)


def _cell(value: object) -> str:
    return "—" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _warn(store: Store) -> None:
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)

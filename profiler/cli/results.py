"""`profile results ls|show|sql|import|tools|export`: look into the store, and bring tables of other tools into it and out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.cli.exporting import export
from profiler.cli.importing import import_, tools

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

_results = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="The results folder."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group("results")
def command() -> None:
    """List, show and query stored runs."""


@command.command("ls")
@_results
@_as_json
def ls(results: Path, as_json: bool) -> None:
    """One line per run, oldest first."""
    store = _open(results)
    frame = store.runs().sort_values("run_id")
    _warn(store)
    if (machines := frame["comparison_id"].dropna().nunique()) > 1:
        hint = "compare only rows of one comparison_id (`profile report` says in what they differ)"
        click.echo(f"warning: runs of {machines} differing machines or settings: {hint}", err=True)
    if as_json:
        click.echo(frame.to_json(orient="records", date_format="iso", indent=2))
    elif frame.empty:
        click.echo(f"no runs in {results}")
    else:
        click.echo(frame[LS_COLUMNS].to_string(index=False, float_format=lambda value: f"{value:g}", na_rep="—"))


@command.command("show")
@click.argument("run_id")
@_results
def show(run_id: str, results: Path) -> None:
    """Everything stored of one run, as JSON (its provenance, quality, verdicts and samples)."""
    click.echo(json.dumps(_open(results).run(run_id), indent=2, ensure_ascii=False))


@command.command("sql")
@click.argument("query")
@_results
@_as_json
def sql(query: str, results: Path, as_json: bool) -> None:
    """Run one SELECT over the views runs, requests, tokens and telemetry (DuckDB).

    \b
    profile results sql "select backend, load, output_tps from runs order by output_tps desc"
    """
    store = _open(results)
    frame = store.sql(query)
    _warn(store)
    click.echo(frame.to_json(orient="records", date_format="iso", indent=2) if as_json else frame.to_string(index=False, na_rep="—"))


command.add_command(import_)
command.add_command(tools)
command.add_command(export)


def _open(results: Path) -> Store:
    from profiler import catalog
    from profiler.errors import StoreError
    from profiler.store.store import Store

    results = catalog.results(results)
    if not results.exists():
        raise StoreError(f"{results}: no such results folder", hint="run `profile sweep`, or give --results FOLDER")
    return Store(results)


def _warn(store: Store) -> None:
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)

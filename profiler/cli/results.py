"""`profile results ls|show|sql|import`: look into the store, and bring tables of other tools into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.cli import complete
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

_results = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="The results folder."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group("results")
def command() -> None:
    """List, show and query stored runs."""


command.add_command(sql)


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
@click.argument("run_id", shell_complete=complete.runs)
@_results
@_as_json
def show(run_id: str, results: Path, as_json: bool) -> None:
    """Everything stored of one run, as JSON (its provenance, quality, verdicts and samples), with --json or without."""
    click.echo(json.dumps(_open(results).run(run_id), indent=2, ensure_ascii=False))


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--map", "map_", required=True, help="What the columns are: a TOML, or the name of a mapping that ships.")
@click.option("--dry-run", is_flag=True, help="Check and say what would be added; write nothing.")
@_results
@_as_json
def import_(file: Path, map_: str, dry_run: bool, results: Path, as_json: bool) -> None:
    """Add a CSV or Parquet table of another tool as runs of class `imported`. Twice the same adds nothing."""
    from profiler.store.foreign import mapping as mappings
    from profiler.store.foreign.bring import bring
    from profiler.store.store import Store

    mapping = mappings.load(map_)
    done = bring(Store(results), file, mapping, dry_run)
    found = done.converted
    if done.other_mappings:
        hint = "both answer; import into a folder of its own to replace them"
        click.echo(f"warning: {done.other_mappings} runs of the same source came by another mapping: {hint}", err=True)
    for flag, n in found.flags.items():
        click.echo(f"warning: {n} row{'s' if n != 1 else ''}: {flag}", err=True)
    if as_json:
        plain = {
            "added": done.added,
            "known": done.known,
            "left_out": found.left_out,
            "flags": found.flags,
            "believed": list(found.believed),
        }
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    for line in found.believed:
        click.echo(f"believed: {line}")
    for why, n in found.left_out.items():
        click.echo(f"left out: {n} row{'s' if n != 1 else ''}: {why}")
    verb = "would add" if dry_run else "added"
    click.echo(f"{verb} {done.added} imported run{'s' if done.added != 1 else ''} to {results}, {done.known} known already")


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

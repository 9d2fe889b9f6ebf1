"""`profile results ls|show|sql|import|verify|push|pull`: look into the store, bring tables of other tools into it, keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.cli import complete, results_keep
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


for _keeping in (results_keep.verify, results_keep.push, results_keep.pull, sql):
    command.add_command(_keeping)


@command.command("ls")
@_results
@_as_json
def ls(results: Path, as_json: bool) -> None:
    """One line per run, oldest first."""
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
    from profiler.analyse.recover import open_store
    from profiler.store.foreign import mapping as mappings
    from profiler.store.foreign.bring import bring

    mapping = mappings.load(map_)
    done = bring(open_store(results), file, mapping, dry_run)
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

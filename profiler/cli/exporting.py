"""`profile results export`: runs or requests as CSV or Parquet, and runs in the columns of llm-d-planner."""

from __future__ import annotations

import json
from pathlib import Path

import click

from profiler.cli.results_folder import RESULTS

SUFFIX = {"csv": "csv", "parquet": "parquet", "llm-d-planner": "json"}


@click.command("export")
@click.option("--format", "format_", type=click.Choice(list(SUFFIX)), default="csv", show_default=True, help="What to write.")
@click.option("--table", type=click.Choice(["runs", "requests"]), default="runs", show_default=True, help="Of CSV and Parquet.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="The file.  [default: TABLE.csv, TABLE.parquet, benchmarks.json]"
)
@click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def export(format_: str, table: str, out: Path | None, results: Path, as_json: bool) -> None:
    """Write the store's runs or requests to a file of another format. Nothing is overwritten."""
    from profiler import catalog
    from profiler.analyse.recover import open_store
    from profiler.errors import StoreError, UsageError
    from profiler.store import export as exports

    results = catalog.results(results)
    if not results.exists():
        raise StoreError(f"{results}: no such results folder", hint="run `profile sweep`, or give --results FOLDER")
    planner = format_ == "llm-d-planner"
    if planner and table != "runs":
        raise UsageError("--table requests: llm-d-planner takes runs only", hint="leave --table out")
    path = out or Path("benchmarks.json" if planner else f"{table}.{SUFFIX[format_]}")
    store = open_store(results)
    done = exports.export_planner(store, path) if planner else exports.export_table(store, table, path, format_)
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps({"file": str(path), "rows": done.rows, "left_out": done.left_out}, indent=2, ensure_ascii=False))
        return
    for why, n in done.left_out.items():
        click.echo(f"left out: {n} run{'s' if n != 1 else ''}: {why}")
    click.echo(f"wrote {done.rows} rows to {path}")

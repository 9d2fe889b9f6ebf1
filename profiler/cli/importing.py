"""`profile results import` and `profile results tools`: files of other load generators, and the figures beside one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from profiler.cli.results_folder import RESULTS

_results = click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--map", "map_", help="A table: what its columns are, a TOML or the name of a mapping that ships. Not for a tool's own file.")
@click.option("--declare", multiple=True, metavar="KEY=VALUE", help="What a tool's file does not say: device=…, engine=…, load=4, …")
@click.option("--dry-run", is_flag=True, help="Check and say what would be added; write nothing.")
@_results
@_as_json
def import_(file: Path, map_: str | None, declare: tuple[str, ...], dry_run: bool, results: Path, as_json: bool) -> None:
    """Add what another tool measured as runs of class `imported`. Twice the same adds nothing.

    GuideLLM, AIPerf, vllm bench serve, inference-perf, MLPerf LoadGen and the llm-d Benchmark Report are known by what is in the file;
    any other table needs --map.
    """
    from profiler.errors import UsageError

    if map_ is None:
        _tool_file(file, declare, dry_run, results, as_json)
        return
    if declare:
        raise UsageError("--declare goes with a tool's own file", hint="with --map, say it in the mapping's [constants]")
    _table(file, map_, dry_run, results, as_json)


@click.command("tools")
@click.option("--markdown", is_flag=True, help="Markdown tables, for a document.")
@_results
@_as_json
def tools(markdown: bool, results: Path, as_json: bool) -> None:
    """What other tools say beside our definitions of the same requests, one comparison for each model and load."""
    from profiler import catalog
    from profiler.analyse.beside import beside
    from profiler.analyse.recover import open_store
    from profiler.cli.tables import markdown_tables, terminal_tables

    store = open_store(catalog.results(results))
    found = beside(store)
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps([group.plain() for group in found], indent=2, ensure_ascii=False))
    elif not found:
        click.echo(f"no imported runs of other tools in {results}")
    elif markdown:
        click.echo(markdown_tables(found))
    else:
        terminal_tables(found)


def _tool_file(file: Path, declare: tuple[str, ...], dry_run: bool, results: Path, as_json: bool) -> None:
    from profiler.analyse.imported import own_columns
    from profiler.analyse.recover import open_store
    from profiler.store.foreign import brought
    from profiler.store.foreign.recognise import recognise

    said = brought.declared(declare)
    found = recognise(file)
    done = brought.bring_file(open_store(results), found, own_columns, said, dry_run)
    for flag in done.flags:
        click.echo(f"warning: {flag}", err=True)
    runs = [_told(document, len(requests)) for document, requests in done.documents]
    if as_json:
        plain: dict[str, Any] = {
            "tool": found.tool,
            "tool_version": found.tool_version,
            "files": [part.path.name for part in found.parts],
            "added": done.added,
            "known": done.known,
            "flags": list(done.flags),
            "runs": runs,
        }
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    click.echo(f"recognised: {found.tool} {found.tool_version}, {', '.join(part.path.name for part in found.parts)}")
    for run in runs:
        what = f"{run['requests']} requests: percentiles and bounds by our definitions" if run["requests"] else "figures only: no bounds"
        click.echo(f"run: {run['model']}, {run['load_kind']} {run['load']:g}; {what}; {run['figures']} figures of its own kept apart")
    _sum_up(done.added, done.known, dry_run, results)


def _told(document: dict[str, Any], requests: int) -> dict[str, Any]:
    run = document["run"]
    names = ("model", "load_kind", "load", "n_requests", "output_tps", "ttft_p50_s", "tpot_p50_s")
    return {name: run.get(name) for name in names} | {"requests": requests, "figures": len(document["imported"]["figures"])}


def _table(file: Path, map_: str, dry_run: bool, results: Path, as_json: bool) -> None:
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
    _sum_up(done.added, done.known, dry_run, results)


def _sum_up(added: int, known: int, dry_run: bool, results: Path) -> None:
    verb = "would add" if dry_run else "added"
    click.echo(f"{verb} {added} imported run{'s' if added != 1 else ''} to {results}, {known} known already")

"""`profile list backends|workloads|models|engines`: what there is, and what of it runs here."""

from __future__ import annotations

import json
from typing import Any

import click

from profiler.errors import ProfilerError

KINDS = ("backends", "workloads", "models", "engines", "qos")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(kind: str, as_json: bool) -> None:
    """List what can be named in a sweep.

    \b
    profile list backends    engine + device + precision; says which run on this machine and why others do not
    profile list workloads   lengths, prompts and where they come from
    profile list models      the built-in catalogue (a folder or a hub id works as well)
    profile list qos         named QoS targets, and where their figures come from
    profile list engines     the software that runs models, and whether its environment is built
    """
    rows = {"backends": _backends, "workloads": _workloads, "models": _models, "engines": _engines, "qos": _targets}[kind]()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _table(rows)


def _backends() -> list[dict[str, Any]]:
    from profiler import catalog
    from profiler.engines import registry
    from profiler.machine.needs import unmet

    rows = []
    for backend in catalog.load_backends():
        try:
            problems = [*unmet(backend), *registry.get(backend.engine).problems(backend)]
        except ProfilerError as error:
            problems = [error.message]
        rows.append(
            {"name": backend.name, "runs here": "yes" if not problems else "no: " + "; ".join(problems), "summary": backend.summary}
        )
    return rows


def _workloads() -> list[dict[str, Any]]:
    from profiler import catalog

    workloads = [catalog.workload(name) for name in catalog.workload_names()]
    return [{"name": w.name, "version": w.version, "summary": w.summary, "qos": w.qos or "—", "source": w.source} for w in workloads]


def _targets() -> list[dict[str, Any]]:
    from profiler.analyse.qos import PRESETS

    return [{"name": name, "target": preset.text, "for": preset.use, "source": preset.source} for name, preset in PRESETS.items()]


def _models() -> list[dict[str, Any]]:
    from profiler.models.catalogue import SYNTHETIC_ARCHITECTURES, SYNTHETIC_SIZES, catalogue

    shipped = [{"name": entry.name, "summary": entry.summary} for entry in catalogue()]
    names = f"ARCH: {', '.join(SYNTHETIC_ARCHITECTURES)}; SIZE: {', '.join(SYNTHETIC_SIZES)}"
    synthetic = f"random weights of a real architecture and a tokenizer trained here: speed without a download. {names}"
    return [*shipped, {"name": "synthetic:ARCH-SIZE", "summary": synthetic}]


def _engines() -> list[dict[str, Any]]:
    from profiler import environments
    from profiler.cli.engines import environments_of
    from profiler.engines import registry

    rows = []
    for name in registry.names():
        needed = environments_of(name)
        state = (
            "needs none"
            if not needed
            else "installed"
            if environments.installed(environments.ENVIRONMENTS[needed[0]])
            else f"not installed: profile engines install {name}"
        )
        rows.append({"name": name, "environment": state, "summary": registry.get(name).summary})
    return rows


def _table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if not rows:
        click.echo("none")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, key in enumerate(rows[0]):
        table.add_column(key, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)

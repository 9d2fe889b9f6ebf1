"""`profile explain METRIC`: what a metric, a column or a word means, and what it is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from profiler.cli import complete

if TYPE_CHECKING:
    from profiler.analyse.explain import Explained

WIDTH = 14  # of the names in front


@click.command("explain")
@click.argument("name", required=False, metavar="[METRIC]", shell_complete=complete.words)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(name: str | None, as_json: bool) -> None:
    """Print the definition of a metric, a column of the store or a word; without METRIC, list what there is.

    \b
    profile explain ttft
    profile explain tpot_p95
    profile explain runs.goodput
    """
    from profiler.analyse import explain

    if name is None:
        found = explain.everything()
        click.echo(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False) if as_json else _list(found))
        return
    one = explain.explain(name)
    click.echo(json.dumps(asdict(one), indent=2, ensure_ascii=False) if as_json else _words(one))


def _words(one: Explained) -> str:
    unit = f", {one.unit}" if one.unit else ""
    lines = [click.style(f"{one.name}", bold=True) + f" ({one.kind}{unit})", one.definition, ""]
    for label, text in (
        ("formula", one.formula),
        ("is not", one.is_not),
        ("in a target", one.qos),
        ("stored in", _joined(one)),
        ("see", one.source),
    ):
        if text:
            lines.append(click.wrap_text(text, 100, f"{label + ':':<{WIDTH}}", " " * WIDTH))
    return "\n".join(lines).rstrip()


def _joined(one: Explained) -> str:
    return ", ".join(one.stored)


def _list(found: list[Explained]) -> str:
    lines: list[str] = []
    for kind, title in (("metric", "metrics"), ("word", "words"), ("preset", "QoS presets")):
        lines += ["", click.style(title, bold=True)]
        for one in found:
            if one.kind == kind:
                unit = f"{one.unit}: " if one.unit else ""
                lines.append(click.wrap_text(unit + one.definition, 110, f"  {one.name:<20}", " " * 22))
    return "\n".join([*lines[1:], "", "and every column of the store: profile explain ttft_sched_p95_s (all of them: results/README.md)"])

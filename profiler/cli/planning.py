"""What `profile fit`, `plan` and `cost` share: their options, the question, and how an answer is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from profiler.cli import complete
from profiler.cli.results_folder import RESULTS

if TYPE_CHECKING:
    from profiler.analyse.demand import Demand, Plan
    from profiler.analyse.fit import Answer
    from profiler.analyse.margins import Margins

Command = TypeVar("Command", bound=Callable[..., Any])
PIPED_WIDTH = 160  # of tables in a file or a CI log, where there is no terminal to ask

_OPTIONS = (
    click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder."),
    click.option("--workload", default=None, shell_complete=complete.stored_workloads, help="Only this workload.  [default: each one]"),
    click.option(
        "--lengths", default=None, help="ISL:OSL that were not measured, e.g. 1024:128: predicted by interpolation, with its error."
    ),
    click.option("--prices", type=click.Path(path_type=Path), default=None, help="TOML with your own offers and hosted prices."),
    click.option("--offer", "offers", multiple=True, help='An offer in one line: "DEVICE=0.096 USD/h 2026-11-24". May be repeated.'),
    click.option("--currency", default=None, help="Three capitals; rows in another one are left out.  [default: of your offers, or USD]"),
    click.option("--api", default=None, help="Hosted model to break even with: MODEL@PROVIDER.  [default: the cheapest of the same name]"),
    click.option(
        "--grid", default=None, help='CO2 of your grid, "380 g/kWh 2024 SOURCE": kg per 1,000 requests where energy was measured.'
    ),
    click.option(
        "--margin", metavar="SHARE", help="How far the pass rate may fall below the reference's, e.g. 5%: quality joins the verdict."
    ),
    click.option("--drift-margin", metavar="SHARE", help="How far the perplexity may rise above the reference's, e.g. 2%."),
    click.option(
        "--reference",
        shell_complete=complete.backends,
        help="The evaluated backend the others are compared with.  [default: the widest weights]",
    ),
    click.option("--out", type=click.Path(path_type=Path), default=None, help="Also write the HTML report, with this answer in it."),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable output."),
)


def options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def fleet_options(command: Command) -> Command:
    """How a demand is to be served, where no demand.toml says it."""
    for option in reversed(
        (
            click.option(
                "--routing",
                type=click.Choice(["round-robin", "random", "least-outstanding"]),
                default="round-robin",
                show_default=True,
                help="How a router spreads requests over the replicas.",
            ),
            click.option("--spares", type=click.IntRange(min=0), default=0, show_default=True, help="Replicas beyond those needed (N+k)."),
            click.option("--fleet", type=click.IntRange(min=1), default=None, help="Also predict the λ* of so many replicas together."),
        )
    ):
        command = option(command)
    return command


def ask(
    results: Path,
    qos: str,
    plan: Plan | None,
    demand: Demand | None,
    routing: Any = "round-robin",
    spares: int = 0,
    workload: str | None = None,
    prices: Path | None = None,
    offers: tuple[str, ...] = (),
    currency: str | None = None,
    api: str | None = None,
    lengths: str | None = None,
    fleet: int | None = None,
    grid: str | None = None,
    margin: str | None = None,
    drift_margin: str | None = None,
    reference: str | None = None,
    quality: Margins | None = None,
) -> Answer:
    """Validate everything, then answer from the store. `quality`: margins of a file, which options go over. Raises ProfilerError."""
    from profiler import catalog
    from profiler.analyse import carbon, fit, margins
    from profiler.analyse.offers import load
    from profiler.analyse.qos import load as read_target
    from profiler.analyse.recover import open_store
    from profiler.errors import StoreError

    target, known = read_target(qos), load(prices, offers, currency)
    wanted = _lengths(lengths) if lengths is not None else plan.lengths if plan is not None else None
    intensity = carbon.parse(grid) if grid is not None else None
    filed = margins.of_target(qos).over(quality or (plan.quality if plan is not None else margins.NONE_STATED))
    results = catalog.results(results)
    if not results.exists():
        raise StoreError(f"{results}: no such results folder", hint="run `profile sweep`, or give --results FOLDER")
    if plan is not None:
        demand, routing, spares = plan.demand, plan.routing, plan.spares
    question = fit.Question(
        target,
        known,
        demand,
        workload,
        routing,
        spares,
        plan.autoscale if plan is not None else False,
        api,
        intensity,
        fleet,
        wanted,
        margins.given(margin, drift_margin, reference).over(filed),
    )
    store = open_store(results)
    answer = fit.answer(store, question)
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)
    return answer


def _lengths(text: str) -> tuple[float, float]:
    from profiler.errors import SpecError

    isl, _, osl = text.partition(":")
    if not (isl.isdigit() and osl.isdigit() and int(isl) and int(osl)):
        raise SpecError(f"--lengths {text!r}: not two numbers of tokens", hint="write input:output, e.g. 1024:128")
    return float(isl), float(osl)


def show(answer: Answer, render: Callable[[Answer], list[Any]], as_json: bool, out: Path | None, results: Path) -> None:
    from profiler.report import money

    if as_json:
        click.echo(json.dumps(money.plain(answer), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=PIPED_WIDTH)
        for part in render(answer):
            console.print(part)
    if out is not None:
        from profiler import catalog
        from profiler.report import html
        from profiler.report.selection import select
        from profiler.store.store import Store

        written = html.write(select(Store(catalog.results(results)), margins=answer.question.quality), out, answer)
        click.echo(str(written), err=as_json)

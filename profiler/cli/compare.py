"""`profile compare`: two sets of runs by rules, with an exit code that CI can act on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.analyse.compare import Comparison

PIPED_WIDTH = 180  # of tables in a file or a CI log, where there is no terminal to ask
DEFAULT_STARTS = 5
_FLAGS = {"workloads": "workload", "rates": "rate"}  # whose names in the code are not those of the options


@click.command("compare")
@click.argument("sources", nargs=-1, metavar="[BASE NEW]")
@click.option(
    "--fail-if", "rules", multiple=True, metavar="RULE", help='What is a regression: "ttft_p99 > +5%", "output_tps < -3%". Repeat it.'
)
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of each bound, and of all regressions together.")
@click.option("--margin", metavar="SHARE", help="How far the pass rate may fall below BASE's, e.g. 5%: a rule on quality.")
@click.option("--drift-margin", metavar="SHARE", help="How far the perplexity may rise above BASE's, e.g. 2%: a rule on quality.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Where sweep:ID and run:ID look."
)
@click.option("--with-suspect", is_flag=True, help="Count runs that other programs disturbed.")
@click.option("--allow-differing", is_flag=True, help="Compare cells of differing workload, prompts or endpoint; it is said, not refused.")
@click.option("--ab", nargs=2, metavar="A B", help="Measure two backends (names or TOML files) in interleaved starts, then compare.")
@click.option("--starts", type=click.IntRange(min=2), help=f"With --ab: engine starts of each.  [default: {DEFAULT_STARTS}]")
@click.option("--model", help="With --ab: the model, as in `profile sweep`.")
@click.option("--workload", "workloads", multiple=True, help="With --ab: workload name or TOML file; repeat for several.")
@click.option("--isl", type=int, help="With --ab: input tokens per request, with --osl instead of a workload.")
@click.option("--osl", type=int, help="With --ab: output tokens per request.")
@click.option("--concurrency", metavar="N,N,…|auto", help="With --ab: closed loops of so many users.")
@click.option("--rate", "rates", metavar="R,R,…", help="With --ab: open loops of so many requests per second.")
@click.option("--requests", type=int, help="With --ab: finished requests each cell needs at least.")
@click.option("--duration", metavar="TIME", help="With --ab: shortest window of a cell, e.g. 20s.")
@click.option("--seed", type=int, help="With --ab: seed of prompts, arrivals and the order.")
@click.option("--pip-args", multiple=True, metavar="ARGS", help="With --ab: passed to pip when an engine environment is built.")
@click.option("--trust-remote-code", is_flag=True, help="With --ab: run code that comes with the model.")
@click.option("--markdown", metavar="FILE|-", help="Also write Markdown, for a CI summary; - for stdout, and nothing else there.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write one self-contained page.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    sources: tuple[str, ...],
    rules: tuple[str, ...],
    confidence: float,
    margin: str | None,
    drift_margin: str | None,
    results: Path,
    with_suspect: bool,
    allow_differing: bool,
    ab: tuple[str, str] | None,
    markdown: str | None,
    html: Path | None,
    as_json: bool,
    **flags: Any,
) -> int:
    """Say whether NEW is worse than BASE.

    BASE and NEW: a results folder, FOLDER:backend=NAME (any column of runs), sweep:ID, sweep:latest, sweep:latest~1, or run:ID.

    \b
    profile compare results-main results-pr --fail-if "ttft_p99 > +5%" --fail-if "output_tps < -3%"
    profile compare results:engine_version=0.25.0 results:engine_version=0.26.0
    profile compare --ab old.toml new.toml --starts 8 --workload chat --concurrency 4 --fail-if "tpot_p95 > +5%"

    Exit codes with --fail-if or a margin: 0 within every limit, proven; 4 a regression proven; 5 inconclusive. Without it the rules are
    ttft_p95 > +5%, tpot_p95 > +5%, output_tps < -5% and the exit code is 0.
    """
    from profiler.analyse.compare import compare
    from profiler.analyse.compare_quality import with_quality
    from profiler.analyse.compare_rules import DEFAULT_RULES, parse
    from profiler.analyse.margins import given

    if as_json and markdown == "-":
        raise UsageError("--json and --markdown - both want stdout", hint="write one of them to a file")
    parsed = [parse(rule) for rule in rules or DEFAULT_RULES]
    margins = given(margin, drift_margin)
    _check(sources, ab, flags)
    if ab is not None:
        from profiler.cli.compare_ab import measure_both

        base, new = measure_both(ab, results, flags)
    else:
        from profiler.analyse.compare_source import arm

        stores: dict[Any, Any] = {}
        base, new = (arm(source, results, stores) for source in sources)
        for warning in dict.fromkeys(warning for store in stores.values() for warning in store.warnings):
            click.echo(f"warning: {warning}", err=True)
    found = compare(base, new, parsed, confidence, with_suspect=with_suspect, allow_differing=allow_differing)
    found = with_quality(found, base, new, margins)
    _show(found, markdown, html, as_json)
    return found.exit_code if rules or margins.stated else 0


def _check(sources: tuple[str, ...], ab: tuple[str, str] | None, flags: dict[str, Any]) -> None:
    """Raises UsageError where both ways to say what to compare are mixed, or neither is there."""
    if ab is not None:
        if sources:
            raise UsageError(f"--ab measures its own two sides, {sources[0]!r} is one more", hint="leave out BASE and NEW")
        return
    given = [name for name, value in flags.items() if value not in (None, (), False)]
    if given:
        raise UsageError(
            f"--{_FLAGS.get(given[0], given[0]).replace('_', '-')} is for --ab: nothing is measured here",
            hint="leave it out, or give --ab A B",
        )
    if len(sources) != 2:
        raise UsageError(f"BASE and NEW are needed, {len(sources)} given", hint="profile compare results-main results-pr, or --ab A B")


def _show(found: Comparison, markdown: str | None, html: Path | None, as_json: bool) -> None:
    from profiler.report import compare as words

    if html is not None:
        from profiler.report.compare_html import write

        click.echo(str(write(found, html)), err=True)
    if markdown == "-":
        click.echo(words.markdown(found))
        return
    if markdown is not None:
        from profiler.report import document

        document.write(words.markdown(found), Path(markdown), "give another --markdown FILE")
    if as_json:
        click.echo(json.dumps(words.plain(found), indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)
    for part in words.render(found):
        console.print(part)

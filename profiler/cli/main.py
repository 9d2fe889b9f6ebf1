"""The `profile` command. Subcommands are imported only when they run: `profile --help` must cost no more than click itself."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from profiler import __version__
from profiler.cli.exit_codes import ExitCode
from profiler.errors import ProfilerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name -> (module, one-line help). The help stands here so that listing the commands imports none of them.
COMMANDS = {
    "sweep": ("profiler.cli.sweep", "Measure models on backends under workloads; keep, judge and report the results."),
    "report": ("profiler.cli.report", "Make the self-contained HTML report of a results folder."),
    "fit": ("profiler.cli.fit", "Say what keeps a QoS target, how far, how many a demand needs, and what that costs."),
    "plan": ("profiler.cli.plan", "Plan a fleet for a demand with its daily shape (demand.toml)."),
    "cost": ("profiler.cli.cost", "Show the money in full: offers, bases, break-even, sensitivity."),
    "compare": ("profiler.cli.compare", "Say whether new runs are worse than others, by rules, with exit codes for CI."),
    "evaluate": ("profiler.cli.evaluate", "Say whether a variant is still as good as its reference: perplexity, examples, verdicts."),
    "list": ("profiler.cli.listing", "List backends, workloads, models or engines."),
    "engines": ("profiler.cli.engines", "Build or remove the engines' own Python environments."),
    "doctor": ("profiler.cli.doctor", "Say what this machine can run and measure, and what is missing."),
    "calibrate": ("profiler.cli.calibrate", "Measure the load client's own error on this machine."),
    "selftest": ("profiler.cli.selftest", "Verify this program on this machine and write a record of it."),
    "bundle": ("profiler.cli.bundle", "Pack what a machine without internet needs into one archive, or install it there."),
    "results": ("profiler.cli.results", "List, show and query stored runs."),
    "explain": ("profiler.cli.explain", "Print the definition of a metric, a column or a word."),
    "completion": ("profiler.cli.completion", "Print the completion script of bash, zsh or fish."),
}


class LazyGroup(click.Group):
    """A click group whose commands live in modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table alone, so that completing a command imports none of them."""
        from click.shell_completion import CompletionItem

        if not incomplete.startswith("-"):
            return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from profiler.errors import did_you_mean

            raise click.UsageError(f"no command {args[0]!r}; {did_you_mean(args[0], COMMANDS) or 'see profile --help'}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="profile")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Measure small language models on the hardware you have.

    \b
    Start here:
      profile doctor        what this machine can run and measure
      profile sweep         the quickstart: one model, three precisions, two workloads, a report
      profile list backends what can be compared

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a QoS target not met (with --fail-on-qos),
    4 a regression proven and 5 inconclusive (compare --fail-if), 130 interrupted:
    docs/exit-codes.md.
    """
    ctx.ensure_object(dict)
    ctx.obj["debug"] = debug


def main(args: list[str] | None = None) -> None:
    """Run the program; the only place where a ProfilerError becomes a line, a hint and an exit code."""
    debug = "--debug" in (sys.argv[1:] if args is None else args)
    try:
        code: Any = cli.main(args=args, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was finished is kept", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except ProfilerError as error:
        if debug:
            raise
        show_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output (head, less) went away; Python would complain at exit
        sys.exit(1)


def show_error(error: ProfilerError) -> None:
    """One line, then the evidence, then the way out; on stderr."""
    click.echo(f"{click.style('error', fg='red', bold=True)}: {error.message}", err=True)
    if error.detail:
        click.echo("\n".join(f"  | {line}" for line in error.detail.rstrip().splitlines()), err=True)
    if error.hint:
        click.echo(f"{click.style('hint', bold=True)}: {error.hint}", err=True)

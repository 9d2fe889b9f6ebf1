"""`profile selftest`: verify on this machine what can be verified here, and write a record of it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from profiler.cli import complete

COLOURS = {"passed": "green", "failed": "red", "not run": "yellow"}


@click.command("selftest")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.engines,
    help="Only this engine (null, openvino, vllm), built if need be; repeat.",
)
@click.option("--model", shell_complete=complete.models, default="smollm2-135m-instruct", show_default=True, help="What the engines serve.")
@click.option("--quick", is_flag=True, help="Shorter windows and fewer loads: minutes instead of ten, more with a slow engine.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The record.  [default: verification-MACHINE-DATE.json]")
@click.option("--pip-args", multiple=True, metavar="ARGS", help="Passed to pip when an engine environment is built.")
@click.option("--json", "as_json", is_flag=True, help="The record on standard output as well.")
@click.option("--table", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Run nothing: a folder of records as a table.")
def command(
    engines: tuple[str, ...], model: str, quick: bool, out: Path | None, pip_args: tuple[str, ...], as_json: bool, table: Path | None
) -> int:
    """Verify this program on this machine; write a verification record.

    NVML energy against the wall clock, the client's calibration, and for each engine that is built here the contract on the wire; a knee and
    the spread over three starts on the null server and on one real engine. What cannot run here is "not run", with the reason. Keep the
    machine quiet meanwhile. Exit code 1 if a check failed.
    """
    from profiler.selftest import record

    if table is not None:
        click.echo(record.table(table), nl=False)
        return 0

    from profiler.cli.engines import split_pip_args
    from profiler.machine.fingerprint import fingerprint
    from profiler.selftest.engines import choose
    from profiler.selftest.run import run

    machine = fingerprint()
    backends, results = choose(engines)

    def say(line: str) -> None:
        click.echo(f"        {line}", err=True)

    for result in results:
        _show(result)
    for result in run(backends, model, machine["machine_id"], quick, say, split_pip_args(pip_args)):
        _show(result)
        results.append(result)
    made = record.make(machine, results, [backend.name for backend in backends], quick)
    path = out or Path(record.default_name(made))
    record.write(made, path)
    if as_json:
        click.echo(json.dumps(made, indent=2, default=str))
    click.echo(f"{made['verdict']}; the record is in {path}", err=as_json)
    return 1 if made["verdict"] == "failed" else 0


def _show(result: object) -> None:
    from profiler.selftest.result import Result

    assert isinstance(result, Result)
    status = click.style(f"{result.status:>7}", fg=COLOURS[result.status])
    click.echo(f"{status} {result.name}" + (f": {result.reason}" if result.reason else ""), err=True)

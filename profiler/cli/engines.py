"""`profile engines install|remove`: each engine's own pinned Python environment."""

from __future__ import annotations

import json

import click

from profiler.cli import complete
from profiler.errors import UnknownNameError

_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group("engines")
def command() -> None:
    """Build or remove the engines' own Python environments (also built on first use)."""


@command.command("install")
@click.argument("engine", shell_complete=complete.engines)
@_as_json
@click.option("--pip-args", multiple=True, metavar="ARGS", help="Passed to every pip run, e.g. --pip-args='--index-url https://…'.")
def install(engine: str, as_json: bool, pip_args: tuple[str, ...]) -> None:
    """Build ENGINE's environments, with progress; does nothing when they are there.

    An environment is keyed by the hash of its pins. `openvino` has two: one that runs models, one that exports them. `vllm` is `vllm-cuda`
    where there is an NVIDIA GPU and else `vllm-cpu`; either can be named itself.
    """
    from profiler import environments

    names = environments_of(engine)
    if not names:
        raise UnknownNameError("engine with an environment of its own", engine, environments.ENVIRONMENTS)
    found = {}
    for name in names:
        built = environments.ensure(environments.ENVIRONMENTS[name], lambda line: click.echo(line, err=True), split_pip_args(pip_args))
        found[name] = str(built.python)
        if not as_json:
            click.echo(f"{name}: {built.python}")
    if as_json:
        click.echo(json.dumps([{"environment": name, "python": python} for name, python in found.items()], indent=2))


@command.command("remove")
@click.argument("engine", shell_complete=complete.engines)
@_as_json
def remove(engine: str, as_json: bool) -> None:
    """Delete ENGINE's environments from the cache; the next use builds them again."""
    import shutil

    from profiler import environments

    names = [name for name in environments.ENVIRONMENTS if name == engine or name.startswith(f"{engine}-")]
    if not names:
        raise UnknownNameError("engine with an environment of its own", engine, environments.ENVIRONMENTS)
    done = {}
    for name in names:
        found = environments.installed(environments.ENVIRONMENTS[name])
        if found is None:
            done[name] = "not installed"
        elif environments.cache_root() not in found.python.parents:
            done[name] = f"{found.python} is yours (named by an environment variable), not removed"
        else:
            shutil.rmtree(found.python.parents[1])
            done[name] = "removed"
        if not as_json:
            click.echo(f"{name}: {done[name]}")
    if as_json:
        click.echo(json.dumps([{"environment": name, "result": result} for name, result in done.items()], indent=2))


def environments_of(engine: str) -> list[str]:
    """Names of the environments that ENGINE needs on this machine; an environment's own name is taken as well. [] where there is none."""
    from profiler import environments

    if engine == "vllm":  # two builds of one engine: the one for CUDA alone is several GB
        from profiler.machine.fingerprint import gpus

        return ["vllm-cuda" if gpus()[0] else "vllm-cpu"]
    return [name for name in environments.ENVIRONMENTS if name == engine or name.startswith(f"{engine}-")]


def split_pip_args(values: tuple[str, ...]) -> list[str]:
    """`--pip-args="--index-url X --pre"` and `--pip-args=--pre` both become separate words."""
    import shlex

    return [word for value in values for word in shlex.split(value)]

"""`profile engines install|remove`: each engine's own pinned Python environment."""

from __future__ import annotations

import click

from profiler.errors import UnknownNameError


@click.group("engines")
def command() -> None:
    """Build or remove the engines' own Python environments (also built on first use)."""


@command.command("install")
@click.argument("engine")
@click.option("--pip-args", multiple=True, metavar="ARGS", help="Passed to every pip run, e.g. --pip-args='--index-url https://…'.")
def install(engine: str, pip_args: tuple[str, ...]) -> None:
    """Build ENGINE's environments, with progress; does nothing when they are there.

    An environment is keyed by the hash of its pins. `openvino` has two: one that runs models, one that exports them. `vllm` is `vllm-cuda`
    where there is an NVIDIA GPU and else `vllm-cpu`; either can be named itself.
    """
    from profiler import environments

    names = environments_of(engine)
    if not names:
        raise UnknownNameError("engine with an environment of its own", engine, environments.ENVIRONMENTS)
    for name in names:
        built = environments.ensure(environments.ENVIRONMENTS[name], lambda line: click.echo(line, err=True), split_pip_args(pip_args))
        click.echo(f"{name}: {built.python}")


@command.command("remove")
@click.argument("engine")
def remove(engine: str) -> None:
    """Delete ENGINE's environments from the cache; the next use builds them again."""
    import shutil

    from profiler import environments

    names = [name for name in environments.ENVIRONMENTS if name == engine or name.startswith(f"{engine}-")]
    if not names:
        raise UnknownNameError("engine with an environment of its own", engine, environments.ENVIRONMENTS)
    for name in names:
        found = environments.installed(environments.ENVIRONMENTS[name])
        if found is None:
            click.echo(f"{name}: not installed")
        elif environments.cache_root() not in found.python.parents:
            click.echo(f"{name}: {found.python} is yours (named by an environment variable), not removed")
        else:
            shutil.rmtree(found.python.parents[1])
            click.echo(f"{name}: removed")


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

"""`profile bundle`: one archive for a machine without internet, and its installation there."""

from __future__ import annotations

import json
from pathlib import Path

import click

from profiler.cli import complete


@click.command("bundle")
@click.argument("archive", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.tar")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.engines,
    help="Wheels of this engine's environments (openvino, vllm-cuda …); repeat.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.backends,
    help="Wheels that run this backend, and its prepared variant; repeat.",
)
@click.option("--model", shell_complete=complete.models, help="The model: catalogue name, folder, hub id.")
@click.option("--pip-args", multiple=True, metavar="ARGS", help="Passed to pip when wheels are fetched.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--install", is_flag=True, help="Install OUT.tar here instead: checks it, then builds environments from it without network.")
def command(
    archive: Path,
    engines: tuple[str, ...],
    backends: tuple[str, ...],
    model: str | None,
    pip_args: tuple[str, ...],
    install: bool,
    as_json: bool,
) -> None:
    """Pack wheels, model and variants into OUT.tar, or install such an archive.

    The core, its backends and its workloads are always in it. Interrupted, the same command goes on where it was; the archive appears under
    its name only when it is whole, and carries a sha256 of every file.

    \b
    profile bundle slm.tar --backend openvino-xeon-int8 --model smollm2-135m-instruct
    profile bundle slm.tar --install
    """
    from profiler.bundle import install as installing
    from profiler.bundle import pack
    from profiler.cli.engines import split_pip_args
    from profiler.errors import UsageError

    def say(line: str) -> None:
        click.echo(line, err=True)

    if install:
        if engines or backends or model or pip_args:
            raise UsageError("--install takes what is in the archive", hint="leave out --engine, --backend, --model and --pip-args")
        done = installing.install(archive, say)
        if as_json:
            click.echo(
                json.dumps({"archive": str(archive), "environments": list(done.environments), "models": list(done.models)}, indent=2)
            )
            return
        click.echo("installed: " + (", ".join(done.environments) or "no environment"))
        for name in done.models:
            click.echo(f"model: --model {name}")
        return
    content = pack.gather(engines, backends, model, say, split_pip_args(pip_args))
    pack.pack(content, archive, say, split_pip_args(pip_args))
    if as_json:
        click.echo(json.dumps({"archive": str(archive), "bytes": archive.stat().st_size}, indent=2))
        return
    click.echo(f"{archive}; there: tar xf {archive.name} README.txt wheels/core, then what README.txt says")

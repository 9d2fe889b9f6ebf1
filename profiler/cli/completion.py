"""`profile completion bash|zsh|fish`: the script that completes commands, options and names in a shell."""

from __future__ import annotations

import json

import click

VARIABLE = "_PROFILE_COMPLETE"  # what click derives from the program's name
WHERE = {
    "bash": 'eval "$(profile completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(profile completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "profile completion fish > ~/.config/fish/completions/profile.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(tuple(WHERE)))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output: the script, and how it is installed.")
def command(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell: commands, options, backends, workloads, models, run ids, metrics.

    \b
    eval "$(profile completion bash)"      in ~/.bashrc
    eval "$(profile completion zsh)"       in ~/.zshrc, after compinit
    profile completion fish > ~/.config/fish/completions/profile.fish
    """
    from click.shell_completion import get_completion_class

    from profiler.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    made = found(cli, {}, "profile", VARIABLE)
    script = made.source_template % made.source_vars()  # not source(), which runs a bash to look at its version
    click.echo(json.dumps({"shell": shell, "install": WHERE[shell], "script": script}, indent=2) if as_json else script)

"""The documentation says what is true: every command has a page, every command in the README exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from profiler.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def shell_lines(path: Path) -> list[str]:
    """Every `profile ...` line of the page's indented and fenced code, continuation lines joined."""
    text = path.read_text().replace("\\\n", " ")
    return [line.strip() for line in re.findall(r"^(?:    |\$ )?(profile [a-z].*)$", text, flags=re.M)]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_page(name: str) -> None:
    page = (ROOT / "docs" / "commands" / f"{name}.md").read_text()
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert option.opts[0] in page, f"docs/commands/{name}.md does not mention {option.opts[0]}"
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            assert f"profile {name} {sub}" in page


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_the_docs_exist(path: Path) -> None:
    for line in shell_lines(path):
        words = shlex.split(line.split("#")[0], comments=True)[1:]
        command: click.Command = cli
        context = click.Context(cli)
        while words and isinstance(command, click.Group):
            found = command.get_command(context, words[0].split("|")[0])
            assert found is not None, f"{path.name}: no such command in: {line}"
            command, words = found, words[1:]
        known = {opt for p in command.params for opt in p.opts} | {"--help", "-h"}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{path.name}: no option {word} in: {line}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"

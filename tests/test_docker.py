"""The Dockerfiles are parsed and checked, since no Docker engine may be at hand: form, user, entry point, and that what they copy exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTRUCTIONS = {"FROM", "ARG", "RUN", "USER", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD", "LABEL", "EXPOSE", "VOLUME", "HEALTHCHECK"}


def parse(path: Path) -> list[tuple[str, str]]:
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


@pytest.fixture(params=["Dockerfile.cpu", "Dockerfile.gpu"])
def dockerfile(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    return parse(ROOT / request.param)


def test_instructions_are_known_and_start_with_a_pinned_base(dockerfile: list[tuple[str, str]]) -> None:
    assert {name for name, _ in dockerfile} <= INSTRUCTIONS
    name, base = dockerfile[0]
    assert name == "FROM" and re.search(r":[\w.-]*\d", base) and not base.endswith(":latest")


def test_runs_as_an_ordinary_user_with_profile_as_entry_point(dockerfile: list[tuple[str, str]]) -> None:
    users = [value for name, value in dockerfile if name == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert ("ENTRYPOINT", '["profile"]') in dockerfile


def test_copies_only_what_exists_and_all_the_wheel_needs(dockerfile: list[tuple[str, str]]) -> None:
    copied = [word for name, value in dockerfile if name == "COPY" for word in shlex.split(value)[1:-1]]
    assert all((ROOT / word).exists() for word in copied), copied
    assert {"pyproject.toml", "profiler/", "backends/", "workloads/"} <= set(copied)


def test_installs_with_the_same_command_as_the_makefile(dockerfile: list[tuple[str, str]]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e ." in makefile
    runs = [value for name, value in dockerfile if name == "RUN"]
    assert any(".venv/bin/python -m pip install --quiet ${PIP_ARGS} -e ." in run for run in runs)


def test_shell_of_each_run_parses(dockerfile: list[tuple[str, str]]) -> None:
    import subprocess

    for name, value in dockerfile:
        if name == "RUN":
            done = subprocess.run(["sh", "-n", "-c", value], capture_output=True, text=True)
            assert done.returncode == 0, f"{value}: {done.stderr}"

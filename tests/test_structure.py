"""The shape of the program: imports run one way, files stay small, the core stays light, the command line says what it does."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "profiler").rglob("*.py"))

# From the bottom up; parts of one layer do not import one another.
LAYERS = [
    {"errors", "units"},
    {"records"},
    {"spec"},
    {"catalog"},
    {"environments", "english"},
    {"models", "workload", "engines", "machine"},
    {"plan", "bundle"},
    {"run", "store"},
    {"quality"},
    {"analyse"},
    {"report", "selftest"},
    {"frames"},
    {"cli"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def part_of(path: Path) -> str:
    inside = path.relative_to(ROOT / "profiler")
    return inside.parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "profiler":
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("profiler."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("profiler.")}
    return found


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in SOURCES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert imported_parts(path) <= {"frames"}  # for type checkers; test_frames.py says that importing it loads nothing
        return
    for other in imported_parts(path) - {part}:
        assert LEVEL[other] < LEVEL[part], f"{path.relative_to(ROOT)} ({part}) must not import profiler.{other}"


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        return sorted(ROOT.rglob(pattern))
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def test_no_python_file_is_over_400_lines() -> None:
    long = {str(path.relative_to(ROOT)): n for path in tracked("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_basenames_are_unique() -> None:
    """Without `__init__.py` pytest imports a test file by its basename: two of one name end the whole run before its first test."""
    names = [p.name for p in (ROOT / "tests").rglob("*.py") if p.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_no_utils() -> None:
    assert not [path for path in tracked("*.py") if re.search(r"(utils?|helpers?|common|base|misc)\.py$", path.name)]


HEAVY = ("numpy", "pandas", "scipy", "duckdb", "pyarrow", "pydantic", "plotly", "torch", "rich", "tokenizers", "jinja2")


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from click.testing import CliRunner
from profiler.cli.main import cli
result = CliRunner().invoke(cli, ["--help"])
assert result.exit_code == 0 and "sweep" in result.output, result.output
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_core_does_not_depend_on_torch() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [d for d in project["dependencies"] if re.match(r"(torch|transformers|openvino|vllm|optimum)\b", d)]

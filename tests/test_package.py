"""The wheel works away from the repository: built, installed into a clean environment, used from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    # No build isolation: the build backend is one of the development requirements, so no network is needed here.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def test_wheel_carries_the_catalogue_and_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"profiler", next(t for t in tops if t.endswith(".dist-info"))}
    for folder in ("backends", "workloads", "mappings"):
        shipped = {n.removeprefix(f"profiler/_catalog/{folder}/") for n in names if n.startswith(f"profiler/_catalog/{folder}/")}
        assert shipped == {str(p.relative_to(ROOT / folder)) for p in (ROOT / folder).rglob("*.toml")}
    assert "profiler/_catalog/docs/glossary.md" in names and "profiler/py.typed" in names
    assert {n for n in names if n.startswith("profiler/_catalog/results/")} == {
        f"profiler/_catalog/{p.relative_to(ROOT)}"
        for p in (ROOT / "results" / "reference").rglob("*")
        if p.is_file() and p.name != ".index.jsonl"
    }  # the index is a cache that reading makes


def test_wheel_installs_and_lists_backends_elsewhere(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False)
    # The wheel itself is installed by pip; its requirements are taken from this environment instead of being downloaded again.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    for package in ("click", "pydantic"):
        assert not (site / package).exists()
    own = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if "site-packages" in p), "PATH": os.environ["PATH"]}
    environment = {**own, "SLM_PROFILER_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    program = [str(folder / "bin" / "python"), "-m", "profiler"]
    where = subprocess.run(
        [program[0], "-c", "import profiler; print(profiler.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = subprocess.run([*program, "list", "backends", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(where.stdout.strip()).is_relative_to(folder), "the test looked at the checkout, not at the wheel"
    assert listed.returncode == 0, listed.stderr
    names = {row["name"] for row in json.loads(listed.stdout)}
    assert names == {p.stem for p in (ROOT / "backends").glob("*.toml")}
    assert names >= {"openvino-xeon-bf16", "openvino-xeon-int8", "openvino-xeon-int4"}

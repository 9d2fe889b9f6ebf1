"""Backends, workloads and sweeps by name: the TOML files that ship, and the user's own by path.

In a source checkout they are the top-level folders `backends/` and `workloads/`; in an installed package, `profiler/_catalog/`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds `backends/` and `workloads/`."""
    installed = _PACKAGE / "_catalog"
    return installed if installed.is_dir() else _PACKAGE.parent


def backend(name_or_path: str) -> BackendSpec:
    """One backend. Raises UnknownNameError (with the nearest names) or SpecError (file and key)."""
    from profiler.spec import BackendSpec, load_spec  # a quarter of a second, which commands that read no spec need not wait for

    return load_spec(_find("backend", name_or_path, root() / "backends"), BackendSpec)


def workload(name_or_path: str) -> WorkloadSpec:
    """One workload. Raises UnknownNameError or SpecError."""
    from profiler.spec import WorkloadSpec, load_spec

    path = _find("workload", name_or_path, root() / "workloads")
    found = load_spec(path, WorkloadSpec)
    if found.trace is None:
        return found
    beside = path.parent / Path(found.trace.file).expanduser()  # an absolute path stays what it is
    return found.model_copy(update={"trace": found.trace.model_copy(update={"file": str(beside)})})


def sweep(name_or_path: str) -> SweepSpec:
    """One sweep. Raises UnknownNameError or SpecError."""
    from profiler.spec import SweepSpec, load_spec

    return load_spec(_find("sweep", name_or_path, root() / "workloads" / "sweeps"), SweepSpec)


def results(folder: Path) -> Path:
    """`folder`, or where the reference figures lie that ship, for `results/reference` and `reference` outside of a checkout."""
    if not folder.exists() and folder.parts in (("reference",), ("results", "reference")):
        return root() / "results" / "reference"
    return folder


def backend_names() -> list[str]:
    return _names(root() / "backends")


def workload_names() -> list[str]:
    return _names(root() / "workloads")


def sweep_names() -> list[str]:
    return _names(root() / "workloads" / "sweeps")


def load_backends() -> list[BackendSpec]:
    """All backends that ship, by name."""
    return [backend(name) for name in backend_names()]


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))


def _find(kind: str, name_or_path: str, folder: Path) -> Path:
    """A name is looked up in `folder`; what ends in .toml or holds a path separator is a file."""
    if name_or_path.endswith(".toml") or os.sep in name_or_path:
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise SpecError(
                f"{path}: no such {kind} file", hint=f"`profile list {kind}s` shows the names that ship" if kind != "sweep" else None
            )
        return path
    path = folder / f"{name_or_path}.toml"
    if not path.is_file():
        raise UnknownNameError(kind, name_or_path, _names(folder))
    return path

"""Make the archive: wheels by `pip download`, the model and the prepared variants from the cache; whole or not at all.

Everything is gathered in OUT.tar.parts/, which an interrupted run leaves for the next one: a folder of wheels that was finished is not
fetched again. The archive is written beside its name, flushed, and renamed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler import __version__, catalog, environments, models
from profiler.bundle.manifest import NAME, Manifest, this_machine, this_python
from profiler.engines import registry
from profiler.environments import EnvironmentSpec, Progress
from profiler.errors import EngineError, EnvironmentError_, StoreError, UnknownNameError
from profiler.models.folder import file_sha256
from profiler.records import LocalModel

README = """slm-profiler {version}, for Python {python} on {machine}. No network is needed:

    python3 -m venv .venv
    .venv/bin/python -m pip install --no-index --find-links wheels/core slm-profiler
    .venv/bin/profile bundle {archive} --install
    {model}
"""


@dataclass(frozen=True)
class Content:
    """`folders`: path in the archive to the folder on this disk. `models`: what to give to --model on the other side."""

    environments: tuple[EnvironmentSpec, ...]
    folders: dict[str, Path]
    models: tuple[str, ...]


def gather(engines: Sequence[str], backends: Sequence[str], model_ref: str | None, progress: Progress, pip_args: Sequence[str]) -> Content:
    """What goes in; a backend's variant is prepared now. Raises UnknownNameError, ModelError, EngineError, EnvironmentError_."""
    known = environments.ENVIRONMENTS
    wanted: dict[str, EnvironmentSpec] = {}
    for engine in engines:
        names = [name for name in known if name == engine or name.startswith(f"{engine}-")]
        if not names and engine not in registry.names():
            raise UnknownNameError("engine", engine, [*known, *registry.names()])
        wanted |= {name: known[name] for name in names}
    model = _model(model_ref, progress, pip_args) if model_ref is not None else None
    folders, usable = _model_folders(model, model_ref) if model is not None and model_ref is not None else ({}, ())
    for name in backends:
        backend = catalog.backend(name)
        engine_ = registry.get(backend.engine)
        if engine_.needs_model and model is None:
            raise EngineError(f"{backend.name}: its variant needs a model", hint="give --model NAME")
        variant = engine_.prepare(model if engine_.needs_model else None, backend, progress, pip_args)
        if variant.env_hash is not None:
            spec = next((spec for spec in known.values() if environments.env_hash(spec) == variant.env_hash), None)
            if spec is None:
                raise EnvironmentError_(
                    f"{backend.name}: runs in an interpreter of your own, which cannot be bundled", hint="unset SLM_PROFILER_PYTHON_…"
                )
            wanted[spec.name] = spec
        if variant.path is not None and (variant.path.parent == environments.cache_root() / "variants"):
            folders[f"variants/{variant.path.name}"] = variant.path
    return Content(tuple(wanted.values()), folders, usable)


def pack(content: Content, archive: Path, progress: Progress, pip_args: Sequence[str]) -> None:
    """Fetch the wheels and write the archive. Raises EnvironmentError_ with pip's last lines, StoreError when the disk says no."""
    parts = archive.with_name(archive.name + ".parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with environments.locked(parts.with_suffix(".lock"), lambda: progress(f"{archive}: another process is packing it, waiting")):
            _once(parts / "wheels/core", [__version__, _source_stamp()], lambda folder: _core_wheels(folder, progress, pip_args))
            for spec in content.environments:
                stamp = [environments.env_hash(spec), *pip_args]
                _once(parts / "wheels" / spec.name, stamp, lambda folder, spec=spec: _wheels(spec, folder, progress, pip_args))
            _write(content, parts, archive, progress)
            shutil.rmtree(parts)
        parts.with_suffix(".lock").unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{error.filename or archive}: {error.strerror}", hint="name an archive on a disk with space") from error


def _once(folder: Path, stamp: list[str], fill: object) -> None:
    """`fill(folder)` unless an earlier run finished it for the same `stamp`; the marker stands beside the folder, not in it."""
    assert callable(fill)
    marker = folder.with_name(folder.name + ".complete")
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == stamp:
        return
    marker.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder)
    marker.write_text(json.dumps(stamp), encoding="utf-8")


def _core_wheels(folder: Path, progress: Progress, pip_args: Sequence[str]) -> None:
    root = catalog.root()
    if not (root / "pyproject.toml").is_file():
        raise EnvironmentError_(
            "the profiler was installed as a package, its own wheel cannot be made", hint="run it from a source checkout"
        )
    for old in folder.glob("slm_profiler-*"):
        old.unlink()
    progress("core: making the profiler's own wheel")
    _pip("core", ["wheel", "--no-deps", "-w", str(folder), *pip_args, str(root)], progress)
    (own,) = folder.glob("slm_profiler-*.whl")
    _pip("core", ["download", "-d", str(folder), *pip_args, str(own)], progress)
    _built("core", folder, progress, pip_args)


def _wheels(spec: EnvironmentSpec, folder: Path, progress: Progress, pip_args: Sequence[str]) -> None:
    """In the order of an installation. `pins` are resolved together with `first_pins`: an installed torch would bind them as well."""
    steps: tuple[tuple[tuple[str, ...], list[str]], ...] = (
        (spec.first_pins, []),
        ((*spec.first_pins, *spec.pins), []),
        (spec.no_deps_pins, ["--no-deps"]),
    )
    for pins, flags in steps:
        if pins:
            _pip(spec.name, ["download", *flags, "-d", str(folder), *pip_args, *pins], progress)
    _built(spec.name, folder, progress, pip_args)


def _built(name: str, folder: Path, progress: Progress, pip_args: Sequence[str]) -> None:
    """Source archives become wheels here: building one needs packages that the other side does not have."""
    for source in sorted([*folder.glob("*.tar.gz"), *folder.glob("*.zip")]):
        _pip(name, ["wheel", "--no-deps", "-w", str(folder), *pip_args, str(source)], progress)
        source.unlink()


def _pip(name: str, arguments: Sequence[str], progress: Progress) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        *arguments[:1],
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        *arguments[1:],
    ]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.strip())
            if line.startswith(("Collecting ", "  Downloading ", "Building wheel")):
                progress(f"{name}: {line.strip()[:120]}")
    if process.returncode != 0:
        last = next((line for line in reversed(lines) if line), "")
        raise EnvironmentError_(f"wheels of {name!r}: pip failed: {last}", environments.TORCH_HINT, "\n".join(lines[-12:]))


def _model(ref: str, progress: Progress, pip_args: Sequence[str]) -> LocalModel:
    def convert_python() -> Path:
        return environments.ensure(environments.ENVIRONMENTS["openvino-export"], progress, pip_args).python

    return models.resolve(ref, progress, convert_python=convert_python)


def _model_folders(model: LocalModel, ref: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    """A model of the cache keeps its name there; one from elsewhere gets a folder by its content and is given as a path."""
    cached = environments.cache_root() / "models"
    if model.folder.parent != cached:
        key = f"{model.folder.name if model.source.startswith('folder:') else model.name}-{model.content_hash[:12]}"
        return {f"models/{key}": model.folder}, (key,)
    folders = {f"models/{model.folder.name}": model.folder}
    origin = cached / f"{model.name}-gguf"  # from which the catalogue finds it again, without a hub
    return folders | ({f"models/{origin.name}": origin} if origin.is_dir() else {}), (ref,)


def _files(content: Content, parts: Path) -> Iterator[tuple[str, Path]]:
    for top in ("core", *(spec.name for spec in content.environments)):
        for path in sorted((parts / "wheels" / top).glob("*.whl")):
            yield f"wheels/{top}/{path.name}", path
    for name, folder in sorted(content.folders.items()):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != ".profiler-hash.json":
                yield f"{name}/{path.relative_to(folder).as_posix()}", path


def _write(content: Content, parts: Path, archive: Path, progress: Progress) -> None:
    files = list(_files(content, parts))
    use = f".venv/bin/profile sweep --model {content.models[0]} …" if content.models else ".venv/bin/profile list backends"
    readme = README.format(version=__version__, python=this_python(), machine=this_machine(), archive=archive.name, model=use)
    (parts / "README.txt").write_text(readme, encoding="utf-8")
    files.insert(0, ("README.txt", parts / "README.txt"))
    progress(f"{archive}: checksums of {len(files)} files")
    manifest = Manifest(
        profiler_version=__version__,
        python=this_python(),
        machine=this_machine(),
        environments={spec.name: environments.env_hash(spec) for spec in content.environments},
        models=list(content.models),
        files={name: file_sha256(path) for name, path in files},
    )
    new = archive.with_name(archive.name + ".new")
    progress(f"{archive}: writing")
    try:
        with new.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", dereference=True) as tar:
                head = tarfile.TarInfo(NAME)
                data = manifest.dump()
                head.size = len(data)
                tar.addfile(head, io.BytesIO(data))
                for name, path in files:
                    tar.add(path, name, recursive=False, filter=_nobodys)
            file.flush()
            os.fsync(file.fileno())
        new.replace(archive)
    finally:
        new.unlink(missing_ok=True)


def _nobodys(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the user's name and ids."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _source_stamp() -> str:
    """Changes with the profiler's own files, so that an interrupted run never ships an old core."""
    root = catalog.root()
    files = [
        *Path(__file__).parents[1].rglob("*.py"),
        *(root / "backends").glob("*"),
        *(root / "workloads").rglob("*"),
        root / "pyproject.toml",
    ]
    newest = max((path.stat().st_mtime_ns for path in files if path.is_file()), default=0)
    return f"{newest}-{len(files)}"

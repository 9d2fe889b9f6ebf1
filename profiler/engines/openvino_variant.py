"""Variants for OpenVINO: exported once in the export environment, kept by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler import environments
from profiler.engines import variant_folder
from profiler.engines.protocol import Progress
from profiler.records import LocalModel, Variant

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
    return variant_folder.folder([model.content_hash, ir_format(spec), group_size, environments.identity(export), RECIPE])


def prepare(model: LocalModel, spec: VariantSpec, env_hash: str, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
    """The variant, exported now if it is not in the cache. Raises ModelError, EnvironmentError_."""
    target = folder(model, spec)
    name = f"{model.name} {precision(spec)}"

    def export(part: Path) -> None:
        python = environments.ensure(environments.ENVIRONMENTS["openvino-export"], progress, pip_args).python
        command = [
            str(python),
            "-I",
            "-u",
            str(SCRIPT),
            "--model",
            str(model.folder),
            "--out",
            str(part),
            "--weight-format",
            ir_format(spec),
        ]
        if spec.group_size is not None and spec.weight_format == "int4":
            command += ["--group-size", str(spec.group_size)]
        variant_folder.run_script(command, target.with_suffix(".log"), name, progress, _explain)

    made: dict[str, Any] = variant_folder.details(target, name, progress, export)
    # nncf's compression here looks at the weights only; the key says so beside variants that were calibrated.
    made |= {"calibration": None, "source": model.source, "base_precision": model.base_precision}
    return Variant(
        variant_id=variant_id(model, spec),
        path=target,
        precision=precision(spec),
        size_bytes=sum(file.stat().st_size for file in target.glob("openvino_model.*")),
        env_hash=env_hash,
        details=made,
    )


def _explain(last: str, log_path: Path) -> tuple[str, str]:
    message = f"the export to OpenVINO failed: {last[:200]}"
    if "group" in last.lower() and "size" in last.lower():
        return message, "set [variant] group_size to a divisor of the model's hidden size, such as 64"
    if "maximum supported" in last or "nsupported" in last or "custom or unsupported" in last:
        return (
            message,
            f"this architecture does not export (docs/families.md); serve it with vLLM instead: --backend vllm-cpu-bf16. Log: {log_path}",
        )
    return message, f"the whole output: {log_path}; docs/families.md lists architectures that do not export"

"""Variants for vLLM: full precision is the model's own folder, nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.engines.protocol import Progress
from profiler.errors import SpecError
from profiler.records import LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import VariantSpec

FULL_PRECISION = ("bf16", "fp16", "f16", "f32", "fp32")


def prepare(model: LocalModel, spec: VariantSpec, env_hash: str, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
    """The variant in the form vLLM loads. Raises SpecError for a weight format that is not made here."""
    if spec.weight_format not in ("bf16", "fp16", "as-is"):
        raise SpecError(f"variant.weight_format: {spec.weight_format} is not made for vLLM", hint="bf16, fp16 or as-is")
    base = model.base_precision.lower()
    name = spec.weight_format if spec.weight_format != "as-is" else ("bf16" if base not in FULL_PRECISION else base)
    return Variant(
        variant_id=name + ("" if base in FULL_PRECISION else f"-from-{base}"),
        path=model.folder,
        precision=name,
        size_bytes=sum(file.stat().st_size for file in model.folder.glob("*.safetensors")),
        env_hash=env_hash,
        details={"method": "none", "source": model.source, "base_precision": model.base_precision},
    )

"""Variants for vLLM: the model's own folder, a checkpoint quantized by llm-compressor in its own environment, or a ready one.

Full precision writes nothing: vLLM casts the weights itself. What is quantized here is a compressed-tensors folder, kept by content.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler import english, environments
from profiler.engines import variant_folder
from profiler.engines.protocol import Progress
from profiler.errors import ModelError, SpecError
from profiler.records import LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import CalibrationSpec, VariantSpec

SCRIPT = Path(__file__).parent / "vllm_quantize.py"
FULL_PRECISION = ("bf16", "fp16", "f16", "f32", "fp32")
MADE = ("w8a8", "w8a16", "w4a16", "fp8")  # what vllm_quantize.py makes
SENTENCES = 40  # per calibration sample, cut at the spec's tokens
RECIPE = 1  # raise it when vllm_quantize.py makes something else from the same input
# What a ready checkpoint must have in common with the model whose name it is measured under.
SAME = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")


def check(spec: VariantSpec, where: str) -> None:
    """Raises SpecError for what is never made for vLLM."""
    if spec.weight_format in ("int8", "int4"):
        names = {"int8": "w8a8 (8-bit weights and activations) or w8a16", "int4": "w4a16"}[spec.weight_format]
        raise SpecError(f"{where}: variant.weight_format: {spec.weight_format} does not say what the activations are", hint=f"use {names}")
    if spec.group_size is not None and spec.weight_format not in ("w8a16", "w4a16"):
        raise SpecError(
            f"{where}: variant.group_size: only w4a16 and w8a16 have groups", hint="remove it; w8a8 and fp8 scale by output channel"
        )
    if spec.method is not None and spec.weight_format not in MADE:
        raise SpecError(f"{where}: variant.method: {spec.weight_format} is not quantized", hint=f"remove it, or use {', '.join(MADE)}")


def prepare(model: LocalModel, spec: VariantSpec, env_hash: str, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
    """The variant in the form vLLM loads. Raises SpecError, ModelError, EnvironmentError_."""
    check(spec, "vllm")
    base = model.base_precision.lower()
    origin = {"source": model.source, "base_precision": model.base_precision}
    from_base = "" if base in FULL_PRECISION else f"-from-{base}"
    own = quantization(model.folder)
    if spec.checkpoint is not None:
        return _ready(model, spec.checkpoint, env_hash, progress)
    if own is not None and spec.weight_format != "as-is":
        name = own.get("quant_method", "quantized")
        raise ModelError(
            f"{model.name}: its weights are {name} already", hint="weight_format = 'as-is' serves them; or give the bf16 model"
        )
    if spec.weight_format not in MADE:
        name = spec.weight_format if spec.weight_format != "as-is" else ("bf16" if own is None and base not in FULL_PRECISION else base)
        found: dict[str, Any] = {
            "method": "none, the weights as they are",
            "group_size": None,
            "calibration": None,
            "kept_in_higher_precision": [],
        }
        if own is not None:
            found = described(model.folder, own)
            from_base = ""
        found |= {"weight_format": name, "size_on_disk_bytes": variant_folder.size_bytes(model.folder), **origin}
        return Variant(name + from_base, model.folder, name, _weights(model.folder), env_hash, found)
    method = spec.method or "rtn"
    calibration = calibration_of(spec)
    target = folder(model, spec)
    made = variant_folder.details(
        target, label(model, spec), progress, lambda part: _quantize(model, spec, part, target, progress, pip_args)
    )
    made |= {"calibration": calibration[1] if calibration else None, **origin}
    name = format_of(spec) + ("" if method == "rtn" else f"-{method}") + (f"-g{group}" if (group := group_size_of(spec)) else "")
    return Variant(name + from_base, target, format_of(spec), _weights(target), env_hash, made)


def format_of(spec: VariantSpec) -> str:
    """The weights as `vllm_cpu.refusal` knows them."""
    return spec.weight_format + ("-reduced" if spec.reduced_range else "")


def label(model: LocalModel, spec: VariantSpec) -> str:
    return f"{model.name} {spec.weight_format} {spec.method or 'rtn'}"


def group_size_of(spec: VariantSpec) -> int | None:
    """128 for 4-bit weights, the usual choice and that of ready checkpoints, unless the spec says another; None scales by output channel."""
    return spec.group_size or (128 if spec.weight_format == "w4a16" else None)


def folder(model: LocalModel, spec: VariantSpec) -> Path:
    """Where the variant is kept: the model's content, the recipe, the calibration text and the environment decide."""
    calibration = calibration_of(spec)
    identity = environments.identity(environments.ENVIRONMENTS["llmcompressor"])
    how = [spec.weight_format, group_size_of(spec), spec.method or "rtn", calibration[1] if calibration else None, spec.reduced_range]
    return variant_folder.folder(["vllm", model.content_hash, *how, identity, RECIPE])


def calibration_of(spec: VariantSpec) -> tuple[list[str], dict[str, Any]] | None:
    """The texts, and what a record says of them; None for a method that looks at none."""
    if spec.method in (None, "rtn"):
        return None
    from profiler.spec import CalibrationSpec

    wanted: CalibrationSpec = spec.calibration or CalibrationSpec()
    endless = english.sentences(random.Random(f"calibration/{wanted.seed}"))
    texts = [" ".join(islice(endless, SENTENCES)) for _ in range(wanted.samples)]
    sha256 = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return texts, {**wanted.model_dump(mode="json"), "sha256": sha256[:16]}


def _quantize(model: LocalModel, spec: VariantSpec, part: Path, target: Path, progress: Progress, pip_args: Sequence[str]) -> None:
    python = environments.ensure(environments.ENVIRONMENTS["llmcompressor"], progress, pip_args).python
    command = [str(python), "-I", "-u", "-W", "ignore", str(SCRIPT), "--model", str(model.folder), "--out", str(part)]
    command += ["--weight-format", spec.weight_format, "--method", spec.method or "rtn"]
    if (group_size := group_size_of(spec)) is not None:
        command += ["--group-size", str(group_size)]
    if spec.reduced_range:
        command.append("--reduced-range")
    calibration = calibration_of(spec)
    if calibration:
        texts = part / "calibration.json"
        texts.write_text(json.dumps({"samples": calibration[0], "tokens": calibration[1]["tokens"]}), encoding="utf-8")
        command += ["--calibration", str(texts)]
    variant_folder.run_script(command, target.with_suffix(".log"), label(model, spec), progress, _explain)
    (part / "calibration.json").unlink(missing_ok=True)


def _explain(last: str, log_path: Path) -> tuple[str, str]:
    log = log_path.read_text(encoding="utf-8", errors="replace")
    message = f"llm-compressor failed: {last[:200]}"
    if "group_size=" in log and "columns=" in log:
        return (
            "the group size does not divide the model's width",
            "set [variant] group_size to a divisor of the hidden size, such as 64 or 32",
        )
    if "Cannot access accelerator device" in log:
        return (
            "llm-compressor 0.14 runs AWQ only where there is an accelerator (it pins memory)",
            "use method = 'gptq', or a ready AWQ checkpoint",
        )
    if "does not recognize this architecture" in log or "Unrecognized" in log:
        return (
            message,
            "llm-compressor's transformers does not know this architecture; use a ready quantized checkpoint: [variant] checkpoint",
        )
    return message, f"the whole output: {log_path}; or use a ready quantized checkpoint: [variant] checkpoint"


def _ready(model: LocalModel, checkpoint: str, env_hash: str, progress: Progress) -> Variant:
    """A quantized checkpoint that somebody else made of the same model."""
    path = Path(checkpoint).expanduser()
    where = path if path.is_dir() else _fetched(checkpoint, progress)
    own = quantization(where)
    if own is None:
        raise ModelError(f"checkpoint {checkpoint}: it is not quantized (no quantization_config)", hint="a full-precision one is a --model")
    theirs, ours = _config(where), _config(model.folder)
    for key in SAME:
        if theirs.get(key) != ours.get(key):
            message = f"checkpoint {checkpoint}: {key} is {theirs.get(key)}, that of {model.name} is {ours.get(key)}"
            raise ModelError(message, hint="it was made from another model; give a checkpoint of this one, or change --model")
    facts = described(where, own)
    facts |= {"size_on_disk_bytes": variant_folder.size_bytes(where), "checkpoint": checkpoint, "source": model.source}
    return Variant(facts["weight_format"], where, facts["weight_format"], _weights(where), env_hash, facts)


def _fetched(checkpoint: str, progress: Progress) -> Path:
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1:
        raise ModelError(
            f"checkpoint {checkpoint}: no such folder", hint="give a folder with config.json and *.safetensors, or a hub id ORG/NAME"
        )
    from huggingface_hub import snapshot_download

    progress(f"fetching {checkpoint} from the hub")
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=["*.safetensors", "*.json", "*.jinja"], etag_timeout=5.0))
    except Exception as error:  # each HTTP library below has its own exceptions
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "check the id and the network; without a hub give a folder: [variant] checkpoint = './FOLDER'"
        raise ModelError(f"checkpoint {checkpoint}: cannot be fetched from the hub: {line}", hint) from error


def quantization(path: Path) -> dict[str, Any] | None:
    """`quantization_config` of a model folder; None where the weights are not quantized."""
    found = _config(path).get("quantization_config")
    return found if isinstance(found, dict) else None


def described(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What a quantized checkpoint says of itself, under the keys of those made here."""
    method = str(config.get("quant_method", "unknown"))
    groups = list(config.get("config_groups", {}).values())
    weights: dict[str, Any] = (groups[0].get("weights") if groups else None) or {}
    inputs: dict[str, Any] = (groups[0].get("input_activations") if groups else None) or {}
    bits = weights.get("num_bits") or config.get("bits") or config.get("w_bit")
    floating = weights.get("type") == "float" or method == "fp8"
    name = "fp8" if floating else f"w{bits}a{8 if inputs else 16}" if bits else method
    group_size = weights.get("group_size") or config.get("group_size") or config.get("q_group_size")
    return {
        "method": method,
        "weight_format": name if method in ("compressed-tensors", name) else f"{name}-{method}",
        "group_size": group_size,
        "kept_in_higher_precision": list(config.get("ignore") or config.get("modules_to_not_convert") or []),
        "calibration": None,  # a checkpoint does not say
        "made_with": {key: config[key] for key in ("version", "format") if key in config},
    }


def _config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}/config.json: cannot be read: {error}", hint="a model folder has config.json and *.safetensors") from error
    return content if isinstance(content, dict) else {}


def _weights(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))

"""Script, run in the llmcompressor environment: a Hugging Face folder to a compressed-tensors checkpoint in one weight format.

    vllm_quantize.py --model DIR --out DIR --weight-format w8a8|w8a16|w4a16|fp8 --method rtn|gptq|awq [--group-size N] [--calibration FILE.json]
                     [--reduced-range]

FILE.json: {"samples": [text, ...], "tokens": most tokens of each}. Lines that start with `progress: ` are for people; the result is
OUT/variant.json. Imports nothing from `profiler`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

# As the model's author wrote them: what a library saves again is not always what it loaded.
VERBATIM = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
# weight format -> bits and kind of weights, and of activations (None: left as they are)
FORMATS: dict[str, tuple[int, str, str | None]] = {
    "w8a8": (8, "int", "int"),
    "w8a16": (8, "int", None),
    "w4a16": (4, "int", None),
    "fp8": (8, "float", "float"),
}
# The output layer, and routers of mixtures of experts: small, and an expert chosen wrongly costs more than it saves.
KEEP = ["lm_head", "re:.*\\.gate$", "re:.*router.*"]
QUANTISED = {"I8", "I32", "U8", "F8_E4M3"}  # element types of quantised weights in safetensors; I32 packs several into one
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "I32": 4, "I64": 8}
METHODS = {"rtn": "round to nearest, data-free", "gptq": "GPTQ", "awq": "AWQ scales, then round to nearest"}


def say(text: str) -> None:
    print(f"progress: {text}", flush=True)  # noqa: T201 - the launcher reads it


def scheme(weight_format: str, group_size: int | None) -> dict[str, Any]:
    """compressed-tensors' description of the format: weights by output channel or by group, activations by token as they come."""
    bits, kind, activations = FORMATS[weight_format]
    weights: dict[str, Any] = {"num_bits": bits, "type": kind, "symmetric": True, "dynamic": False}
    weights |= {"strategy": "group", "group_size": group_size} if group_size else {"strategy": "channel"}
    group: dict[str, Any] = {"targets": ["Linear"], "weights": weights}
    if activations:
        group["input_activations"] = {"num_bits": 8, "type": activations, "symmetric": True, "dynamic": True, "strategy": "token"}
    return group


def quantise(model_dir: Path, out: Path, recipe: list[Any], calibration: dict[str, Any] | None) -> None:
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    extra: dict[str, Any] = {}
    if calibration is not None:
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        rows = [tokenizer(text, truncation=True, max_length=calibration["tokens"], return_tensors="pt") for text in calibration["samples"]]
        inputs = [{"input_ids": row["input_ids"], "attention_mask": row["attention_mask"]} for row in rows]
        # A loader that is ready made: order and lengths are ours, nothing is shuffled or padded.
        loader = torch.utils.data.DataLoader(inputs, batch_size=1, collate_fn=lambda batch: batch[0])
        extra = {"dataset": loader, "num_calibration_samples": len(rows), "pipeline": "sequential"}
    oneshot(model=model, recipe=recipe, **extra)
    say("writing")
    model.save_pretrained(out, save_compressed=True)


def reduce_range(model_dir: Path, out: Path) -> None:
    """int8 weights again, from the base, within -64..64: pairs of products of 8-bit activations then never leave 16 bits (2*255*64 < 2**15)."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    base: dict[str, Any] = {}
    for path in sorted(model_dir.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            base |= {name: (path, name) for name in file.keys()}  # noqa: SIM118 - not a dict
    for path in sorted(out.glob("*.safetensors")):
        tensors = load_file(path)
        for name in [n for n in tensors if n.endswith(".weight_scale")]:
            weight = name.removesuffix("_scale")
            if weight in base:
                with safe_open(base[weight][0], framework="pt") as file:
                    exact = file.get_tensor(weight).float()
            else:  # named otherwise in the base, as fused experts are
                exact = tensors[weight].float() * tensors[name].float()
            scale = (exact.abs().amax(dim=1, keepdim=True) / 64).clamp(min=1e-8).to(tensors[name].dtype)
            tensors[name] = scale
            tensors[weight] = (exact / scale.float()).round().clamp(-64, 64).to(tensors[weight].dtype)
        save_file(tensors, path, metadata={"format": "pt"})


def recipe_of(method: str, weight_format: str, group_size: int | None) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    groups = {"group_0": scheme(weight_format, group_size)}
    if method == "gptq":
        return [GPTQModifier(config_groups=groups, ignore=KEEP)]
    plain = QuantizationModifier(config_groups=groups, ignore=KEEP)
    return [AWQModifier(), plain] if method == "awq" else [plain]


def headers(out: Path) -> dict[str, dict[str, Any]]:
    """Type and shape of every tensor, from the safetensors headers (8 bytes little-endian length, then JSON; the format's README)."""
    tensors: dict[str, dict[str, Any]] = {}
    for path in sorted(out.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            tensors |= json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    return tensors


def describe(out: Path) -> dict[str, Any]:
    """Bytes of weights by element type, and the matrices that were left in high precision. Scales and norms are neither."""
    by_type: Counter[str] = Counter()
    higher = []
    for name, tensor in headers(out).items():
        kind, shape = tensor["dtype"], tensor["shape"]
        count = 1
        for length in shape:
            count *= length
        if count < 4096:
            continue
        by_type[kind.lower()] += count * BYTES[kind]
        if kind not in QUANTISED and len(shape) >= 2 and not name.endswith(("_scale", "_zero_point")):
            higher.append(f"{name}: {kind.lower()}")
    return {"weight_bytes_by_type": dict(by_type), "kept_in_higher_precision": higher}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weight-format", choices=tuple(FORMATS), required=True)
    parser.add_argument("--method", choices=tuple(METHODS), default="rtn")
    parser.add_argument("--group-size", type=int)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--reduced-range", action="store_true")
    options = parser.parse_args()
    calibration = json.loads(options.calibration.read_text(encoding="utf-8")) if options.calibration else None
    say(f"quantising to {options.weight_format}, {METHODS[options.method]}")
    quantise(options.model, options.out, recipe_of(options.method, options.weight_format, options.group_size), calibration)
    if options.reduced_range:
        say("rounding the weights to -64..64")
        reduce_range(options.model, options.out)
    for name in VERBATIM:
        if (options.model / name).is_file():
            shutil.copyfile(options.model / name, options.out / name)
    found = describe(options.out)
    sizes = found["weight_bytes_by_type"]
    if not any(kind.upper() in QUANTISED for kind in sizes):  # a library that quietly skips the step must not give a variant its name
        print(f"asked for {options.weight_format} weights, but the checkpoint holds {sizes}", file=sys.stderr)  # noqa: T201
        return 1
    details = {
        "method": f"compressed-tensors {options.weight_format}: {METHODS[options.method]}, symmetric"
        + (", weights in -64..64" if options.reduced_range else ""),
        "weight_format": options.weight_format,
        "group_size": options.group_size,
        **found,
        "made_with": {name: version(name) for name in ("llmcompressor", "compressed-tensors", "transformers", "torch")},
    }
    (options.out / "variant.json").write_text(json.dumps(details, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

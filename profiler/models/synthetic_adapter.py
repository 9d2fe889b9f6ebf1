"""LoRA adapters and draft models made from a model folder, for measuring what they cost: no training, no download, no PyTorch.

An adapter has random matrices, small enough that the model still writes its language. A draft is the base without its later layers: it
has the base's tokenizer, and guesses right sometimes. Safetensors are written here: 8 bytes little-endian length, a JSON header, the
tensors (the format's README).
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from profiler.errors import ModelError

TARGETS = ("q_proj", "v_proj")  # what LoRA's authors adapt (arXiv 2106.09685, section 7.1)
SCALE = 0.02


def write_adapter(base: Path, out: Path, *, rank: int = 8, seed: int = 1, targets: tuple[str, ...] = TARGETS) -> Path:
    """`out` as a LoRA adapter of `base` in peft's format, float32. Raises ModelError where the base has no such layers."""
    draw = np.random.default_rng(seed)
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for name, (_, shape, _) in sorted(_tensors(base).items()):
        inside = name.removesuffix(".weight")
        if inside.rpartition(".")[2] not in targets or len(shape) != 2:
            continue
        outputs, inputs = shape
        for kind, size in (("A", (rank, inputs)), ("B", (outputs, rank))):
            values = draw.normal(0, SCALE, size).astype("<f4")
            tensors[f"base_model.model.{inside}.lora_{kind}.weight"] = ("F32", list(size), values.tobytes())
    if not tensors:
        raise ModelError(f"{base}: no layers called {', '.join(targets)}", hint="name those of this architecture")
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "bias": "none"}
    config |= {"target_modules": list(targets), "base_model_name_or_path": str(base.name), "inference_mode": True}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return out


def write_draft(base: Path, out: Path, layers: int) -> Path:
    """`out` as the first `layers` layers of `base`, with its embeddings, last norm and tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    for file in base.glob("*"):
        if file.suffix in (".json", ".jinja") and not file.name.startswith((".", "profiler-")) and "index" not in file.name:
            shutil.copyfile(file, out / file.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}, indent=1), encoding="utf-8")
    kept = {}
    for name, (kind, shape, where) in _tensors(base).items():
        number = re.search(r"\.layers\.(\d+)\.", name)
        if number is None or int(number[1]) < layers:
            path, begin, end = where
            with path.open("rb") as file_:
                file_.seek(begin)
                kept[name] = (kind, shape, file_.read(end - begin))
    _write(out / "model.safetensors", kept)
    return out


def _tensors(folder: Path) -> dict[str, tuple[str, list[int], tuple[Path, int, int]]]:
    """Type, shape and place (file, first byte, behind the last) of every tensor."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                found[name] = (tensor["dtype"], list(tensor["shape"]), (path, 8 + length + begin, 8 + length + end))
    return found


def _write(path: Path, tensors: Mapping[str, tuple[str, list[int], bytes]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)

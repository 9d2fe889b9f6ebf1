"""LoRA adapters in peft's format, checked against the base before a server starts: vLLM would load some wrong ones and die on others."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import EngineError

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

DEFAULT_MAX_RANK = 16  # vLLM's own (LoRAConfig.max_lora_rank, vLLM 0.32.0)


def check(backend: BackendSpec, base: Path, base_name: str) -> None:
    """Raises EngineError for an adapter that is not one, that was made for another base, or whose rank is above the server's.

    A hub id is not looked at: vLLM reads it from the hub's cache and judges it itself.
    """
    shapes: dict[str, list[int]] | None = None
    if backend.options.get("adapters") and backend.device == "cpu" and backend.variant.weight_format == "w8a8":
        # vLLM 0.32.0: oneDNN keeps the packed weights for itself, and lora/layers/utils.py asks `base_layer.weight.device` of None.
        cause = "vLLM's int8 layers on a CPU give their weights away to oneDNN, and its LoRA layers need them"
        raise EngineError(f"backend {backend.name}: adapters on w8a8: {cause}", hint="use weight_format = 'bf16' with adapters on a CPU")
    for name, given in backend.options.get("adapters", {}).items():
        where = f"backend {backend.name}: adapter {name}"
        folder = Path(given).expanduser()
        if not folder.is_dir():
            if given.startswith((".", "/", "~")) or given.count("/") != 1:
                raise EngineError(f"{where}: no such folder: {given}", hint="give a folder with adapter_config.json, or a hub id ORG/NAME")
            continue
        config = _config(folder, where)
        limit = backend.options.get("max_lora_rank", DEFAULT_MAX_RANK)
        if int(config.get("r", 0)) > limit:
            raise EngineError(
                f"{where}: its rank is {config['r']}, the server's most is {limit}", hint=f"set max_lora_rank = {config['r']}"
            )
        shapes = _shapes(base) if shapes is None else shapes
        wrong = _mismatch(_shapes(folder, "adapter_model.safetensors"), shapes)
        if wrong:
            trained = config.get("base_model_name_or_path")
            hint = f"it was trained on {trained}" if trained else "give an adapter that was trained on this base"
            raise EngineError(f"{where}: it does not fit {base_name}: {wrong}", hint=f"{hint}; remove it, or change --model")


def _mismatch(adapter: dict[str, list[int]], base: dict[str, list[int]]) -> str | None:
    """The first matrix that the base has not, or has in another size. A: rank x in, B: out x rank, the base's weight: out x in."""
    for name, shape in sorted(adapter.items()):
        inside, found, kind = name.removeprefix("base_model.model.").partition(".lora_")
        if not found or kind[:2] not in ("A.", "B."):
            continue
        own = base.get(f"{inside}.weight")
        if own is None:
            return f"the base has no {inside}"
        wanted, got = (own[1], shape[1]) if kind[0] == "A" else (own[0], shape[0])
        if wanted != got:
            return f"{inside} has {'inputs' if kind[0] == 'A' else 'outputs'} of {wanted}, the adapter's are {got}"
    return None


def _config(folder: Path, where: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("peft_type", "LORA") == "LORA" and (folder / "adapter_model.safetensors").is_file():
            return content
    except (OSError, ValueError):
        pass
    raise EngineError(
        f"{where}: {folder} is no LoRA adapter", hint="it has adapter_config.json (peft_type LORA) and adapter_model.safetensors"
    )


def _shapes(folder: Path, pattern: str = "*.safetensors") -> dict[str, list[int]]:
    """Shapes by name, from the safetensors headers (8 bytes little-endian length, then JSON; the format's README)."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob(pattern)):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, path.stat().st_size)))
        except (OSError, ValueError, struct.error) as error:
            raise EngineError(f"{path}: not a safetensors file: {error}", hint="download or make it again") from error
        shapes |= {name: list(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
    return shapes

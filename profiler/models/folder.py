"""What is in a model folder, and whether it is complete."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

from profiler.errors import ModelError
from profiler.records import LocalModel

_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "f32"}
# The files that decide what a model says; a changed README is the same model.
_CONTENT = re.compile(r".*\.safetensors(\.index\.json)?|config\.json|generation_config\.json|tokenizer.*\.json|chat_template.*|.*\.gguf")


def inspect(
    folder: Path, name: str, source: str, base_precision: str | None = None, trust_remote_code: bool = False, **facts: Any
) -> LocalModel:
    """A Hugging Face folder as a LocalModel. Raises ModelError naming what is missing or not allowed."""
    for needed, why in (("config.json", "its architecture"), ("tokenizer.json", "its tokenizer")):
        if not (folder / needed).is_file():
            raise ModelError(
                f"{folder}: no {needed} ({why})",
                hint="a model folder in Hugging Face form has config.json, *.safetensors and tokenizer.json",
            )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: no *.safetensors weights", hint="convert other formats first; a folder with one .gguf file works as well"
        )
    config = _json(folder / "config.json")
    if "auto_map" in config and not trust_remote_code:
        raise ModelError(
            f"{name}: the model brings code of its own (auto_map in config.json)",
            hint="read that code, then add --trust-remote-code to run it",
        )
    context = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    if not isinstance(context, int):
        raise ModelError(f"{folder}/config.json: no max_position_embeddings", hint="the context length is needed to fit prompts into it")
    return LocalModel(
        name=name,
        folder=folder,
        content_hash=content_hash(folder),
        source=source,
        base_precision=base_precision or _precision(config),
        max_context_tokens=context,
        n_parameters=facts.get("n_parameters") or count_parameters(folder),
        license=facts.get("license"),
    )


def _precision(config: dict[str, Any]) -> str:
    """Of the weights as they lie there; a checkpoint that is quantised names its method and bits, such as `gptq4`."""
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        return f"{quantised.get('quant_method', 'compressed')}{quantised.get('bits') or quantised.get('w_bit') or ''}"
    return _PRECISIONS.get(str(config.get("dtype") or config.get("torch_dtype")), "unknown")


def content_hash(folder: Path) -> str:
    """sha256 over names and contents of weights, config and tokenizer, first 16 hex digits.

    Hashing gigabytes takes seconds each time, so the result is remembered beside the folder's files' sizes and times.
    """
    files = sorted(path for path in folder.iterdir() if _CONTENT.fullmatch(path.name))
    stamp = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    note = folder / ".profiler-hash.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + file_sha256(path).encode())
    result = digest.hexdigest()[:16]
    try:
        note.write_text(json.dumps({"stamp": stamp, "hash": result}), encoding="utf-8")
    except OSError:
        pass  # a read-only model folder is fine, only slower
    return result


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_parameters(folder: Path) -> int | None:
    """Elements of all tensors, from the safetensors headers (8 bytes little-endian length, then JSON; the format's README)."""
    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > path.stat().st_size:
                    raise ValueError("its header would be longer than the file (a git-lfs pointer?)")
                header = dict(json.loads(file.read(length)))
        except (OSError, ValueError, TypeError, struct.error) as error:
            raise ModelError(f"{path}: not a safetensors file: {error}", hint="download or convert the model again") from error
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= dimension
                total += size
    return total or None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}", hint="download or convert the model again") from error
    return content if isinstance(content, dict) else {}

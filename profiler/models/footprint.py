"""How much memory a model takes: bytes of its weights in a format, and bytes of KV cache per token. Pure arithmetic on files that are read once.

Sources. safetensors headers: the format's README (8 bytes little-endian length, then JSON). KV cache of grouped-query attention:
2 (K and V) x layers x KV heads x head size x bytes (Ainslie et al. 2023, arXiv 2305.13245). Multi-head latent attention keeps one latent
and one rotary key per token and layer, no heads and no V: kv_lora_rank + qk_rope_head_dim (DeepSeek-V2, arXiv 2405.04434, section 2.1).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

from profiler.errors import ModelError

BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "BOOL": 8,
}
KV_BYTES = {
    "f32": 4.0,
    "float32": 4.0,
    "bf16": 2.0,
    "bfloat16": 2.0,
    "f16": 2.0,
    "float16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
}
KERNELS = {"fp16": (6.2e6, 0.31e6), "int8": (5.9e6, 0.27e6), "int4": (6.0e6, 0.095e6)}  # bytes, and bytes per layer (kernel_bytes)
HIGH_BITS = 16.0  # of a weight that is not quantized
# Of the matrices of a model these are looked up or project to the vocabulary; weight compression treats them apart (see `Format`).
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "tok_embeddings")
HEADS = ("lm_head", "embed_out", "output.weight")


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        return self.elements * BITS.get(self.dtype, 16) // 8

    @property
    def role(self) -> str:
        """embedding | head | expert (of a mixture, its biases too) | matrix | small (norms, biases, rotary tables, routers' corrections)."""
        if ".experts." in self.name:
            return "expert"
        if len(self.shape) < 2:
            return "small"
        if any(part in self.name for part in EMBEDDINGS):
            return "embedding"
        return "head" if any(part in self.name for part in HEADS) else "matrix"


@dataclass(frozen=True)
class Format:
    """Bytes per weight of the matrices, and what is different for embedding and head (None: the same)."""

    bits: float
    scale_bytes: float = 0.0  # per output channel, or per group if there are groups; zero point included
    group_size: int | None = None
    embedding: Format | None = None


# nncf 3.4, `compress_weights`: int8 is asymmetric per output channel (u8, f16 scale, u8 zero point), embeddings too; int4 is asymmetric per
# group (u4, f16 scale, u4 zero point), embedding and last matrix stay int8 unless all_layers is asked for.
_NNCF8 = Format(8, 3)
# compressed-tensors (llm-compressor presets): W8A8 int8 with a 16-bit scale per output channel; W4A16 symmetric, a 16-bit scale per group;
# fp8 a 16-bit scale per channel. lm_head is ignored and embeddings are no Linear: both stay in 16 bits.
_HIGH = Format(HIGH_BITS)
FORMATS: dict[tuple[str, str], Format] = {
    ("openvino", "fp16"): Format(HIGH_BITS),
    ("openvino", "bf16"): Format(HIGH_BITS),
    ("openvino", "as-is"): Format(HIGH_BITS),
    ("openvino", "int8"): _NNCF8,
    ("openvino", "int4"): Format(4, 2.5, 128, _NNCF8),
    ("vllm", "w8a8"): Format(8, 2, None, _HIGH),
    ("vllm", "w8a16"): Format(8, 2, None, _HIGH),
    ("vllm", "fp8"): Format(8, 2, None, _HIGH),
    ("vllm", "w4a16"): Format(4, 2, 128, _HIGH),
    ("vllm", "bf16"): Format(HIGH_BITS),
    ("vllm", "fp16"): Format(HIGH_BITS),
}


@dataclass(frozen=True)
class Weights:
    """Bytes by part. A tied head is the embedding's matrix and counted once."""

    matrix_bytes: int
    expert_bytes: int
    embedding_bytes: int
    head_bytes: int
    small_bytes: int
    stacked: int = 0  # weights of experts that lie in one tensor with the others of their layer, as GPT-OSS has them

    @property
    def total_bytes(self) -> int:
        return self.matrix_bytes + self.expert_bytes + self.embedding_bytes + self.head_bytes + self.small_bytes


def tensors(folder: Path) -> tuple[Tensor, ...]:
    """Every tensor of a folder's safetensors files, from the headers alone. Raises ModelError."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > path.stat().st_size:
                    raise ValueError("its header would be longer than the file")
                header: dict[str, Any] = json.loads(file.read(length))
            found += [Tensor(k, str(v["dtype"]), tuple(map(int, v["shape"]))) for k, v in header.items() if k != "__metadata__"]
        except (OSError, ValueError, TypeError, KeyError, struct.error) as error:
            raise ModelError(f"{path}: not a safetensors file: {error}", hint="download or convert the model again") from error
    return tuple(found)


def config(folder: Path) -> dict[str, Any]:
    """config.json, the text part of a multimodal one. Raises ModelError."""
    try:
        raw: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}/config.json: cannot be read: {error}", hint="download or convert the model again") from error
    inner: dict[str, Any] = raw.get("text_config", raw)
    return inner


def weights(parts: Sequence[Tensor], engine: str, weight_format: str, group_size: int | None = None, high_bits: float = 16) -> Weights:
    """Bytes of the weights as `engine` keeps them in `weight_format`; what is stored already quantized keeps its own bytes. `high_bits`: of
    what is not quantized (32 where an engine that was asked for bfloat16 computes in float32)."""
    form = FORMATS.get((engine, weight_format))
    of = {"matrix": 0, "expert": 0, "embedding": 0, "head": 0, "small": 0}
    for tensor in parts:
        of[tensor.role] += tensor.stored_bytes if form is None else _bytes(tensor, form, group_size, high_bits)
    stacked = sum(tensor.elements for tensor in parts if tensor.role == "expert" and len(tensor.shape) > 2)
    return Weights(of["matrix"], of["expert"], of["embedding"], of["head"], of["small"], stacked)


def _bytes(tensor: Tensor, form: Format, group_size: int | None, high_bits: float) -> int:
    if tensor.role == "small":
        return int(tensor.elements * high_bits / 8)
    if tensor.role in ("embedding", "head") and form.embedding is not None:
        form, group_size = form.embedding, None
    group = (group_size or form.group_size) if form.group_size else None
    rows = tensor.elements // tensor.shape[-1]
    scales = rows * (ceil(tensor.shape[-1] / group) if group else 1)
    bits = high_bits if form.bits == HIGH_BITS else form.bits
    return int(tensor.elements * bits / 8 + scales * form.scale_bytes)


def kernel_bytes(layers: int, weight_format: str) -> int:
    """What OpenVINO's kernels take when they first run, beside the weights that they pack and the activations: their code and scratch memory.
    Seen as what a process grew by and the others do not explain (docs/memory.md)."""
    fixed, layer = KERNELS.get(weight_format, KERNELS["fp16"])
    return int(fixed + layer * layers)


def activation_bytes(parts: Sequence[Tensor], raw: Mapping[str, Any], batched: int, sequences: int) -> int:
    """f32 logits of each running sequence, and of each of `batched` tokens in a step twice the widest row of a layer, input and output of its
    MLP (or of a wider matrix, as where gate and up are one), in f32. `raw`: config.json."""
    hidden = int(raw.get("hidden_size", 0))
    width = max([int(raw.get("intermediate_size") or 4 * hidden), *(tensor.shape[0] for tensor in parts if tensor.role == "matrix")])
    return 4 * (sequences * int(raw.get("vocab_size", 0)) + batched * 2 * (hidden + width))


def rotary_bytes(raw: Mapping[str, Any], high_bits: float) -> int:
    """vLLM's table of cosines and sines, one for all layers: as many positions as the context has (YaRN: the original context times its factor),
    each of the size of what is rotated of a head (vLLM 0.32, rotary_embedding/base.py). 34 MB of a GPT-OSS with random weights of 88."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    positions = int(raw.get("max_position_embeddings") or 0)
    if scaling.get("rope_type", scaling.get("type")) == "yarn":
        positions = int(float(scaling.get("factor", 1)) * int(scaling.get("original_max_position_embeddings") or positions))
    head = raw.get("head_dim") or int(raw.get("hidden_size", 0)) // max(1, int(raw.get("num_attention_heads") or 1))
    turned = raw.get("qk_rope_head_dim") or int(head * float(raw.get("partial_rotary_factor") or 1))
    return int(positions * int(turned) * high_bits / 8)


@dataclass(frozen=True)
class KvShape:
    """What one token leaves in the cache, and the window beyond which some layers forget (None: they keep everything)."""

    layers: int
    values: int  # per token and layer: K and V of all KV heads, or the latent of MLA
    heads: int  # vectors per token and layer: each has its own scale in a quantized cache
    sliding_layers: int = 0
    window: int | None = None

    def token_bytes(self, precision: str) -> float:
        """Bytes per token over all layers. OpenVINO's `u8` adds f32 scale and zero point: V per token and head (8 bytes), K per channel over
        32 tokens (8 bytes x head size / 32); seen in the pool's size, docs/memory.md."""
        if precision == "u8":
            size = self.values / self.heads if self.heads else 0
            return self.layers * (self.values + self.heads / 2 * (8 + size * 8 / 32))
        return self.layers * self.values * KV_BYTES.get(precision, 2.0)

    def sequence_bytes(self, tokens: int, precision: str, block: int = 1, forgets: bool = False) -> int:
        """One sequence of `tokens`, in whole blocks. `forgets`: the engine frees what lies before a sliding window."""
        whole = ceil(tokens / block) * block
        if not forgets or self.window is None or self.layers == 0:
            return int(whole * self.token_bytes(precision))
        kept = min(whole, ceil(self.window / block) * block + block)  # a window seldom begins at a block's edge
        share = self.sliding_layers / self.layers
        return int((whole * (1 - share) + kept * share) * self.token_bytes(precision))


def kv_shape(folder: Path, latent: bool = True) -> KvShape:
    """From config.json. `latent`: the engine keeps MLA's latent (vLLM does); without it every head's K and V are kept. Raises ModelError."""
    raw = config(folder)
    try:
        layers = int(raw.get("num_hidden_layers", raw.get("n_layer")))  # type: ignore[arg-type]
        heads = int(raw.get("num_attention_heads", raw.get("n_head")))  # type: ignore[arg-type]
        hidden = int(raw.get("hidden_size", raw.get("n_embd")))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder}/config.json: no layers, heads or hidden size", hint="the KV cache cannot be computed") from error
    if raw.get("kv_lora_rank"):
        rope = int(raw["qk_rope_head_dim"])
        if latent:
            return KvShape(layers, int(raw["kv_lora_rank"]) + rope, 1)
        size = int(raw["qk_nope_head_dim"]) + rope
        return KvShape(layers, heads * (size + int(raw["v_head_dim"])), 2 * heads)
    kv_heads = int(raw.get("num_key_value_heads") or (1 if raw.get("multi_query") else heads))
    head_dim = int(raw.get("head_dim") or hidden // heads)
    window = raw.get("sliding_window") if raw.get("use_sliding_window", True) else None
    kinds = raw.get("layer_types") or (["sliding_attention"] * layers if window else [])
    sliding = sum(1 for kind in kinds if kind == "sliding_attention") if window else 0
    return KvShape(layers, 2 * kv_heads * head_dim, 2 * kv_heads, sliding, int(window) if window and sliding else None)

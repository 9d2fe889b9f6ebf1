"""Weights and KV cache by hand-made models whose sizes are known on paper."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import ModelError
from profiler.models import footprint
from profiler.models.footprint import KvShape, Tensor

LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def folder(path: Path, config: dict[str, Any], shapes: dict[str, tuple[str, list[int]]] | None = None) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    header = json.dumps({name: {"dtype": kind, "shape": shape, "data_offsets": [0, 0]} for name, (kind, shape) in (shapes or {}).items()})
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    return path


def test_kv_of_published_models(tmp_path: Path) -> None:
    # Llama 3.1 8B: 128 KiB per token in 16 bits; DeepSeek-V3: 61 layers x 576 values = 70,272 bytes (its report's table of caches).
    assert footprint.kv_shape(folder(tmp_path, LLAMA)).token_bytes("bf16") == 131072
    mla = LLAMA | {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    assert footprint.kv_shape(folder(tmp_path, mla)).token_bytes("bf16") == 70272
    assert footprint.kv_shape(folder(tmp_path, mla), latent=False).token_bytes("bf16") == 61 * 32 * (192 + 128) * 2


def test_head_dim_of_the_config_counts_and_one_kv_head(tmp_path: Path) -> None:
    assert footprint.kv_shape(folder(tmp_path, LLAMA | {"head_dim": 256})).values == 2 * 8 * 256
    assert footprint.kv_shape(folder(tmp_path, LLAMA | {"num_key_value_heads": None, "multi_query": True})).values == 2 * 128


def test_a_sliding_window_caps_its_layers_only(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 16
    shape = footprint.kv_shape(folder(tmp_path, LLAMA | {"sliding_window": 128, "layer_types": kinds}))
    assert (shape.sliding_layers, shape.window) == (16, 128)
    full = shape.sequence_bytes(1024, "bf16", 16)
    assert full == 1024 * 131072
    assert shape.sequence_bytes(1024, "bf16", 16, forgets=True) == full // 2 + (128 + 16) * 131072 // 2
    unused = footprint.kv_shape(folder(tmp_path, LLAMA | {"sliding_window": 128, "use_sliding_window": False}))
    assert unused.window is None


def test_u8_of_openvino_carries_its_scales() -> None:
    # Seen in OpenVINO's pool for SmolLM2: 13,680 bytes per token (docs/memory.md).
    assert KvShape(layers=30, values=2 * 3 * 64, heads=6).token_bytes("u8") == 13680


@given(st.integers(1, 5000), st.sampled_from([1, 16, 32, 128]), st.booleans())
def test_blocks_round_up_and_a_longer_sequence_never_takes_less(tokens: int, block: int, forgets: bool) -> None:
    shape = KvShape(layers=4, values=128, heads=4, sliding_layers=2, window=256)
    size = shape.sequence_bytes(tokens, "bf16", block, forgets)
    assert size <= shape.sequence_bytes(tokens + 1, "bf16", block, forgets)
    if not forgets:
        assert 0 <= size - tokens * shape.token_bytes("bf16") < block * shape.token_bytes("bf16")


def test_weights_by_format_on_paper() -> None:
    parts = [
        Tensor("model.embed_tokens.weight", "BF16", (1000, 64)),
        Tensor("l.q_proj.weight", "BF16", (64, 128)),
        Tensor("n.w", "BF16", (64,)),
    ]
    assert footprint.weights(parts, "openvino", "bf16").total_bytes == 2 * (64000 + 8192 + 64)
    int8 = footprint.weights(parts, "openvino", "int8")
    assert (int8.matrix_bytes, int8.embedding_bytes, int8.small_bytes) == (8192 + 64 * 3, 64000 + 1000 * 3, 128)
    int4 = footprint.weights(parts, "openvino", "int4", 64)
    assert int4.matrix_bytes == 4096 + int(64 * 2 * 2.5) and int4.embedding_bytes == int8.embedding_bytes
    w4 = footprint.weights(parts, "vllm", "w4a16", 64)
    assert w4.matrix_bytes == 4096 + 64 * 2 * 2 and w4.embedding_bytes == 128000  # embeddings stay in 16 bits


def test_as_is_takes_what_the_headers_say(tmp_path: Path) -> None:
    made = folder(tmp_path, LLAMA, {"a.weight": ("I8", [10, 10]), "a.scale": ("F32", [10, 1])})
    assert footprint.weights(footprint.tensors(made), "vllm", "as-is").total_bytes == 140


def test_what_cannot_be_read_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        footprint.kv_shape(folder(tmp_path, {"model_type": "x"}))
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(ModelError, match="not a safetensors file"):
        footprint.tensors(tmp_path)


def test_rotary_tables_have_a_row_for_each_position_that_yarn_reaches() -> None:
    plain = {"max_position_embeddings": 4096, "hidden_size": 384, "num_attention_heads": 6}
    assert footprint.rotary_bytes(plain, 16) == 4096 * 64 * 2
    assert footprint.rotary_bytes(plain | {"qk_rope_head_dim": 32, "head_dim": 96}, 32) == 4096 * 32 * 4
    assert footprint.rotary_bytes(plain | {"partial_rotary_factor": 0.5, "rope_scaling": None}, 16) == 4096 * 32 * 2
    yarn = {"rope_parameters": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}}
    assert footprint.rotary_bytes(plain | yarn, 32) == 33_554_432
    assert footprint.rotary_bytes({}, 16) == 0

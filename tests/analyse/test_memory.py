"""Will it fit: what is said before a start, and what is said of the prediction afterwards."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from profiler import plan
from profiler.analyse import memory
from profiler.machine.memory import DeviceMemory
from profiler.records import LocalModel
from profiler.spec import SweepSpec

GIB = 1 << 30


@pytest.fixture
def model(tmp_path: Path) -> LocalModel:
    """Shapes of an 8B Llama as far as memory sees them; only headers, no weights."""
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "vocab_size": 128256}
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 14336}))
    header = json.dumps({"model.layers.weight": {"dtype": "BF16", "shape": [4096, 1_960_000], "data_offsets": [0, 0]}})
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    return LocalModel("m", tmp_path, "hash", "folder", "bf16", 8192, 8_000_000_000, None)


def cell(backend: str, isl: int = 1000, concurrency: int = 4) -> plan.Cell:
    return plan.make(SweepSpec(backends=(backend,), isl=isl, osl=24, concurrency=(concurrency,))).cells[0]


def test_a_model_that_is_too_large_says_so_with_the_numbers(model: LocalModel) -> None:
    found = memory.predict(cell("vllm-cpu-bf16"), model, DeviceMemory(8 * GIB, "MemAvailable"))
    assert found is not None and found.weights_bytes == 2 * 4096 * 1_960_000
    assert found.problem is not None and "8.0 GiB free (MemAvailable)" in found.problem and "KV cache 2.0 GiB" in found.problem
    assert memory.predict(cell("vllm-cpu-bf16"), model, DeviceMemory(64 * GIB, "x")).problem is None  # type: ignore[union-attr]


def test_demand_counts_requests_in_whole_blocks_and_a_small_pool_makes_them_wait(model: LocalModel) -> None:
    found = memory.predict(cell("vllm-cpu-bf16", concurrency=40), model, DeviceMemory(64 * GIB, "x"))
    assert found is not None and found.kv_demand_bytes == 40 * 1024 * 131072  # 1,024 tokens are 8 blocks of 128
    assert found.problem is None and "requests will wait" in found.sentence


def test_a_request_beyond_the_pool_cannot_fit(model: LocalModel) -> None:
    wide = LocalModel("m", model.folder, "h", "folder", "bf16", 100_000, None, None)
    found = memory.predict(cell("vllm-cpu-bf16", isl=40_000), wide, DeviceMemory(640 * GIB, "x"))
    assert found is not None and found.problem is not None and "the pool has 2.0 GiB" in found.problem


def test_unknown_memory_is_no_verdict_and_engines_without_a_model_have_none(model: LocalModel) -> None:
    found = memory.predict(cell("vllm-cpu-bf16"), model, DeviceMemory(None, "NVML: no driver"))
    assert found is not None and found.problem is None and "unknown (NVML: no driver)" in found.sentence
    assert memory.predict(cell("null"), None, DeviceMemory(GIB, "x")) is None


def test_openvino_keeps_f32_where_the_cpu_has_no_bf16(model: LocalModel) -> None:
    here, there = (memory.predict(cell("openvino-xeon-bf16"), model, DeviceMemory(None, ""), isa) for isa in (("avx2",), ("amx_bf16",)))
    assert here is not None and there is not None and here.kv_token_bytes == 2 * there.kv_token_bytes == 262144


def test_off_names_the_part_and_only_beyond_its_tolerance() -> None:
    run = {"predicted_weights_bytes": 100, "used_weights_bytes": 105, "predicted_other_bytes": 200, "used_other_bytes": 100}
    (sentence,) = memory.off(run)
    assert "the rest" in sentence and "+100%" in sentence
    assert memory.off({"predicted_weights_bytes": 100}) == []
    # The witness of weights cannot tell half a megabyte.
    assert memory.off({"predicted_weights_bytes": 4_000_000, "used_weights_bytes": 3_550_000}) == []
    assert "weights predicted" in memory.off({"predicted_weights_bytes": 4_000_000, "used_weights_bytes": 3_400_000})[0]


def headers(folder: Path, shapes: dict[str, list[int]], **config: int) -> LocalModel:
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 8, **config}))
    header = json.dumps({name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()})
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    return LocalModel("m", folder, "hash", "folder", "bf16", 8192, None, None)


def test_vllm_on_a_cpu_keeps_embedding_and_head_twice_and_a_tied_one_three_times(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": [100, 8], "model.layers.0.mlp.up_proj.weight": [8, 8], "model.norm.weight": [8]}
    tied = headers(tmp_path, shapes)
    found = memory.predict(cell("vllm-cpu-bf16"), tied, DeviceMemory(None, ""), ("avx2", "avx512f"))
    wide = memory.predict(cell("vllm-cpu-bf16"), tied, DeviceMemory(None, ""), ("avx2",))
    assert found is not None and wide is not None
    assert found.weights_bytes == 2 * (3 * 800 + 64 + 8) and wide.weights_bytes == 2 * found.weights_bytes
    untied = headers(tmp_path, {**shapes, "lm_head.weight": [100, 8]})
    found = memory.predict(cell("vllm-cpu-bf16"), untied, DeviceMemory(None, ""), ("avx2", "avx512f"))
    assert found is not None and found.weights_bytes == 2 * (4 * 800 + 64 + 8)


def test_experts_are_copied_once_by_openvino_and_twice_in_f32_where_16_bits_are_widened(tmp_path: Path) -> None:
    shapes = {
        "model.embed_tokens.weight": [10, 8],
        "model.layers.0.mlp.experts.0.up_proj.weight": [8, 8],
        "model.layers.0.q.weight": [8, 4],
    }
    model = headers(tmp_path, shapes, num_local_experts=1)
    found = memory.predict(cell("openvino-xeon-bf16"), model, DeviceMemory(None, ""), ("avx2",))
    assert found is not None and found.weights_bytes == 2 * (2 * 80 + 3 * 32 + 5 * 64)
    able = memory.predict(cell("openvino-xeon-bf16"), model, DeviceMemory(None, ""), ("avx512_bf16",))
    assert able is not None and able.weights_bytes == 2 * (2 * 80 + 3 * 32 + 2 * 64)


def test_openvino_reads_an_embedding_from_the_file_and_packs_the_head(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": [10, 8], "lm_head.weight": [10, 8], "model.layers.0.q.weight": [8, 4]}
    found = memory.predict(cell("openvino-xeon-bf16"), headers(tmp_path, shapes), DeviceMemory(None, ""), ("avx2",))
    assert found is not None and found.weights_bytes == 2 * (80 + 2 * 80 + 3 * 32)


def test_quantized_experts_that_are_stacked_in_one_tensor_are_decompressed(tmp_path: Path) -> None:
    stacked = headers(
        tmp_path, {"model.embed_tokens.weight": [10, 8], "model.layers.0.mlp.experts.down_proj": [2, 8, 4]}, num_local_experts=2
    )
    for isa, width in (("avx2",), 4), (("amx_bf16",), 2):
        found = memory.predict(cell("openvino-xeon-int8"), stacked, DeviceMemory(None, ""), isa)
        stored = 2 * 8 * (4 + 3)  # a byte a weight; a scale and a zero point for each of its rows
        assert found is not None and found.weights_bytes == 2 * (10 * (8 + 3)) + stored + width * 64

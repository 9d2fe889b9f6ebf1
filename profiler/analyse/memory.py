"""Will it fit? Weights + KV cache + the rest against the device's memory before an engine starts; the same parts checked after the run.

Constants were measured with bench/memory_prediction.py; docs/memory.md has the formula, the sources and the table of errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from profiler.errors import ModelError
from profiler.machine.memory import DeviceMemory
from profiler.machine.memory import of as memory_of
from profiler.models import footprint
from profiler.plan import Cell
from profiler.records import LocalModel
from profiler.spec import BackendSpec, WorkloadSpec
from profiler.units import format_size
from profiler.workload import replay

GIB, MB = 1 << 30, 1_000_000
BLOCK = {"openvino": 32, "vllm-cpu": 128, "vllm-cuda": 16}  # tokens per KV block; vLLM's on a CPU by its log and /metrics
BATCHED_TOKENS = {"openvino": 256, "vllm": 2048}  # per step unless the backend says otherwise: sizes the activations
# Of the process, without model: OpenVINO's interpreter and libraries (seen 68 MB + the server's own), and per layer of a compiled graph
# by weight format (seen 51, 63 and 83 MB for 30 layers, 21 MB for 4).
OPENVINO_PROCESS, OPENVINO_GRAPH = 125 * MB, 16 * MB
OPENVINO_LAYER = {"int8": 1.6 * MB, "int4": 2.2 * MB}
OPENVINO_LAYER_16 = 1.2 * MB
# vLLM 0.32 on a CPU: API server, engine core and worker, anonymous memory of all and their libraries once (seen 1.49 + 0.21 GB).
VLLM_CPU_PROCESS = 1700 * MB
# CUDA: context, libraries, graphs; vLLM's own profile run takes the activations from the same share. Not verified on hardware.
VLLM_CUDA_PROCESS = 1500 * MB
GPU_SHARE = 0.9  # vLLM's gpu_memory_utilization where a backend has none (0.92 since 0.32; the smaller one is the safer guess)
# Any of these instruction sets gives OpenVINO arithmetic in a precision.
OPENVINO_NEEDS = {"bf16": {"avx512_bf16", "amx_bf16"}, "f16": {"avx512_fp16", "amx_fp16"}}
WITHIN = {"weights": 0.10, "kv": 0.10, "other": 0.25}  # beyond these a run says that the prediction was off
WITNESS = 500_000  # bytes that the witness of weights cannot tell (seen: starts of one model of 4 MB lie 0.4 MB apart)


@dataclass(frozen=True)
class Prediction:
    """Bytes. `kv_bytes` is what the engine takes: its pool, where it has one; `kv_demand_bytes` what the load needs of it."""

    weights_bytes: int
    kv_bytes: int
    kv_token_bytes: float
    kv_demand_bytes: int | None  # None: an open loop's number of requests in flight is not known before
    kv_mean_bytes: int  # of one request of mean length
    kv_longest_bytes: int  # of the longest request that the workload or the context allows
    other_bytes: int
    memory: DeviceMemory

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.other_bytes

    @property
    def problem(self) -> str | None:
        """Why it cannot fit, with the numbers; None if it can, or if nobody knows the device's memory."""
        if self.kv_mean_bytes > self.kv_bytes:
            need, pool = format_size(self.kv_mean_bytes), format_size(self.kv_bytes)
            return f"does not fit: a request of mean length needs {need} of KV cache, the pool has {pool}"
        free = self.memory.free_bytes
        if free is not None and self.total_bytes > free:
            return f"does not fit: {self.sum} = {format_size(self.total_bytes)}, {format_size(free)} free ({self.memory.source})"
        return None

    @property
    def sum(self) -> str:
        parts = (("weights", self.weights_bytes), ("KV cache", self.kv_bytes), ("the rest", self.other_bytes))
        return " + ".join(f"{name} {format_size(size)}" for name, size in parts)

    @property
    def sentence(self) -> str:
        """One line for the plan."""
        if self.problem:
            return self.problem
        free = format_size(self.memory.free_bytes) + " free" if self.memory.free_bytes is not None else "unknown"
        text = f"fits: {self.sum} = {format_size(self.total_bytes)} of {free} ({self.memory.source})"
        if self.kv_demand_bytes is not None and self.kv_demand_bytes > self.kv_bytes:
            text += f"; the load wants {format_size(self.kv_demand_bytes)} of KV cache: requests will wait"
        if self.kv_longest_bytes > self.kv_bytes:
            text += f"; the longest request wants {format_size(self.kv_longest_bytes)} of KV cache and may be refused"
        return text

    def columns(self) -> dict[str, Any]:
        """Columns of a run."""
        return {
            "predicted_weights_bytes": self.weights_bytes,
            "predicted_kv_bytes": self.kv_bytes,
            "predicted_kv_token_bytes": self.kv_token_bytes,
            "predicted_kv_demand_bytes": self.kv_demand_bytes,
            "predicted_other_bytes": self.other_bytes,
            "memory_limit_bytes": self.memory.free_bytes,
            "memory_limit_source": self.memory.source,
        }


def predict(cell: Cell, model: LocalModel | None, memory: DeviceMemory, isa: tuple[str, ...] = ()) -> Prediction | None:
    """None for an engine whose memory is not known (null, a remote endpoint). Raises ModelError for a config that lacks what is needed."""
    backend, engine = cell.backend, cell.backend.engine
    if model is None or engine not in ("openvino", "vllm"):
        return None
    options = backend.options
    parts = footprint.tensors(model.folder)
    raw = footprint.config(model.folder)
    high_bits = 2 * footprint.HIGH_BITS if vllm_computes_in_f32(backend, isa) else footprint.HIGH_BITS
    stored = footprint.weights(parts, engine, backend.variant.weight_format, backend.variant.group_size, high_bits)
    shape = footprint.kv_shape(model.folder, latent=engine == "vllm")
    precision = kv_precision(backend, isa)
    block = int(options.get("block_size") or BLOCK[engine if engine == "openvino" else f"vllm-{backend.device}"])
    forgets = engine == "vllm"
    mean, longest = request_tokens(cell.workload, int(options.get("max_model_len") or model.max_context_tokens))
    seats = int(options.get("max_num_seqs") or 256)
    running = min(int(cell.load), seats) if cell.load_kind == "concurrency" else None
    demand = running * shape.sequence_bytes(mean, precision, block, forgets) if running else None
    batched = int(options.get("max_num_batched_tokens") or BATCHED_TOKENS[engine])
    activations = footprint.activation_bytes(parts, raw, min(batched, longest), running or 1)
    weights_bytes = resident_weights(stored, backend, isa) + (footprint.rotary_bytes(raw, high_bits) if engine == "vllm" else 0)
    if engine == "openvino":
        pool = int(options.get("cache_size_gb", 2)) * GIB
        graph = OPENVINO_GRAPH + int(shape.layers * OPENVINO_LAYER.get(backend.variant.weight_format, OPENVINO_LAYER_16))
        rest = OPENVINO_PROCESS + graph + footprint.kernel_bytes(shape.layers, backend.variant.weight_format)
    elif backend.device == "cpu":
        pool, rest = int(options.get("kv_cache_gb", 2)) * GIB, VLLM_CPU_PROCESS
    else:
        weights_bytes //= int(options.get("tensor_parallel_size", 1))
        budget = float(options.get("gpu_memory_utilization", GPU_SHARE)) * (memory.total_bytes or 0)
        rest = VLLM_CUDA_PROCESS
        pool = max(0, int(budget) - weights_bytes - rest - activations)
        if memory.total_bytes is None:
            pool = demand or shape.sequence_bytes(longest, precision, block, forgets)
    return Prediction(
        weights_bytes=weights_bytes,
        kv_bytes=pool,
        kv_token_bytes=shape.token_bytes(precision),
        kv_demand_bytes=demand,
        kv_mean_bytes=shape.sequence_bytes(mean, precision, block, forgets),
        kv_longest_bytes=shape.sequence_bytes(longest, precision, block, forgets),
        other_bytes=rest + activations,
        memory=memory,
    )


def resident_weights(stored: footprint.Weights, backend: BackendSpec, isa: tuple[str, ...]) -> int:
    """Bytes that the weights take in memory: engines keep copies in the order that their kernels read. Seen, docs/memory.md."""
    if backend.engine == "openvino":
        # The mapped file (the embedding is read from it), the head packed (a tied embedding is it), and the layers' matrices packed twice: for
        # other batch sizes again (seen for a prompt of 40 tokens beside decoding).
        dense = stored.total_bytes + (stored.head_bytes or stored.embedding_bytes) + 2 * stored.matrix_bytes
        return dense + expert_copies(stored, backend.variant.weight_format, openvino_computes_in_f32(backend, isa))
    if backend.device == "cpu":
        # vLLM packs embedding and head for its kernels and keeps them as they are; a tied head is packed once more.
        return stored.total_bytes + stored.head_bytes + stored.embedding_bytes * (1 if stored.head_bytes else 2)
    return stored.total_bytes


def expert_copies(stored: footprint.Weights, weight_format: str, wide: bool) -> int:
    """Bytes of what OpenVINO makes of a mixture's experts beside the file. One copy; two in f32 of 16-bit ones where the CPU has no bf16 (`wide`).
    Quantized ones that are stacked in one tensor are decompressed, for no kernel takes them as they are: int8 once, int4 three times."""
    width = 4 if wide else 2
    if weight_format not in ("int8", "int4"):
        return stored.expert_bytes * (4 if wide else 1)
    if stored.stacked:
        return stored.stacked * width * (3 if weight_format == "int4" else 1)
    return stored.expert_bytes


def forecast(cell: Cell, model: LocalModel | None, isa: Sequence[str] = ()) -> Prediction | None:
    """`predict` against the memory that the backend's device has now; None also where the model's files do not say enough."""
    options = cell.backend.options
    device = memory_of(cell.backend.device, options.get("mig_device") or options.get("visible_devices"))
    try:
        return predict(cell, model, device, tuple(isa))
    except ModelError:
        return None


def kv_precision(backend: BackendSpec, isa: tuple[str, ...]) -> str:
    """As it will be: OpenVINO keeps an f32 cache where the CPU has no bf16 (openvino_cpu.effective says so of the real one)."""
    if backend.engine == "openvino":
        asked = str(backend.options.get("kv_cache_precision", "bf16"))
        return "f32" if asked == "bf16" and not OPENVINO_NEEDS["bf16"] & set(isa) else asked
    asked = str(backend.options.get("kv_cache_dtype", "auto"))
    if asked != "auto":
        return asked
    return "float32" if vllm_computes_in_f32(backend, isa) else str(backend.options.get("dtype", "bfloat16"))


def openvino_computes_in_f32(backend: BackendSpec, isa: tuple[str, ...]) -> bool:
    """As engines/openvino_cpu.py says of the real one: without the CPU's arithmetic for what was asked it is f32."""
    return not OPENVINO_NEEDS.get(str(backend.options.get("inference_precision", "bf16")), set()) & set(isa)


def vllm_computes_in_f32(backend: BackendSpec, isa: tuple[str, ...]) -> bool:
    """Whether vLLM keeps weights and cache in float32: asked for, or bfloat16 where this CPU would emulate it (engines/vllm_cpu.py)."""
    if backend.engine != "vllm":
        return False
    dtype = str(backend.options.get("dtype", "bfloat16"))
    return dtype == "float32" or (dtype == "bfloat16" and backend.device == "cpu" and bool(isa) and "avx512f" not in isa)


def request_tokens(workload: WorkloadSpec, context: int) -> tuple[int, int]:
    """Tokens of a mean and of the longest request (input and output), cut to the context."""
    lengths = workload.lengths
    if workload.trace is not None:
        sizes = [call.isl + call.osl for call in replay.load(workload.trace).calls]
        return min(round(sum(sizes) / len(sizes)), context), min(max(sizes), context)
    assert lengths is not None  # a workload has either (spec.WorkloadSpec)
    if lengths.kind == "fixed":
        mean = longest = lengths.isl + lengths.osl
    else:
        mean = round(_mean(lengths.isl) + _mean(lengths.osl))
        longest = max(lengths.isl.values()) + max(lengths.osl.values())
    if workload.sessions is not None or workload.agentic is not None:
        longest = context  # each turn carries the whole history
    return min(mean, context), min(longest, context)


def _mean(quantiles: Mapping[str, int]) -> float:
    """Between quantiles the middle: good enough for a sum over many."""
    points = sorted((float(share), value) for share, value in quantiles.items())
    return sum((b - a) * (x + y) / 2 for (a, x), (b, y) in pairwise(points)) or float(points[0][1])


def off(run: Mapping[str, Any]) -> list[str]:
    """What of a run's memory was not as predicted: one sentence per part; [] where all is well or nothing was seen."""
    found = []
    pairs = {"weights": "weights_bytes", "kv": "kv_token_bytes", "other": "other_bytes"}
    for part, column in pairs.items():
        said, seen = run.get(f"predicted_{column}"), run.get(f"used_{column}")
        if said and seen and abs(said / seen - 1) > WITHIN[part] and (part != "weights" or abs(said - seen) > WITNESS):
            name = {"weights": "weights", "kv": "KV cache per token", "other": "the rest"}[part]
            found.append(f"memory: {name} predicted {format_size(said)}, used {format_size(seen)} ({said / seen - 1:+.0%})")
    both = run.get("used_weights_other_bytes")
    said = (run.get("predicted_weights_bytes") or 0) + (run.get("predicted_other_bytes") or 0)
    if both and said and abs(said / both - 1) > WITHIN["other"]:
        found.append(f"memory: weights and the rest predicted {format_size(said)}, used {format_size(both)} ({said / both - 1:+.0%})")
    return found

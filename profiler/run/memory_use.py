"""What an engine really uses, by part: weights, KV cache, the rest. Read once at a cell's end, outside the client that keeps the time.

Linux only. A pool that is taken whole at the start makes the peak say nothing, so each part has its own witness:
OpenVINO: the mapped weights file and what the process grew by since its load, less the KV blocks that were handed out, the activations of its
widest step and what kernels take for themselves (footprint.kernel_bytes); vLLM: its log (CUDA) and its own cache_config_info. A part without a
witness is None with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from profiler.engines.protocol import RunningEngine
from profiler.errors import ProfilerError
from profiler.models import footprint
from profiler.records import LocalModel, Variant

PROC = Path("/proc")
GIB = 1 << 30
OURS = "slm_server_"
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # as config.json of Mixtral and GPT-OSS, Qwen, DeepSeek has them
# vLLM 0.32 on CUDA, gpu_model_runner.py: "Model loading took 14.99 GiB memory and 3.1 seconds". Not verified on hardware.
LOADED = re.compile(r"Model loading took ([0-9.]+) GiB")


@dataclass(frozen=True)
class Shape:
    """What of a model the witnesses need; all unknown where its files do not say. `config` is {} then."""

    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: Sequence[footprint.Tensor] = ()
    weight_format: str = "fp16"

    @property
    def layers(self) -> int:
        return int(self.config.get("num_hidden_layers") or 0)

    @property
    def experts(self) -> bool:
        return any(self.config.get(name) for name in EXPERTS)


def used(running: RunningEngine, variant: Variant, model: LocalModel | None) -> dict[str, Any]:
    """The used_ columns of a run and memory_reason; {} for an endpoint that is not ours."""
    if running.pid is None or not running.alive():
        return {}
    try:
        metrics = running.metrics()
    except ProfilerError:
        return {}
    resident = tree_bytes(running.pid, variant.path)
    if OURS + "anonymous_after_load_bytes" in metrics:
        return openvino(metrics, resident, shape_of(model, str(variant.details.get("weight_format") or "fp16")))
    if any(name.startswith("vllm:cache_config_info") for name in metrics):
        return vllm(metrics, resident, running.log_tail(100_000), shape_of(model))
    return {}


def shape_of(model: LocalModel | None, weight_format: str = "fp16") -> Shape:
    if model is None:
        return Shape()
    try:
        return Shape(footprint.config(model.folder), footprint.tensors(model.folder), weight_format)
    except ProfilerError:
        return Shape()


def openvino(metrics: Mapping[str, float], resident: Mapping[str, int], shape: Shape) -> dict[str, Any]:
    """From our server's gauges. OpenVINO packs weights for its kernels when they first run, after the load: that growth is theirs. Experts of
    a mixture it copies while it loads, so that of such a model only the sum of weights and the rest is seen."""
    pool = metrics[OURS + "kv_cache_bytes"]
    peak = pool * metrics.get(OURS + "kv_cache_peak_ratio", 0.0)
    grown = max(0.0, resident["anonymous"] - metrics[OURS + "anonymous_after_load_bytes"])
    if not resident["anonymous"]:
        return {"memory_reason": "/proc does not show the engine's memory"}
    step, requests = (int(metrics.get(OURS + name, 0)) for name in ("widest_step_tokens", "most_requests"))
    activations = footprint.activation_bytes(shape.tensors, shape.config, step, requests)
    kernels = min(footprint.kernel_bytes(shape.layers, shape.weight_format) + activations, max(0.0, grown - peak))
    weights = resident["mapped"] + max(0.0, grown - peak) - kernels
    rest = resident["anonymous"] - grown + resident["files"] + kernels
    found: dict[str, Any] = {
        "used_kv_bytes": int(pool) or None,
        "used_kv_peak_bytes": int(peak) or None,
        "used_kv_token_bytes": metrics.get(OURS + "kv_token_bytes") or None,
    }
    if shape.experts:
        reason = "OpenVINO copies the experts while it loads: their copies cannot be told from the rest"
        return found | {"memory_reason": reason, "used_weights_other_bytes": int(weights + rest)}
    return found | {"used_weights_bytes": int(weights), "used_other_bytes": int(rest)}


def vllm(metrics: Mapping[str, float], resident: Mapping[str, int], log: str, shape: Shape) -> dict[str, Any]:
    """From cache_config_info (its values are labels) and the log. Where some layers have a sliding window, a block holds one group of layers of
    one kind (vLLM 0.32, kv_cache_utils.py), and a token is in as many blocks as there are groups."""
    info = next(name for name in metrics if name.startswith("vllm:cache_config_info"))
    label = dict(re.findall(r'(\w+)="([^"]*)"', info))
    blocks, block, pool = (_number(label.get(name)) for name in ("num_gpu_blocks", "block_size", "kv_cache_memory_bytes"))
    loaded = LOADED.search(log)
    found: dict[str, Any] = {
        "used_weights_bytes": int(float(loaded.group(1)) * GIB) if loaded else None,
        "used_kv_bytes": pool,
        "used_kv_token_bytes": pool / (blocks * block) * cache_groups(shape.config) if pool and blocks and block else None,
    }
    if loaded is None and pool:
        # The CPU build reports no size of the weights, so only their sum with the rest is seen.
        found["memory_reason"] = "vLLM on a CPU does not say what its weights take; bench/memory_prediction.py tells them apart"
        found["used_weights_other_bytes"] = resident["anonymous"] + resident["files"] - pool
    return found


def cache_groups(config: Mapping[str, Any]) -> int:
    """Groups of layers that vLLM's cache is made of: as large as the smaller kind has layers, or as the larger if it is less than 1.5 times that."""
    counts = list(Counter(config.get("layer_types") or ()).values())
    if len(counts) < 2 or not config.get("sliding_window"):
        return 1
    size = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    return sum(ceil(count / size) for count in counts)


def tree_bytes(pid: int, folder: Path | None, proc: Path = PROC) -> dict[str, int]:
    """Resident bytes of all processes of `pid`'s tree and session: `anonymous`; `files` (shared libraries count once: the largest process's),
    without `mapped`, the files of `folder`; `largest`: `anonymous` of the process that has most."""
    anonymous, files, mapped, largest = 0, 0, 0, 0
    for member in _members(pid, proc):
        status = _text(proc / str(member) / "status")
        sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"^(RssAnon|RssFile|RssShmem):\s+(\d+) kB", status, flags=re.M)}
        own = sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
        anonymous, largest = anonymous + own, max(largest, own)
        here = _mapped(proc / str(member), folder) if folder is not None else 0
        files = max(files, sizes.get("RssFile", 0) - here)
        mapped = max(mapped, here)
    return {"anonymous": anonymous, "files": files, "mapped": mapped, "largest": largest}


def _mapped(process: Path, folder: Path) -> int:
    total, ours = 0, False
    for line in _text(process / "smaps").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def _members(pid: int, proc: Path) -> set[int]:
    """`pid`, what descends from it, and its session."""
    parents, sessions = {}, {}
    for entry in proc.iterdir():
        fields = _text(entry / "stat").rpartition(")")[2].split() if entry.name.isdigit() else []
        if len(fields) > 3:
            parents[int(entry.name)], sessions[int(entry.name)] = int(fields[1]), int(fields[3])
    found = {pid} | {member for member, session in sessions.items() if session == pid}
    while more := {member for member, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

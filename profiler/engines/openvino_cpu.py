"""What OpenVINO really computes in on this CPU, said before it starts instead of found out from a crash.

On a CPU without 16-bit arithmetic (AVX2 only) OpenVINO 2026.4 takes `INFERENCE_PRECISION_HINT=bf16` and silently computes in f32, and
refuses a bf16 KV cache ("expect kvcache type f32"). A variant that is called bf16 there must say f32.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from profiler.errors import EngineError

_NEEDS = {"bf16": "BF16", "f16": "FP16"}  # precision -> OpenVINO's name for the capability
_PROBE = "import openvino; print(*openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))"


@lru_cache
def capabilities(python: Path) -> frozenset[str]:
    """OpenVINO's own list, such as {"FP32", "INT8", "BF16"}. Raises EngineError."""
    try:
        done = subprocess.run([str(python), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"OpenVINO cannot be asked what this CPU can do: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise EngineError(f"OpenVINO cannot be asked what this CPU can do: {lines[-1]}", detail="\n".join(lines[-12:]))
    return frozenset(done.stdout.split())


def effective(options: Mapping[str, Any], able: frozenset[str]) -> dict[str, str]:
    """`inference_precision` and `kv_cache_precision` as they will be: what the CPU has not becomes f32. An f16 cache is taken by all."""
    inference, cache = str(options["inference_precision"]), str(options["kv_cache_precision"])
    return {
        "inference_precision": inference if _NEEDS.get(inference, "FP32") in able else "f32",
        "kv_cache_precision": "f32" if cache == "bf16" and "BF16" not in able else cache,
    }

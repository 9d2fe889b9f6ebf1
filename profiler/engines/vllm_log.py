"""The cause in vLLM's log, and a way out. Its last line says that a process ended; why stands further up, in another process's words."""

from __future__ import annotations

import re

# Lines of exceptions that only report another one.
_FOLLOWS = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineCore encountered an issue",
    "EngineDeadError",
    "cancelled",
)
_PREFIX = re.compile(r"^(?:\((?P<process>[^)]*)\) )?(?:(?P<level>[A-Z]+) [0-9-]+ [0-9:]+ \[[^\]]*\] ?)?")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?P<kind>[A-Z]\w*(?:Error|Exception|Interrupt|Fault)): (?P<text>.+)$")
_PYDANTIC = re.compile(r"^  (?:Value|Assertion) error, (?P<text>.+?)(?: \[type=.*)?$")
_ARGPARSE = re.compile(r"^\S+\.py: error: (?P<text>.+)$")
MAX_CAUSE = 250  # characters

# A pattern of the cause, and what helps.
_WAYS_OUT = (
    (r"unrecognized arguments|invalid choice|expected one argument", "correct options.flags; `vllm serve --help=all` lists its flags"),
    (r"Unknown quantization method", "correct options.quantization, or leave it out: a checkpoint names its own"),
    (r"Cannot find the config file for", "options.quantization names a method of ready checkpoints, and this is none: leave it out"),
    (
        r"quantization|_quant\(\)|scaled_mm|scaled_fp8|marlin",
        "this device has no kernel for that precision: choose another backend or checkpoint",
    ),
    (r"greater than the derived max_model_len", "lower options.max_model_len to the model's context"),
    (
        r"KV cache.*(?:larger|needed|available)|No available memory for the cache",
        "lower options.max_model_len, or raise options.kv_cache_gb (CPU) or options.gpu_memory_utilization (GPU)",
    ),
    (r"(?i)lora|adapter", "give an adapter that was trained on this model: its adapter_config.json names the base"),
    (
        r"driver.*too old|no NVIDIA driver|CUDA (?:driver|error)|no CUDA",
        "update the NVIDIA driver; `profile list backends` says what is needed",
    ),
    (
        r"(?i)out of memory|cannot allocate|free memory on device",
        "lower options.gpu_memory_utilization or options.max_model_len, or take a smaller precision",
    ),
    (r"tensor.parallel|world.size", "lower options.tensor_parallel_size to the number of GPUs, a divisor of the attention heads"),
)


def cause(log: str) -> tuple[str, str | None] | None:
    """The first exception that reports no other, one line, with what helps if that is known; None where there is none."""
    found = None
    for line in log.splitlines():
        prefix = _PREFIX.match(line)
        if prefix is None or prefix.group("level") in ("WARNING", "INFO", "DEBUG"):
            continue
        text = _said(line[prefix.end() :])
        if text and not any(words in text for words in _FOLLOWS):
            found = re.split(r"(?<=[a-z)])\. (?=[A-Z])", " ".join(text.split()))[0]  # vLLM's advice is for its own command line
            break
    if found is None:
        return None
    helps = next((way for pattern, way in _WAYS_OUT if re.search(pattern, found)), None)
    return (found if len(found) <= MAX_CAUSE else found[: MAX_CAUSE - 1].rstrip() + "…"), helps


def _said(line: str) -> str | None:
    if match := _PYDANTIC.match(line) or _ARGPARSE.match(line):
        return match.group("text")
    if (match := _EXCEPTION.match(line)) and match.group("kind") != "ValidationError":  # pydantic's own text comes a line later
        return f"{match.group('kind')}: {match.group('text')}"
    return None

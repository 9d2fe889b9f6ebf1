"""Which machines may be compared plainly, and in what two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Beside machine_id (parts and limits): settings that move latencies by more than runs differ anyhow. Kernel, container and versions are
# shown and not counted: they differ between any two weeks.
SETTINGS = ("smt", "governors", "turbo", "transparent_huge_pages", "numa_cpus", "driver")
GPU_SETTINGS = ("power_limit_w", "ecc", "mig", "sm_clock_max_hz", "memory_clock_max_hz")
PARTS = ("cpu_model", "sockets", "cores", "threads", "isa", "numa_nodes", "memory_bytes", "cgroup_cpus", "gpus")
SHOWN = (*PARTS, *SETTINGS, "kernel", "container", "cuda")


def comparison_id(facts: Mapping[str, Any]) -> str:
    """Hash of machine_id and the settings above; equal ids may be compared plainly."""
    gpus = [[gpu.get(name) for name in GPU_SETTINGS] for gpu in facts.get("gpus") or ()]
    content = [facts.get("machine_id"), [[name, facts.get(name)] for name in SETTINGS], gpus]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def differences(machines: Sequence[Mapping[str, Any]]) -> list[str]:
    """`governors: performance | powersave` for each fact in which machines of differing comparison_id differ; [] if all may be compared."""
    distinct = list({comparison_id(facts): facts for facts in machines if facts}.values())
    if len(distinct) < 2:
        return []
    found = []
    for name in SHOWN:
        values = list(dict.fromkeys(_words(name, facts.get(name)) for facts in distinct))
        if len(values) > 1:
            found.append(f"{name.replace('_', ' ')}: {' | '.join(values)}")
    return found or ["they differ in what this program does not show"]


def _words(name: str, value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "unknown" if value is None else "none"
    if name == "gpus":
        return ", ".join(" ".join(str(gpu[key]) for key in ("name", *GPU_SETTINGS) if gpu.get(key) is not None) for gpu in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

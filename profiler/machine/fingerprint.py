"""What this machine is: read from /proc and /sys, cheap, no guesses. Two machines with the same `machine_id` may be compared plainly."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from profiler.machine import proc
from profiler.machine.bandwidth import kept
from profiler.machine.details import cpu_details, driver, gpu_details
from profiler.machine.difference import comparison_id

# Instruction sets that change how fast a model runs, as /proc/cpuinfo names them.
ISA = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")


def fingerprint(root: Path = Path("/")) -> dict[str, Any]:
    """JSON-safe facts; what cannot be read is None. `root` lets tests show another machine's /proc and /sys."""
    cpu = _cpu(root)
    facts: dict[str, Any] = {
        **cpu,
        "memory_bytes": _memory_bytes(root),
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        "governor": proc.line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cgroup_cpus": _cgroup_cpus(root),
        "cgroup_memory_bytes": _cgroup_memory(root),
        "container": _container(root),
        "kernel": proc.line(root / "proc/sys/kernel/osrelease"),
        "os": _os_name(root),
        "python": platform.python_version(),
        "cgroup_cpuset": proc.line(root / "sys/fs/cgroup/cpuset.cpus.effective"),
        **cpu_details(root),
        "gpus": gpus()[0],
        **driver_facts(),
    }
    facts = {"machine_id": machine_id(facts), **facts}
    return {**facts, "comparison_id": comparison_id(facts)}


def full_fingerprint() -> dict[str, Any]:
    """`fingerprint` of this machine with its measured memory bandwidth (about a second the first time, then from the cache)."""
    facts = fingerprint()
    return {**facts, "memory_bandwidth": kept(facts["machine_id"], facts["last_level_cache_bytes"])}


def machine_id(facts: dict[str, Any]) -> str:
    """Hash of what decides speed: CPU, cores, instruction sets, memory to the GiB, limits, GPUs. Not the host's name."""
    keys = ("cpu_model", "sockets", "cores", "threads", "isa", "numa_nodes", "cgroup_cpus")
    memory = facts["memory_bytes"]
    # Name and memory only: ids of earlier records stay what they are. Settings are in difference.comparison_id.
    cards = [{name: gpu[name] for name in ("name", "memory_bytes")} for gpu in facts["gpus"]]
    content = [*([key, facts[key]] for key in keys), ["gpus", cards]]
    content.append(["memory_gib", round(memory / 2**30) if memory else None])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def gpus() -> tuple[list[dict[str, Any]], str | None]:
    """NVIDIA GPUs by NVML (name, memory, driver), or an empty list and the reason. Not verified on hardware."""
    try:
        import pynvml
    except ImportError:
        return [], "the Python package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(handle)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
            card = {"name": name if isinstance(name, str) else name.decode(), "memory_bytes": int(memory)}
            found.append({**card, **gpu_details(pynvml, handle)})
        return found, None if found else "NVML sees no GPU"
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


def driver_facts() -> dict[str, Any]:
    """NVIDIA driver and CUDA version; None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no permission: `gpus` says which
        return {"driver": None, "cuda": None}
    try:
        return driver(pynvml)
    finally:
        pynvml.nvmlShutdown()


def _cpu(root: Path) -> dict[str, Any]:
    text = proc.text(root / "proc/cpuinfo")
    blocks = [dict(re.findall(r"^([^\t:]+?)\s*:\s*(.*)$", block, flags=re.M)) for block in text.split("\n\n") if block.strip()]
    first = blocks[0] if blocks else {}
    flags = set(first.get("flags", "").split())
    cores = {(block.get("physical id"), block.get("core id")) for block in blocks}
    return {
        "cpu_model": first.get("model name") or platform.processor() or platform.machine(),
        "arch": platform.machine(),
        "sockets": len({block.get("physical id") for block in blocks}) or None,
        "cores": len(cores) if blocks and "core id" in first else len(blocks) or os.cpu_count(),
        "threads": len(blocks) or os.cpu_count(),
        "isa": [name for name in ISA if name in flags],
        "virtual": "hypervisor" in flags if flags else None,
    }


def _memory_bytes(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", proc.text(root / "proc/meminfo"), flags=re.M)
    return int(match.group(1)) * 1024 if match else None


def _cgroup_cpus(root: Path) -> float | None:
    """CPUs that a cgroup v2 quota leaves, None without a limit."""
    quota, _, period = proc.text(root / "sys/fs/cgroup/cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _cgroup_memory(root: Path) -> int | None:
    text = proc.text(root / "sys/fs/cgroup/memory.max").strip()
    return int(text) if text.isdigit() else None


def _container(root: Path) -> str | None:
    if (root / ".dockerenv").exists():
        return "docker"
    return "podman" if (root / "run/.containerenv").exists() else None


def _os_name(root: Path) -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', proc.text(root / "etc/os-release"), flags=re.M)
    return match.group(1) if match else platform.system()

"""How much memory a device has for an engine that starts now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DeviceMemory:
    """`free_bytes` is None where nobody can see it; `source` says whose figure it is, or why there is none."""

    free_bytes: int | None
    source: str
    total_bytes: int | None = None


def of_cpu(root: Path = Path("/")) -> DeviceMemory:
    """The kernel's MemAvailable, or what the tightest cgroup limit of this process leaves. `root` is for tests."""
    text = _text(root / "proc/meminfo")
    found = {name: int(kib) * 1024 for name, kib in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, flags=re.M)}
    total, free = found.get("MemTotal"), found.get("MemAvailable")
    best = DeviceMemory(free, "MemAvailable" if free is not None else "/proc/meminfo has no MemAvailable", total)
    for limit, used, name in _cgroups(root):
        left = max(0, limit - used)
        if best.free_bytes is None or left < best.free_bytes:
            best = DeviceMemory(left, f"cgroup {name}", min(limit, total) if total else limit)
    return best


def of_gpu(index: int = 0) -> DeviceMemory:
    """Free and total memory of one NVIDIA GPU by NVML. Not verified on hardware."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
            return DeviceMemory(int(memory.free), f"NVML, GPU {index}", int(memory.total))
        finally:
            pynvml.nvmlShutdown()
    except ImportError:
        return DeviceMemory(None, "nvidia-ml-py is not installed")
    except pynvml.NVMLError as error:
        return DeviceMemory(None, f"NVML: {error}")


def of(device: str, visible: str | None = None) -> DeviceMemory:
    """Of a backend's device. `visible`: its CUDA_VISIBLE_DEVICES; the first index counts."""
    if device == "cpu":
        return of_cpu()
    if device == "cuda":
        first = (visible or "0").split(",")[0].strip()
        return of_gpu(int(first)) if first.isdigit() else DeviceMemory(None, f"device {first} is named by UUID")
    return DeviceMemory(None, "a remote endpoint's memory is not seen from here")


def _cgroups(root: Path) -> list[tuple[int, int, str]]:
    """(limit, in use, name) of this process's cgroup v2 and those above it that have a limit, and of v1's."""
    folder = root / "sys/fs/cgroup"
    match = re.search(r"^0::/(.*)$", _text(root / "proc/self/cgroup"), flags=re.M)
    below = folder / match.group(1) if match else folder
    found = []
    for place in [below, *below.parents]:
        if folder != place and folder not in place.parents:
            break
        limit, used = _text(place / "memory.max").strip(), _text(place / "memory.current").strip()
        if limit.isdigit():
            found.append((int(limit), int(used) - _reclaimable(place) if used.isdigit() else 0, "memory.max"))
    limit, used = (_text(folder / "memory" / name).strip() for name in ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    if limit.isdigit() and int(limit) < 1 << 60:
        found.append((int(limit), int(used) if used.isdigit() else 0, "memory.limit_in_bytes"))
    return found


def _reclaimable(place: Path) -> int:
    """File cache that the kernel gives back first, as MemAvailable counts it for the machine."""
    match = re.search(r"^inactive_file (\d+)$", _text(place / "memory.stat"), flags=re.M)
    return int(match.group(1)) if match else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

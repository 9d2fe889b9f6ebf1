"""What of a machine changes a figure without changing its parts: SMT, NUMA, turbo, governor, huge pages, power limits, clocks, ECC, MIG, driver.

`root` lets tests show another machine's /proc and /sys. What cannot be read is None. The GPU part is not verified on hardware.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiler.machine import proc

CPU = "sys/devices/system/cpu"


def cpu_details(root: Path = Path("/")) -> dict[str, Any]:
    """JSON-safe. `governors`: of all cores, each once; `numa_cpus`: cores of each node; huge pages in the kernel's own words."""
    cpus = root / CPU
    governors = sorted({text for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor") if (text := proc.line(path))})
    thp = re.search(r"\[(\w+)\]", proc.line(root / "sys/kernel/mm/transparent_hugepage/enabled") or "")
    nodes = sorted((root / "sys/devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:]))
    meminfo = dict(re.findall(r"^(HugePages_Total|Hugepagesize):\s+(\d+)", proc.text(root / "proc/meminfo"), flags=re.M))
    return {
        "smt": _smt(cpus),
        "numa_cpus": {path.name: proc.line(path / "cpulist") for path in nodes},
        "governors": governors or None,
        "turbo": _turbo(cpus),
        "frequency_max_hz": _kilo(proc.line(cpus / "cpu0/cpufreq/cpuinfo_max_freq")),
        "transparent_huge_pages": thp.group(1) if thp else None,
        "huge_pages": int(meminfo["HugePages_Total"]) if "HugePages_Total" in meminfo else None,
        "huge_page_bytes": _kilo(meminfo.get("Hugepagesize"), 1024),
        "last_level_cache_bytes": _cache(cpus),
    }


def _smt(cpus: Path) -> bool | None:
    active = proc.line(cpus / "smt/active")
    if active in ("0", "1"):
        return active == "1"
    siblings = proc.line(cpus / "cpu0/topology/thread_siblings_list")
    return bool(re.search("[,-]", siblings)) if siblings else None


def _turbo(cpus: Path) -> bool | None:
    """Intel's driver says when turbo is off, the others when boost is on."""
    off, on = proc.line(cpus / "intel_pstate/no_turbo"), proc.line(cpus / "cpufreq/boost")
    if off in ("0", "1"):
        return off == "0"
    return on == "1" if on in ("0", "1") else None


def _cache(cpus: Path) -> int | None:
    sizes = [proc.line(path) for path in cpus.glob("cpu0/cache/index[0-9]*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size and size[-1] in units and size[:-1].isdigit()), default=None)


def gpu_details(nvml: Any, handle: Any) -> dict[str, Any]:
    """What NVML says of one GPU; each figure alone, as drivers and cards differ in what they answer."""

    def ask(name: str, of: Callable[[Any], Any] = lambda value: value, *arguments: Any) -> Any:
        try:
            return of(getattr(nvml, name)(handle, *arguments))
        except (nvml.NVMLError, AttributeError):
            return None

    return {
        "uuid": ask("nvmlDeviceGetUUID", _word),
        "power_limit_w": ask("nvmlDeviceGetEnforcedPowerLimit", lambda milliwatt: milliwatt / 1000),
        "sm_clock_max_hz": ask("nvmlDeviceGetMaxClockInfo", lambda mhz: mhz * 1_000_000, getattr(nvml, "NVML_CLOCK_SM", 1)),
        "memory_clock_max_hz": ask("nvmlDeviceGetMaxClockInfo", lambda mhz: mhz * 1_000_000, getattr(nvml, "NVML_CLOCK_MEM", 2)),
        "ecc": ask("nvmlDeviceGetEccMode", lambda modes: bool(modes[0])),
        "mig": ask("nvmlDeviceGetMigMode", lambda modes: bool(modes[0])),
        "compute_capability": ask("nvmlDeviceGetCudaComputeCapability", lambda pair: f"{pair[0]}.{pair[1]}"),
    }


def driver(nvml: Any) -> dict[str, Any]:
    """Driver version and the newest CUDA that it runs."""
    found: dict[str, Any] = {"driver": None, "cuda": None}
    try:
        found["driver"] = _word(nvml.nvmlSystemGetDriverVersion())
        version = nvml.nvmlSystemGetCudaDriverVersion()
        found["cuda"] = f"{version // 1000}.{version % 1000 // 10}"
    except (nvml.NVMLError, AttributeError):
        pass
    return found


def _word(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _kilo(text: str | None, factor: int = 1000) -> int | None:
    return int(text) * factor if text and text.isdigit() else None

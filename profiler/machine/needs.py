"""What a backend needs (`[needs]` in its TOML) against what this machine has. Cheap, starts nothing; the same for every engine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.machine.fingerprint import fingerprint, gpus
from profiler.units import format_size, parse_size_bytes

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

_ARCH = {"amd64": "x86_64", "arm64": "aarch64"}  # other systems' names of the same


def unmet(backend: BackendSpec, root: Path = Path("/")) -> list[str]:
    """What is missing, one sentence each with what there is instead; [] if nothing. What cannot be read here is not held against it.

    `root` lets tests show another machine's /proc. The CUDA path is not verified on hardware.
    """
    if backend.device == "remote":
        return []
    needs = backend.needs
    if backend.device == "cuda" or needs.device == "cuda":
        return _gpu(needs.memory, needs.driver)
    machine = fingerprint(root)
    return [*_cpu(needs.arch, needs.isa, machine), *_memory(needs.memory, machine)]


def _cpu(arch: str | None, isa: tuple[str, ...], machine: dict[str, Any]) -> list[str]:
    here = platform.machine().lower()
    if arch and arch != _ARCH.get(here, here):
        return [f"it needs a {arch} CPU, this is {platform.machine()}"]
    if machine["virtual"] is None:  # no flags to be read
        return []
    missing = [name for name in isa if name not in machine["isa"]]
    if not missing:
        return []
    return [f"it needs a CPU with {', '.join(missing)}, {machine['cpu_model']} has {', '.join(machine['isa']) or 'no wide vectors'}"]


def _memory(wanted: str | None, machine: dict[str, Any]) -> list[str]:
    have = min((size for size in (machine["memory_bytes"], machine["cgroup_memory_bytes"]) if size), default=None)
    return _too_little(wanted, have, "memory")


def _too_little(wanted: str | None, have: int | None, what: str) -> list[str]:
    if wanted is None or have is None or have >= parse_size_bytes(wanted):
        return []
    return [f"it needs {wanted} of {what}, there are {format_size(have)}"]


def _gpu(memory: str | None, driver: str | None) -> list[str]:
    found, reason = gpus()
    if not found:
        return [f"it needs an NVIDIA GPU, none to be seen: {reason}"]
    missing = _too_little(memory, max(gpu["memory_bytes"] for gpu in found), "GPU memory")
    here = driver_version()
    if driver and here and _numbers(here) < _numbers(driver):
        missing.append(f"it needs NVIDIA driver {driver} or later, this is {here}")
    return missing


def driver_version() -> str | None:
    """Of the NVIDIA driver, such as "580.95.05"; None where NVML does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no driver: `gpus` says which
        return None
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
        return version if isinstance(version, str) else version.decode()
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())

"""What this machine can run and measure, and for what is missing the command that adds it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from profiler import environments
from profiler.errors import EnvironmentError_
from profiler.machine.fingerprint import fingerprint, gpus
from profiler.units import format_size

# What the quickstart leaves in the cache: two environments (1.9 GB), the model and three variants (0.9 GB).
QUICKSTART_BYTES = 3_500_000_000
QUICKSTART_MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Check:
    """`fix_command`: what adds it, None when it is there or nothing can be done."""

    name: str
    ok: bool
    detail: str
    fix_command: str | None = None


def checks(root: Path = Path("/")) -> list[Check]:
    """All checks, cheap and without changing anything."""
    machine = fingerprint(root)
    return [
        Check("python", sys.version_info >= (3, 11), f"{machine['python']} ({sys.executable})"),
        _cpu(machine),
        _memory(machine),
        _disk(),
        *(_environment(spec) for spec in environments.ENVIRONMENTS.values()),
        _torch(),
        _gpu(),
        _rapl(root),
        _hub(),
    ]


def _cpu(machine: dict[str, object]) -> Check:
    isa = machine["isa"]
    assert isinstance(isa, list)
    native = [name for name in isa if "bf16" in name]
    detail = f"{machine['cpu_model']}, {machine['cores']} cores, {', '.join(isa) or 'no wide vectors'}"
    note = "bf16 in hardware" if native else "no bf16 in hardware: bf16 backends run, slower"
    return Check("cpu", machine["arch"] == "x86_64", f"{detail}; {note}")


def _memory(machine: dict[str, object]) -> Check:
    have = machine["cgroup_memory_bytes"] or machine["memory_bytes"]
    if not isinstance(have, int):
        return Check("memory", False, "its size cannot be read here")
    return Check(
        "memory", have >= QUICKSTART_MEMORY_BYTES, f"{format_size(have)}; the quickstart wants {format_size(QUICKSTART_MEMORY_BYTES)}"
    )


def _disk() -> Check:
    cache = environments.cache_root()
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    ok = free >= QUICKSTART_BYTES
    fix = None if ok else "export SLM_PROFILER_CACHE=/a/folder/on/a/larger/disk"
    return Check(
        "disk", ok, f"{format_size(free)} free for the cache in {cache}; the quickstart wants {format_size(QUICKSTART_BYTES)}", fix
    )


def _environment(spec: environments.EnvironmentSpec) -> Check:
    # OpenVINO's two belong together; vLLM has one by kind of device, and the others are installed by their own name.
    engine = "openvino" if spec.name.startswith("openvino") else spec.name
    try:
        found = environments.installed(spec)
    except EnvironmentError_ as error:
        return Check(f"environment {spec.name}", False, error.message, error.hint)
    if found is None:
        return Check(
            f"environment {spec.name}",
            False,
            f"not built yet; the first {'evaluation with --harness' if spec.name == 'lm-eval' else 'sweep'} builds it",
            f"profile engines install {engine}",
        )
    return Check(f"environment {spec.name}", True, str(found.python))


def _torch() -> Check:
    detail = (
        "exporting models needs PyTorch; if your package index answers `pip install torch` with the CUDA build (several GB), point "
        "--pip-args at the PyTorch project's CPU wheels (pytorch.org, Get Started, compute platform CPU)"
    )
    return Check("pytorch for CPU", True, detail)


def _gpu() -> Check:
    found, reason = gpus()
    if found:
        return Check("gpu", True, ", ".join(f"{gpu['name']} ({format_size(gpu['memory_bytes'])})" for gpu in found))
    return Check("gpu", False, f"none to be seen: {reason}; CUDA backends cannot run here")


def _rapl(root: Path) -> Check:
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if not zones:
        return Check(
            "cpu power (RAPL)", False, "not measurable here: no powercap zones (usual in virtual machines); energy is NULL, never a guess"
        )
    if not all(os.access(zone, os.R_OK) for zone in zones):
        return Check(
            "cpu power (RAPL)", False, "there, but not readable by you", "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        )
    return Check("cpu power (RAPL)", True, f"{len(zones)} zones readable; sampling follows in a later version")


def _hub() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes")
    if offline:
        return Check(
            "model hub", False, "switched off by HF_HUB_OFFLINE; the catalogue model comes from the package index, others by folder"
        )
    return Check("model hub", True, "asked when a model is named; without one the catalogue model comes from the package index")

"""`[needs]` of a backend against machines made here: trees of /proc, and an NVML that answers what it is told."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from profiler.errors import SpecError
from profiler.machine.needs import unmet
from profiler.spec import BackendSpec, validate_spec


def spec(device: str = "cpu", **needs: Any) -> BackendSpec:
    raw = {"name": "b", "summary": "s", "engine": "null", "device": device, "precision": "x", "needs": needs}
    return validate_spec(raw, BackendSpec, "here")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Testium 9000\nflags\t\t: fpu avx2 avx_vnni\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:       8388608 kB\n")
    return tmp_path


def test_what_is_there_is_enough(tree: Path) -> None:
    assert unmet(spec(arch=platform.machine(), isa=["avx2"], memory="8GiB"), tree) == []
    assert unmet(spec(), tree) == []


def test_each_lack_is_one_sentence_with_what_there_is(tree: Path) -> None:
    (said,) = unmet(spec(isa=["avx2", "avx512_bf16", "amx_tile"]), tree)
    assert "avx512_bf16, amx_tile" in said and "Testium 9000 has avx2, avx_vnni" in said
    (said,) = unmet(spec(memory="9GiB"), tree)
    assert "9GiB" in said and "8.0 GiB" in said
    (said,) = unmet(spec(arch="riscv64"), tree)
    assert "riscv64" in said and platform.machine() in said
    assert len(unmet(spec(isa=["amx_tile"], memory="1000GiB"), tree)) == 2


def test_a_containers_limit_counts(tree: Path) -> None:
    (tree / "sys/fs/cgroup").mkdir(parents=True)
    (tree / "sys/fs/cgroup/memory.max").write_text(f"{2**30}\n")
    assert "1.0 GiB" in unmet(spec(memory="2GiB"), tree)[0]


def test_what_cannot_be_read_is_not_held_against_it(tmp_path: Path) -> None:
    assert unmet(spec(isa=["amx_tile"], memory="1000GiB"), tmp_path) == []


def test_an_endpoint_of_others_needs_nothing_here(tree: Path) -> None:
    assert unmet(spec("remote", isa=["amx_tile"], memory="1000GiB"), tree) == []


class NVMLError(Exception):
    pass


def nvml(monkeypatch: pytest.MonkeyPatch, memory_gib: int = 24, driver: str = "580.95.05", fault: str | None = None) -> None:
    def init() -> None:
        if fault:
            raise NVMLError(fault)

    module = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: "GPU T",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=memory_gib * 2**30),
        nvmlSystemGetDriverVersion=lambda: driver,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)


def test_a_gpu_with_memory_and_driver_is_enough(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    nvml(monkeypatch)
    assert unmet(spec("cuda", memory="24GiB", driver="580"), tree) == [], "the host's 8 GiB are not the GPU's"


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"fault": "Driver Not Loaded"}, ("NVIDIA GPU", "Driver Not Loaded")),
        ({"memory_gib": 8}, ("24GiB of GPU memory", "8.0 GiB")),
        ({"driver": "570.86"}, ("driver 580", "570.86")),
    ],
)
def test_what_a_gpu_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tree: Path, machine: dict[str, Any], words: tuple[str, ...]) -> None:
    nvml(monkeypatch, **machine)
    (said,) = unmet(spec("cuda", memory="24GiB", driver="580"), tree)
    assert all(word in said for word in words)


def test_a_memory_that_is_no_size_is_refused() -> None:
    with pytest.raises(SpecError, match=r"needs\.memory.*4 apples"):
        spec(memory="4 apples")

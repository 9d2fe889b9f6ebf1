"""The fingerprint of machines that are not this one: trees of /proc and /sys made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.machine.doctor import checks
from profiler.machine.fingerprint import fingerprint

CPU = "processor\t: {n}\nmodel name\t: Testium 9000\nphysical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\n\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        # two sockets, two cores each, two threads a core
        "proc/cpuinfo": "".join(CPU.format(n=n, socket=n // 4, core=n // 2 % 2) for n in range(8)),
        "proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
        "proc/sys/kernel/osrelease": "6.1.0-test\n",
        "etc/os-release": 'PRETTY_NAME="Test Linux 1"\n',
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/node/node0/x": "",
        "sys/devices/system/node/node1/x": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_reads_what_the_tree_says(tree: Path) -> None:
    facts = fingerprint(tree)
    assert (facts["cpu_model"], facts["sockets"], facts["cores"], facts["threads"]) == ("Testium 9000", 2, 4, 8)
    assert facts["isa"] == ["avx2", "avx512f", "avx512_bf16", "amx_tile"]
    assert (facts["memory_bytes"], facts["numa_nodes"], facts["governor"]) == (16 * 2**30, 2, "performance")
    assert (facts["cgroup_cpus"], facts["cgroup_memory_bytes"]) == (1.5, None)
    assert (facts["kernel"], facts["os"], facts["virtual"]) == ("6.1.0-test", "Test Linux 1", False)


def test_the_id_follows_what_decides_speed_and_nothing_else(tree: Path) -> None:
    before = fingerprint(tree)["machine_id"]
    (tree / "proc/sys/kernel/osrelease").write_text("6.2.0\n")
    (tree / "proc/meminfo").write_text("MemTotal:       16777000 kB\n")
    assert fingerprint(tree)["machine_id"] == before
    (tree / "proc/cpuinfo").write_text((tree / "proc/cpuinfo").read_text().replace("9000", "9001"))
    assert fingerprint(tree)["machine_id"] != before


def test_an_empty_tree_gives_none_not_a_crash(tmp_path: Path) -> None:
    facts = fingerprint(tmp_path)
    assert facts["memory_bytes"] is None and facts["numa_nodes"] is None and facts["isa"] == []


def test_doctor_says_why_power_is_not_measurable(tree: Path) -> None:
    found = {check.name: check for check in checks(tree)}
    assert not found["cpu power (RAPL)"].ok and "never a guess" in found["cpu power (RAPL)"].detail
    zone = tree / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "energy_uj").write_text("1\n")
    assert {check.name: check for check in checks(tree)}["cpu power (RAPL)"].ok


def test_doctor_gives_a_command_for_each_missing_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path))
    missing = [check for check in checks() if check.name.startswith("environment")]
    assert missing and not any(check.ok for check in missing)
    commands = {check.name.removeprefix("environment "): check.fix_command for check in missing}
    own = {name: f"profile engines install {name}" for name in ("openvino", "vllm-cpu", "vllm-cuda", "llmcompressor", "lm-eval")}
    assert commands == own | {"openvino-export": "profile engines install openvino"}

"""Free memory by a made-up /proc and /sys, and by a made-up NVML."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from profiler.machine import memory
from profiler.machine.bandwidth import kept, measure, path_of
from profiler.machine.details import cpu_details
from profiler.machine.difference import comparison_id, differences
from profiler.machine.fingerprint import gpus, machine_id
from profiler.models.footprint import Tensor
from profiler.run.memory_use import Shape, cache_groups, openvino, tree_bytes, vllm

MIB = 1 << 20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_cgroup_limit_above_us_counts_where_it_is_tighter(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n", "proc/self/cgroup": "0::/a/b\n"})
    assert memory.of_cpu(root).free_bytes == 4096 * MIB
    write(
        root, {f"sys/fs/cgroup/a/{name}": text for name, text in {"memory.max": str(1024 * MIB), "memory.current": str(300 * MIB)}.items()}
    )
    write(root, {"sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n", "sys/fs/cgroup/a/b/memory.max": "max\n"})
    assert (memory.of_cpu(root).free_bytes, memory.of_cpu(root).source) == (824 * MIB, "cgroup memory.max")


def test_nothing_to_read_is_none_with_a_reason(tmp_path: Path) -> None:
    assert memory.of_cpu(tmp_path).free_bytes is None and memory.of_cpu(tmp_path).source
    assert memory.of("remote").free_bytes is None


def fake_nvml(**changes: object) -> SimpleNamespace:
    class NVMLError(Exception):
        pass

    def forbidden(*_: object) -> None:
        raise NVMLError("Insufficient Permissions")

    found = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: b"Testium T4",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=16 * 1024 * MIB, free=15 * 1024 * MIB),
        nvmlDeviceGetUUID=lambda handle: "GPU-1",
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 70_000,
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: {1: 1590, 2: 5001}[kind],
        nvmlDeviceGetEccMode=lambda handle: (1, 1),
        nvmlDeviceGetMigMode=forbidden,
    )
    vars(found).update(changes)
    return found


def test_what_nvml_forbids_or_lacks_is_none_and_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    (card,), _ = gpus()
    assert (card["name"], card["power_limit_w"], card["sm_clock_max_hz"], card["ecc"]) == ("Testium T4", 70.0, 1_590_000_000, True)
    assert card["mig"] is None and card["compute_capability"] is None
    assert memory.of("cuda", "0").free_bytes == 15 * 1024 * MIB


def test_settings_of_the_cpu(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    files = {f"{cpu}/smt/active": "1\n", f"{cpu}/intel_pstate/no_turbo": "1\n", f"{cpu}/cpu0/cache/index3/size": "32768K\n"}
    files |= {f"{cpu}/cpu{n}/cpufreq/scaling_governor": name for n, name in enumerate(("powersave", "performance"))}
    files |= {"sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n", "sys/devices/system/node/node1/cpulist": "2-3\n"}
    found = cpu_details(write(tmp_path, files))
    assert (found["smt"], found["turbo"], found["governors"]) == (True, False, ["performance", "powersave"])
    assert (found["transparent_huge_pages"], found["numa_cpus"], found["last_level_cache_bytes"]) == ("madvise", {"node1": "2-3"}, 32 * MIB)
    assert cpu_details(tmp_path / "empty")["turbo"] is None


FACTS = {
    "cpu_model": "A",
    "sockets": 1,
    "cores": 2,
    "threads": 4,
    "isa": ["avx2"],
    "numa_nodes": 1,
    "cgroup_cpus": None,
    "memory_bytes": 1 << 34,
}


def test_settings_make_a_difference_that_is_named_and_the_kernel_does_not() -> None:
    one = {"machine_id": "m", **FACTS, "gpus": [], "governors": ["performance"], "kernel": "6.1"}
    assert differences([one, one | {"kernel": "6.2"}]) == []
    found = differences([one, one | {"governors": ["powersave"], "kernel": "6.2"}])
    assert found == ["governors: performance | powersave", "kernel: 6.1 | 6.2"]
    assert comparison_id(one) != comparison_id(one | {"gpus": [{"name": "T4", "power_limit_w": 70}]})


def test_machine_id_looks_at_a_gpus_name_and_memory_only() -> None:
    card = {"name": "T4", "memory_bytes": 1}
    assert machine_id(FACTS | {"gpus": [card]}) == machine_id(FACTS | {"gpus": [{**card, "power_limit_w": 70}]})
    assert machine_id(FACTS | {"gpus": [card]}) != machine_id(FACTS | {"gpus": []})


def test_bandwidth_is_measured_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path))
    first = kept("m")
    assert first["bytes_per_s"] > 0 and path_of("m").is_file() and kept("m") == first
    path_of("m").write_text("{")
    assert kept("m")["bytes_per_s"] > 0
    assert measure(threads=1)["threads"] == 1


def test_memory_of_a_tree_counts_libraries_once_and_the_model_apart(tmp_path: Path) -> None:
    status = "RssAnon: {} kB\nRssFile: 300 kB\nRssShmem: 0 kB\n"
    files = {"1/stat": "1 (a) S 0 1 1 0", "1/status": status.format(100), "2/stat": "2 (b c) S 1 2 2 0", "2/status": status.format(50)}
    files |= {"3/stat": "3 (x) S 0 3 3 0", "3/status": status.format(9999)}
    files["2/smaps"] = "00-10 r--p 0 0 0 /models/m/w.bin\nRss: 200 kB\n10-20 r--p 0 0 0 /lib/x\nRss: 100 kB\n"
    found = tree_bytes(1, Path("/models/m"), write(tmp_path, files))
    assert found == {"anonymous": 150 * 1024, "files": 300 * 1024, "mapped": 200 * 1024, "largest": 100 * 1024}


def test_vllm_says_its_pool_in_labels_and_its_weights_in_the_log() -> None:
    info = 'vllm:cache_config_info{block_size="128",kv_cache_memory_bytes="1073741824",num_gpu_blocks="364"}'
    found = vllm({info: 1.0}, {"anonymous": 2 << 30, "files": 0, "mapped": 0}, "nothing", Shape())
    assert round(found["used_kv_token_bytes"]) == 23046 and found["used_weights_other_bytes"] == 1 << 30 and found["memory_reason"]
    loaded = vllm({info: 1.0}, {"anonymous": 1, "files": 0, "mapped": 0}, "INFO Model loading took 0.5 GiB memory and 3 seconds", Shape())
    assert loaded["used_weights_bytes"] == 1 << 29 and "memory_reason" not in loaded


def test_a_token_is_in_a_block_of_each_group_of_layers() -> None:
    def groups(sliding: int, full: int) -> int:
        return cache_groups({"sliding_window": 128, "layer_types": ["sliding_attention"] * sliding + ["full_attention"] * full})

    assert (groups(4, 4), groups(10, 2), groups(12, 13), groups(8, 0)) == (2, 6, 2, 1)
    assert cache_groups({"num_hidden_layers": 4}) == 1
    info = 'vllm:cache_config_info{block_size="10",kv_cache_memory_bytes="1000",num_gpu_blocks="10"}'
    shape = Shape({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"]})
    assert vllm({info: 1.0}, {"anonymous": 2000, "files": 0, "mapped": 0}, "", shape)["used_kv_token_bytes"] == 20


def test_openvino_growth_is_weights_less_cache_activations_and_kernels_and_experts_are_not_told_apart() -> None:
    metrics = {"slm_server_kv_cache_bytes": 1e9, "slm_server_kv_cache_peak_ratio": 0.01, "slm_server_anonymous_after_load_bytes": 1e8}
    metrics |= {"slm_server_widest_step_tokens": 100, "slm_server_most_requests": 2}
    resident = {"anonymous": 200_000_000, "files": 50_000_000, "mapped": 80_000_000}
    config = {"num_hidden_layers": 10, "hidden_size": 10, "intermediate_size": 20, "vocab_size": 1000}
    found = openvino(metrics, resident, Shape(config, (Tensor("gate_up.weight", "BF16", (40, 10)),), "int4"))
    # 6.0 MB and 0.095 for each layer; 2 x 1000 logits and 100 tokens x 2 x (10 + 40), 4 bytes each
    kernels = 6_950_000 + 8_000 + 40_000
    assert found["used_weights_bytes"] == 80_000_000 + 100_000_000 - 10_000_000 - kernels
    assert found["used_other_bytes"] == 100_000_000 + 50_000_000 + kernels
    mixture = openvino(metrics, resident, Shape(config | {"num_local_experts": 4}))
    assert "used_weights_bytes" not in mixture and mixture["used_weights_other_bytes"] == 320_000_000
    assert "experts" in mixture["memory_reason"]

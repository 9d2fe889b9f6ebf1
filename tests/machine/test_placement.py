"""Which cores servers and client get, on made-up machines: real trees under /sys in a temporary folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.machine.placement import MIN_CORES, place
from profiler.machine.topology import Cpu, as_list, cpu_list, topology
from profiler.spec import BackendSpec, validate_spec


def machine(root: Path, sockets: int, cores: int, nodes_per_socket: int = 1, smt: int = 2) -> tuple[Cpu, ...]:
    """As Linux numbers a Xeon: first threads of all cores, then the siblings."""
    system = root / "sys/devices/system"
    lists: dict[int, list[int]] = {}
    total = sockets * cores
    for thread in range(smt):
        for index in range(total):
            number, socket, core = thread * total + index, index // cores, index % cores
            folder = system / f"cpu/cpu{number}/topology"
            folder.mkdir(parents=True)
            (folder / "core_id").write_text(f"{core}\n")
            (folder / "physical_package_id").write_text(f"{socket}\n")
            lists.setdefault(socket * nodes_per_socket + core * nodes_per_socket // cores, []).append(number)
    for node, numbers in lists.items():
        (system / f"node/node{node}").mkdir(parents=True)
        (system / f"node/node{node}/cpulist").write_text(as_list(numbers) + "\n")
    (system / "cpu/online").write_text(f"0-{total * smt - 1}\n")
    return topology(root)


def backend(replicas: int = 1, **placement: Any) -> BackendSpec:
    raw: dict[str, Any] = {"name": "b", "summary": "s", "engine": "null", "device": "cpu", "precision": "none", "replicas": replicas}
    return validate_spec(raw | ({"placement": placement} if placement else {}), BackendSpec, "test")


def test_a_tree_is_read_as_it_is(tmp_path: Path) -> None:
    cpus = machine(tmp_path, sockets=2, cores=4)
    assert len(cpus) == 16 and {cpu.node for cpu in cpus} == {0, 1}
    assert {cpu.number for cpu in cpus if cpu.node == 1} == {4, 5, 6, 7, 12, 13, 14, 15}
    assert topology(tmp_path, allowed={0, 8}) == (Cpu(0, 0, 0, 0), Cpu(0, 0, 0, 8))
    assert topology(tmp_path / "nowhere") == ()


def test_this_machine_is_read() -> None:
    assert {cpu.number for cpu in topology()} == os.sched_getaffinity(0)


def test_small_machines_pin_nothing(tmp_path: Path) -> None:
    (where,) = place(machine(tmp_path, 1, MIN_CORES - 1), [backend(2)])
    assert not where.client and all(not slot.cpus for slot in where.servers) and len(where.servers) == 2
    assert "nothing is pinned" in where.reason


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_from_eight_cores_on_servers_and_client_are_apart(tmp_path: Path, replicas: int) -> None:
    cpus = machine(tmp_path, 1, MIN_CORES)
    (where,) = place(cpus, [backend(replicas)])
    assert where.client == (7, 15)  # one core with its sibling
    taken = [number for slot in where.servers for number in slot.cpus]
    assert len(taken) == len(set(taken)) and not set(taken) & set(where.client)
    assert len({len(slot.cpus) for slot in where.servers}) == 1, "replicas are alike"
    if replicas == 1:
        assert set(taken) | set(where.client) == {cpu.number for cpu in cpus}


def test_one_replica_per_node_is_bound_to_its_memory(tmp_path: Path) -> None:
    (where,) = place(machine(tmp_path, 2, 16, nodes_per_socket=2), [backend(4, numa="per-node", threads=6, smt=False)])
    assert [slot.memory_nodes for slot in where.servers] == [(0,), (1,), (2,), (3,)]
    assert [as_list(slot.cpus) for slot in where.servers] == ["0-5", "8-13", "16-21", "24-29"]
    assert where.client == (30, 31, 62, 63)


def test_two_instances_per_socket(tmp_path: Path) -> None:
    (where,) = place(machine(tmp_path, 2, 8, smt=1), [backend(4, numa="per-socket")])
    # The client's core is taken from the last socket, and replicas there are as wide as what is left allows.
    assert [as_list(slot.cpus) for slot in where.servers] == ["0-3", "8-10", "4-7", "11-13"]
    assert [slot.memory_nodes for slot in where.servers] == [(0,), (1,), (0,), (1,)]


def test_named_cores_and_sockets(tmp_path: Path) -> None:
    cpus = machine(tmp_path, 2, 8, smt=1)
    (where,) = place(cpus, [backend(2, cores=["0-3", "4-5"])])
    assert [slot.cpus for slot in where.servers] == [(0, 1, 2, 3), (4, 5)] and where.client == tuple(range(6, 16))
    (where,) = place(cpus, [backend(1, sockets=[0])])
    assert where.servers[0].cpus == tuple(range(8)) and where.servers[0].memory_nodes == (0,) and where.client == (15,)
    (where,) = place(cpus, [backend(1, sockets=[0])], client_cpus=[3])
    assert where.client == (3,) and 3 not in where.servers[0].cpus


@pytest.mark.parametrize(
    ("replicas", "placement", "words"),
    [
        (3, {"numa": "per-node"}, "do not fall evenly"),
        (1, {"sockets": [5]}, "no socket 5"),
        (1, {"threads": 99}, "99 wanted"),
        (2, {"cores": ["0", "1", "2"]}, "3 lists for 2 replicas"),
        (1, {"cores": ["999"]}, "CPU 999 is not there"),
    ],
)
def test_what_a_machine_cannot_do_is_said(tmp_path: Path, replicas: int, placement: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        place(machine(tmp_path, 2, 8), [backend(replicas, **placement)])


def test_bad_specs() -> None:
    for placement in ({"cores": ["a-b"]}, {"cores": ["0"], "numa": "per-node"}, {"devices": ["0"]}):
        with pytest.raises(SpecError):
            backend(1, **placement)
    with pytest.raises(SpecError, match="already runs"):
        raw = {"name": "b", "summary": "s", "engine": "openai", "device": "remote", "precision": "x", "replicas": 2}
        validate_spec(raw, BackendSpec, "test")


@given(st.sets(st.integers(0, 300)))
def test_lists_round_trip(numbers: set[int]) -> None:
    assert cpu_list(as_list(numbers)) == sorted(numbers)

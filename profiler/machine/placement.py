"""Which cores the servers of a backend get, and which the load client: a pure function of the machine's topology and the backend.

Both are placed or neither: an engine that is not kept off a core makes a client that is pinned to it wait there, which is worse than a
client that the kernel may move (docs/client.md). Taking a core from an engine changes what is measured by up to its share of the
machine, so by default it is done from MIN_CORES on, where that is an eighth at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from profiler.errors import SpecError
from profiler.machine.topology import Cpu, cpu_list
from profiler.records import Slot
from profiler.spec import BackendSpec, PlacementSpec

MIN_CORES = 8  # physical; with fewer nothing is pinned unless the backend says so
CORES_PER_CLIENT_CORE = 16  # the client gets one core for each so many, at least 1
MOST_CLIENT_CORES = 4  # several hundred thousand tokens/s (run/clients.py)


@dataclass(frozen=True)
class Placement:
    """`servers` has one slot per replica; `client` is () where the kernel chooses. `reason` says why it is so, one line."""

    servers: tuple[Slot, ...]
    client: tuple[int, ...]
    reason: str


def place(cpus: Sequence[Cpu], backends: Sequence[BackendSpec], client_cpus: Sequence[int] = ()) -> list[Placement]:
    """The placement of each backend; of several (a co-run) none is kept off another's cores unless its own placement does it.

    `client_cpus` are what the user gave. Raises SpecError for a placement that this machine does not allow.
    """
    return [_place(cpus, backend, client_cpus) for backend in backends]


def _place(cpus: Sequence[Cpu], backend: BackendSpec, client_cpus: Sequence[int]) -> Placement:
    asked = backend.placement
    cores = _cores(cpus)
    nothing = Placement((Slot(),) * backend.replicas, tuple(client_cpus), "")
    if backend.device == "remote":
        return Placement(nothing.servers, nothing.client, "the server is not ours to place")
    if asked is None and len(cores) < MIN_CORES:
        return Placement(nothing.servers, nothing.client, f"{len(cores)} cores: below {MIN_CORES} nothing is pinned")
    client = tuple(client_cpus) or _for_client(cores)
    rest = [core for core in cores if not {cpu.number for cpu in core} & set(client)]
    if asked is not None and asked.cores:
        return _explicit(cpus, backend, asked, tuple(client_cpus))
    asked = asked or PlacementSpec()
    try:
        servers = _shares(rest, backend, asked)
    except SpecError:
        if backend.placement is not None:
            raise
        return Placement(nothing.servers, nothing.client, f"{len(cores)} cores are too few for {backend.replicas} replicas apart")
    return Placement(servers, client, "servers and client on cores of their own")


def _shares(cores: Sequence[Sequence[Cpu]], backend: BackendSpec, asked: PlacementSpec) -> tuple[Slot, ...]:
    """Equal shares of the cores: first by node or socket, then within it."""
    where = f"backend {backend.name}: placement"
    if asked.sockets is not None:
        present = {cpu.socket for core in cores for cpu in core}
        if missing := sorted(set(asked.sockets) - present):
            raise SpecError(f"{where}.sockets: no socket {missing[0]} here", hint=f"this machine has {sorted(present)}")
        cores = [core for core in cores if core[0].socket in asked.sockets]
    domains = [list(cores)]
    if asked.numa != "none":
        key = (lambda core: core[0].node) if asked.numa == "per-node" else (lambda core: core[0].socket)
        domains = [list(group) for _, group in groupby(sorted(cores, key=key), key=key)]
    if not cores or backend.replicas % len(domains):
        what = "nodes" if asked.numa == "per-node" else "sockets"
        hint = f"replicas must be a multiple of the {what}, which are {len(domains)} here; or leave out numa"
        raise SpecError(f"{where}.numa: {backend.replicas} replicas do not fall evenly on {len(domains)} {what}", hint=hint)
    each = backend.replicas // len(domains)
    slots = []
    for k in range(backend.replicas):
        domain = domains[k % len(domains)]
        width = len(domain) // each
        share = domain[(k // len(domains)) * width : (k // len(domains) + 1) * width]
        if asked.threads is not None:
            if asked.threads > width:
                raise SpecError(f"{where}.threads: {asked.threads} wanted, {width} cores are there for each replica", hint="give fewer")
            share = share[: asked.threads]
        if not share:
            raise SpecError(f"{where}: {len(domain)} cores cannot be shared by {each} replicas", hint="fewer replicas, or no placement")
        slots.append(_slot([cpu for core in share for cpu in (core if asked.smt else core[:1])], asked))
    return tuple(slots)


def _explicit(cpus: Sequence[Cpu], backend: BackendSpec, asked: PlacementSpec, client_cpus: tuple[int, ...]) -> Placement:
    where = f"backend {backend.name}: placement.cores"
    assert asked.cores is not None
    if len(asked.cores) not in (1, backend.replicas):
        raise SpecError(f"{where}: {len(asked.cores)} lists for {backend.replicas} replicas", hint="one for each, or one for all")
    by_number = {cpu.number: cpu for cpu in cpus}
    slots = []
    for text in asked.cores:
        numbers = cpu_list(text)
        if missing := [number for number in numbers if number not in by_number]:
            raise SpecError(f"{where}: CPU {missing[0]} is not there, or not ours to use", hint="lscpu -e shows them")
        slots.append(_slot([by_number[number] for number in numbers], asked))
    servers = tuple(slots * (backend.replicas // len(slots)))
    taken = {number for slot in servers for number in slot.cpus}
    # What the servers leave is the client's; where they leave nothing the kernel chooses.
    client = client_cpus or tuple(sorted(set(by_number) - taken))
    return Placement(servers, client, "cores as the backend names them")


def _slot(cpus: Sequence[Cpu], asked: PlacementSpec) -> Slot:
    nodes = sorted({cpu.node for cpu in cpus})
    local = asked.memory == "local" and (asked.numa != "none" or len(nodes) == 1)
    return Slot(tuple(sorted(cpu.number for cpu in cpus)), tuple(nodes) if local else ())


def _for_client(cores: Sequence[Sequence[Cpu]]) -> tuple[int, ...]:
    """The last cores: the first ones of a machine serve its interrupts."""
    count = max(1, min(MOST_CLIENT_CORES, len(cores) // CORES_PER_CLIENT_CORE))
    return tuple(sorted(cpu.number for core in cores[-count:] for cpu in core))


def _cores(cpus: Sequence[Cpu]) -> list[list[Cpu]]:
    """CPUs of one core together, in the order of nodes, sockets, cores."""
    return [list(group) for _, group in groupby(sorted(cpus), key=lambda cpu: (cpu.node, cpu.socket, cpu.core))]

"""What of an offer a measured endpoint takes: its devices, or of a CPU node its threads. One "replica" of an answer is all that served the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from profiler.analyse.limit import Row
from profiler.analyse.offers import Offer, device_id

SUMS = ("price_per_hour", "purchase", "power_w", "support_per_year")  # of an offer: of several together they add up


@dataclass(frozen=True)
class Footprint:
    """`devices` None: a CPU node whose sockets nobody counted. `threads`: of the measured CPU machine; None where the server is not on ours."""

    devices: int | None = None
    threads: int | None = None


def footprint(row: Row, document: Mapping[str, Any]) -> Footprint:
    """Of a run and its provenance. λ* is that of the whole backend: all its servers, each over its tensor-parallel devices."""
    observed = row.get("device_source") == "observed"
    machine, backend = (document.get(name) or {} for name in ("machine", "backend"))
    threads = machine.get("threads") if observed else None  # of an attached endpoint the machine is the client's
    if row.get("device_count"):
        return Footprint(int(row["device_count"]), threads)
    if is_cpu(str(row.get("device") or "")) and backend.get("device") != "cuda":
        return Footprint(None, threads)
    named = (backend.get("placement") or {}).get("devices")
    if named:  # replicas may share a device
        return Footprint(len({part.strip() for text in named for part in str(text).split(",")}), threads)
    parallel = (backend.get("options") or {}).get("tensor_parallel_size") or 1
    return Footprint(int(parallel) * int(row.get("replicas") or 1), threads)


def fitted(offer: Offer, device: str, taken: Footprint) -> tuple[Offer, int]:
    """(what one has to take as a whole, the replicas in it): the offer, or as many of them together as one replica needs."""
    holds, needs = offer.devices, taken.devices
    if is_cpu(device_id(device) or offer.device) and needs is None:
        holds, needs = offer.vcpus or 1, taken.threads if offer.vcpus else 1  # without either a run of a CPU is of the whole node
    needs = needs or holds
    if needs <= holds:
        return offer, holds // needs
    n = -(-needs // holds)
    sums = {name: value * n for name in SUMS if (value := getattr(offer, name)) is not None}
    return replace(
        offer, name=f"{offer.name} ({n} for one replica)", devices=offer.devices * n, vcpus=offer.vcpus * n if offer.vcpus else None, **sums
    ), 1


def is_cpu(device: str) -> bool:
    known = (device_id(device) or device).lower()
    return not any(maker in known for maker in ("nvidia", "amd-mi", "gaudi", "arc"))

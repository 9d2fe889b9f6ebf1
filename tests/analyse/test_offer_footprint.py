"""What of an offer one replica takes: as many devices as served the run, and never the client's threads."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.analyse.footprint import Footprint, fitted, footprint
from profiler.analyse.offers import Offer

H100, EPYC = "NVIDIA H100 80GB HBM3", "AMD EPYC 9654 96-Core Processor"
GPU: dict[str, Any] = {"device": H100, "device_source": "observed", "replicas": 1}


def node(devices: int = 8, **changes: Any) -> Offer:
    values = {
        "name": "node",
        "device": "d",
        "basis": "rented",
        "currency": "USD",
        "as_of": "2026-11",
        "source": "s",
        "price_per_hour": 20.0,
    }
    return Offer(devices=devices, **values | changes)


@pytest.mark.parametrize(
    ("row", "backend", "devices"),
    [
        (GPU, {"device": "cuda"}, 1),
        (GPU, {"device": "cuda", "options": {"tensor_parallel_size": 4}}, 4),
        (GPU | {"replicas": 2}, {"device": "cuda", "options": {"tensor_parallel_size": 2}}, 4),
        (GPU | {"replicas": 2}, {"device": "cuda", "placement": {"devices": ["0", "0"]}}, 1),
        (GPU | {"device_source": "declared", "device_count": 8}, {"device": "remote"}, 8),
        (GPU | {"device": EPYC, "replicas": 4}, {"device": "cpu"}, None),
    ],
)
def test_the_devices_that_served_the_run(row: dict[str, Any], backend: dict[str, Any], devices: int | None) -> None:
    assert footprint(row, {"backend": backend}).devices == devices


def test_the_threads_of_the_client_are_not_those_of_an_attached_endpoint() -> None:
    machine = {"machine": {"threads": 4}, "backend": {"device": "cpu"}}
    assert footprint({"device": EPYC, "device_source": "observed"}, machine).threads == 4
    assert footprint({"device": EPYC, "device_source": "declared"}, machine).threads is None


@pytest.mark.parametrize(("devices", "needs", "k"), [(8, 1, 8), (8, 8, 1), (8, 3, 2), (1, 1, 1)])
def test_an_offer_holds_as_many_as_its_devices_allow(devices: int, needs: int, k: int) -> None:
    offer = node(devices)
    assert fitted(offer, H100, Footprint(needs)) == (offer, k)


def test_what_no_single_offer_holds_takes_several_together() -> None:
    whole, k = fitted(node(2, power_w=100.0), H100, Footprint(5))
    assert (k, whole.devices, whole.price_per_hour, whole.power_w) == (1, 6, 60.0, 300.0) and "3 for one replica" in whole.name


def test_a_cpu_node_holds_threads_of_the_measured_machine() -> None:
    assert fitted(node(1, vcpus=192), EPYC, Footprint(None, 48))[1] == 4
    assert fitted(node(1, vcpus=24), EPYC, Footprint(None, 48))[0].price_per_hour == 40.0
    assert fitted(node(2, vcpus=192), EPYC, Footprint()) == (node(2, vcpus=192), 1)

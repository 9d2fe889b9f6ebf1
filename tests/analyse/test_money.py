"""The money of one candidate: its devices, its declared price, a day that comes and goes, its measured power."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.analyse import capacity, carbon, fit, law, money, qos
from profiler.analyse.cost import Cost
from profiler.analyse.demand import Demand
from profiler.analyse.limit import Limit
from profiler.analyse.offers import Offer, Prices
from profiler.analyse.sensitivity import Bar

H100 = "NVIDIA H100 80GB HBM3"
MONTH_H = 730
SPAN = capacity.Range(3.0, 3.5, "measured", None, "")
ROW: dict[str, Any] = {
    "device": H100,
    "backend": "b",
    "model": "m",
    "provenance_class": "measured",
    "device_source": "observed",
    "replicas": 1,
}
ROW |= {"started_at": "2026-11-24T01:00:00.000+00:00"}


def offer(**changes: Any) -> Offer:
    values = {"name": "node", "device": "nvidia-h100-sxm", "basis": "rented", "currency": "USD", "as_of": "2026-11", "source": "s"}
    return Offer(**values | {"devices": 8} | changes)


def of(
    row: dict[str, Any],
    *offers: Offer,
    demand: Demand | None = None,
    sized: capacity.Capacity | None = None,
    rows: Any = (),
    currency: str = "USD",
) -> tuple[tuple[Cost, ...], tuple[Bar, ...], list[str]]:
    missing: list[str] = []
    question = fit.Question(qos.parse("ttft_p95<=1s"), Prices(offers, (), currency))
    costs, bars, _ = money.money(question, row, {}, SPAN, None, demand, sized, None, 10.0, 10.0, missing, rows=rows)
    return costs, bars, missing


def test_eight_devices_of_one_endpoint_are_not_eight_replicas() -> None:
    node = offer(price_per_hour=20.0)
    (one,), _, _ = of(ROW, node)
    (eight,), _, _ = of(ROW | {"device_source": "declared", "device_count": 8}, node)
    assert (one.replicas_per_offer, eight.replicas_per_offer) == (8, 1) and eight.provenance == "measured"
    limits = [c.at("limit") for c in (one, eight)]
    assert limits[0] is not None and limits[1] is not None
    assert limits[1].per_1k_requests == pytest.approx(8 * limits[0].per_1k_requests)


def test_a_declared_device_without_a_count_is_said_to_be_taken_for_one() -> None:
    _, _, missing = of(ROW | {"device_source": "declared"}, offer(price_per_hour=20.0))
    assert any("--device-count" in text for text in missing)


def test_a_declared_price_is_an_offer_of_its_own() -> None:
    row = ROW | {"device_source": "declared", "device_count": 8, "price_usd_per_hour": 2.5}
    (made,), _, missing = of(row)
    assert made.monthly.total == pytest.approx(2.5 * MONTH_H) and made.replicas_per_offer == 1
    assert made.offer.as_of == "2026-11-24" and "declared" in made.offer.name and "declared" in made.offer.source
    none, _, missing = of(row, currency="EUR")
    assert none == () and any("nothing is converted" in text for text in missing)


def fleet(hours: tuple[int, ...], replicas: int) -> capacity.Capacity:
    mean = sum(hours) / len(hours)
    return capacity.Capacity(replicas, replicas, 0, mean, None, None, 0.0, None, None, "measured", (), hours)


def test_the_tornado_has_the_middle_that_is_printed_and_autoscaling_pays_whole_nodes() -> None:
    shape = tuple([0.5] * 12 + [1.5] * 12)
    demand = Demand("", rate=6.0, shape=shape)
    sized = fleet(tuple([1] * 11 + [4] * 12 + [4]), 4)  # the replay asked for one more at the peak
    for node, key in ((offer(price_per_hour=20.0), "price_per_hour"), (offer(devices=1, price_per_hour=2.0), "price_per_hour")):
        (made,), bars, _ = of(ROW, node, demand=demand, sized=sized)
        bar = next(bar for bar in bars if bar.name == key)
        assert bar.low is not None and bar.high is not None
        assert (bar.low + bar.high) / 2 == pytest.approx(made.points[0].per_1k_requests)
    (node_of_8,), _, _ = of(ROW, offer(price_per_hour=20.0), demand=demand, sized=sized)
    assert node_of_8.offers == 1 and node_of_8.points[0].per_month == pytest.approx(20.0 * MONTH_H)


def test_power_is_of_the_run_nearest_the_limit_and_of_every_machine_in_the_offer() -> None:
    rows = [
        {"energy_j": watts * 60.0, "window_s": 60.0, "request_rate": rate, "energy_scope": "wall"}
        for rate, watts in ((0.1, 50), (2.9, 400), (9, 90))
    ]
    assert money.power_w(rows, 3.0) == pytest.approx(400) and money.power_w([rows[0] | {"energy_scope": "gpu_board"}], 3.0) is None
    paid = offer(basis="paid", pue=1.0, tariff_per_kwh=1.0)
    (made,), _, _ = of(ROW, paid, rows=rows)
    assert made.replicas_per_offer == 8 and made.monthly.total == pytest.approx(8 * 0.4 * MONTH_H)


def test_energy_of_differing_scopes_is_not_one_range() -> None:
    board = {"energy_j": 3.6e4, "request_rate": 1.0, "window_s": 10.0, "energy_scope": "gpu_board"}
    wall = board | {"energy_j": 3.6e5, "energy_scope": "wall"}
    assert fit._energy([board, wall]) == "10 to 10 kWh per 1,000 requests (wall)"
    found = carbon.carbon([board, wall], carbon.Grid(1000.0, "2024", "s"), None)
    assert found is not None and (found.kwh_lo, found.scope) == (pytest.approx(10.0), "wall")


def test_a_failure_that_the_law_does_not_explain_is_said() -> None:
    fast = law.Law(0.01, 0.0005, 0.0, 0.0, 16, 0.05, 3, 9.0)
    missing: list[str] = []
    limit = Limit("rate", None, 0.5, "measured", "fails at 0.5", ())
    assert fit._range(limit, fast, [(10, 32)], qos.parse("ttft_p95<=5s, error_rate<=1%"), missing) is None
    assert len(missing) == 1 and "the step law does not explain the failure at 0.5/s; measure lower" in missing[0]

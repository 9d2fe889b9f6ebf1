"""Money by hand-made examples and by what must hold for any figures: sums, monotony, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse import cost
from profiler.analyse.offers import ApiPrice, Offer
from profiler.analyse.sensitivity import tornado

MONTH_S = 2_628_000  # 365 days / 12


def offer(**changes: object) -> Offer:
    values: dict[str, object] = {"name": "box", "device": "d", "basis": "rented", "currency": "USD", "as_of": "2026-11", "source": "s"}
    return Offer(**(values | changes))  # type: ignore[arg-type]


RENTED = offer(price_per_hour=1.0)
OWNED = {
    "basis": "owned",
    "purchase": 36_000.0,
    "years": 3.0,
    "power_w": 1000.0,
    "pue": 1.5,
    "tariff_per_kwh": 0.2,
    "support_per_year": 1200.0,
}


def test_three_bases_by_hand() -> None:
    assert cost.monthly(RENTED).total == pytest.approx(730)
    owned = cost.monthly(offer(**OWNED))
    assert owned.total == pytest.approx(1000 + 100 + 1.0 * 1.5 * 730 * 0.2) and not owned.missing
    paid = cost.monthly(offer(**OWNED | {"basis": "paid"}))
    assert paid.parts == (("power", pytest.approx(219.0)),)


def test_unknown_power_makes_a_lower_bound_or_no_figure_and_never_zero() -> None:
    owned = cost.monthly(offer(**OWNED | {"power_w": None}))
    assert owned.missing == ("power_w",) and owned.total == pytest.approx(1100)
    made = cost.cost(offer(**OWNED | {"power_w": None}), 0.5, 1, 0, 1.0, None, None, 100.0)
    assert isinstance(made, cost.Cost) and made.points[0].relation == ">="
    paid = cost.cost(offer(**OWNED | {"basis": "paid", "power_w": None}), 0.5, 1, 0, 1.0, None, None, 100.0)
    assert isinstance(paid, str) and "no power_w" in paid


def test_the_three_points_by_hand() -> None:
    made = cost.cost(RENTED, 0.32, 1, 0, 1.0, 2.0, cost.Saturation(4.0, False, ""), 200.0)
    assert isinstance(made, cost.Cost)
    assert made.points[0].per_1k_requests == pytest.approx(730 / (0.32 * MONTH_S) * 1000)
    assert made.points[0].per_1m_tokens == pytest.approx(made.points[0].per_1k_requests / 1000 / 200 * 1e6)
    limit, saturated = made.at("limit"), made.at("saturation")
    assert limit is not None and saturated is not None
    assert limit.per_1k_requests == pytest.approx(730 / MONTH_S * 1000) and limit.per_1k_lo == pytest.approx(limit.per_1k_requests / 2)
    assert saturated.relation == "<=" and (made.qos_price, made.qos_price_relation) == (pytest.approx(4.0), ">=")
    assert made.idle == pytest.approx(0.68 * 730)  # "68 % idle"


def test_packing_is_predicted() -> None:
    made = cost.cost(RENTED, 3.0, 3, 0, 1.0, None, None, None, replicas_per_offer=8)
    assert isinstance(made, cost.Cost) and made.provenance == "predicted"
    assert made.offers == 1 and made.left_over == pytest.approx(730 * 5 / 8)


def test_a_node_is_whole_in_every_hour() -> None:
    node = offer(price_per_hour=20.0)
    made = cost.cost(node, 6.0, [2] * 12 + [4] * 12, 0, 2.0, None, None, None, replicas_per_offer=8)
    assert isinstance(made, cost.Cost) and made.offers == 1 and made.points[0].per_month == pytest.approx(20 * 730)
    small = cost.cost(node, 3.0, [1] * 12 + [4] * 12, 1, 2.0, None, None, None, replicas_per_offer=2)
    assert isinstance(small, cost.Cost) and small.offers == 2 and small.points[0].per_month == pytest.approx(2 * 20 * 730)  # 1 and 3


def test_what_is_bought_is_bought_for_the_busiest_hour_and_only_its_power_comes_and_goes() -> None:
    made = cost.cost(offer(**OWNED), 2.0, [1] * 12 + [3] * 12, 1, 1.5, None, None, None)
    assert isinstance(made, cost.Cost) and made.offers == 4
    assert made.points[0].per_month == pytest.approx(4 * 1100 + 3 * 219)
    assert made.used + made.idle + made.spare + made.left_over == pytest.approx(made.points[0].per_month)
    paid = cost.cost(offer(**OWNED | {"basis": "paid"}), 2.0, [1] * 12 + [3] * 12, 1, 1.5, None, None, None)
    assert isinstance(paid, cost.Cost) and paid.offers == 3 and paid.points[0].per_month == pytest.approx(3 * 219)


def test_what_lacks_a_part_of_its_price_stands_behind_what_is_known() -> None:
    known = cost.cost(RENTED, 0.5, 1, 0, 1.0, None, None, None)
    part = cost.cost(offer(**OWNED | {"purchase": 36.0, "tariff_per_kwh": None}), 0.5, 1, 0, 1.0, None, None, None)
    assert isinstance(known, cost.Cost) and isinstance(part, cost.Cost)
    assert part.points[0].per_month < known.points[0].per_month and min(part, known, key=cost.order) is known


@given(
    price=st.floats(0.01, 100), rate=st.floats(0.01, 50), limit=st.floats(0.05, 5), spares=st.integers(0, 3), per_offer=st.sampled_from([1, 2, 8])
)  # fmt: skip
def test_the_parts_make_up_the_month_and_a_higher_price_costs_more(
    price: float, rate: float, limit: float, spares: int, per_offer: int
) -> None:
    replicas = -(-rate // limit)
    one, dearer = (
        cost.cost(offer(price_per_hour=p), rate, replicas, spares, limit, None, None, 10.0, per_offer) for p in (price, price * 1.1)
    )
    assert isinstance(one, cost.Cost) and isinstance(dearer, cost.Cost)
    assert one.used + one.idle + one.spare + one.left_over == pytest.approx(one.points[0].per_month)
    assert one.left_over >= -1e-9 and one.idle >= 0
    for a, b in zip(one.points, dearer.points, strict=True):
        assert b.per_1k_requests > a.per_1k_requests


@given(st.floats(1e-6, 1.0), st.floats(0.0, 1.0), st.floats(1, 5000), st.floats(1, 5000))
def test_input_and_output_apart_sum_to_the_request(per_request: float, share: float, isl: float, osl: float) -> None:
    into, out = cost.split_by_direction(per_request, share, isl, osl)
    assert into * isl / 1e6 + out * osl / 1e6 == pytest.approx(per_request)


def test_a_plateau_is_proven_by_twice_the_users_for_the_same_rate() -> None:
    flat = cost.saturation_of([(1, 0.5), (4, 0.97), (8, 1.0)])
    rising = cost.saturation_of([(1, 0.5), (4, 0.8), (8, 1.0)])
    assert flat is not None and flat.proven and rising is not None and not rising.proven and cost.saturation_of([]) is None


def test_break_even_by_hand() -> None:
    api = ApiPrice("m", "p", 1.0, 2.0, "USD", "2026-11", "s")  # 1000 in, 500 out: 0.002 a request
    even = cost.break_even(RENTED, 730.0, 1.0, 1000, 500, api)
    assert even.from_requests == pytest.approx(365_000) and even.share_of_limit == pytest.approx(365_000 / MONTH_S)
    assert even.again_from is None  # a second offer pays before the first is full
    assert "never" in cost.break_even(RENTED, 730.0, 0.1, 1000, 500, api).text
    halved = cost.break_even(RENTED, 730.0, 1.0, 1000, 500, api, peak=4.0)
    assert halved.share_of_limit == pytest.approx(4 * 365_000 / MONTH_S) and halved.again_from == pytest.approx(MONTH_S / 4)


def test_the_tornado_begins_with_what_moves_most() -> None:
    bars = tornado(RENTED, 0.5, (1.0, 1.05), lambda o, rate, limit: (o.price_per_hour or 0) / rate / limit)
    assert [bar.name for bar in bars] == ["demand", "price_per_hour", "λ*"]
    assert bars[0].swing >= bars[1].swing >= bars[2].swing

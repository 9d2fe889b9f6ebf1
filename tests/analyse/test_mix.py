"""Mixed fleets against all fleets of small numbers, tried one by one; CO2 and its text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse.carbon import carbon, parse
from profiler.analyse.mix import Kind, Mix, cheapest, words
from profiler.analyse.names import names
from profiler.errors import SpecError


def serves(counts: tuple[int, ...], kinds: list[Kind], rates: list[float]) -> bool:
    """Two workloads, by a sweep over how much of the first each kind takes: a fractional knapsack by the ratio of what they carry."""
    order = sorted(range(len(kinds)), key=lambda j: kinds[j].carries[0] / max(kinds[j].carries[1], 1e-12), reverse=True)
    left, other = rates[0], 0.0
    for j in order:
        capacity = counts[j]
        used = min(capacity, left / kinds[j].carries[0]) if kinds[j].carries[0] else 0.0
        left -= used * kinds[j].carries[0]
        other += (capacity - used) * kinds[j].carries[1]
    return left <= 1e-7 and other >= rates[1] - 1e-7


CARRIES = st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.25, 1.0, 2.0]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([3.0, 10.0, 17.0]), CARRIES), min_size=1, max_size=3),
    st.tuples(st.sampled_from([0.4, 1.3, 2.6]), st.sampled_from([0.3, 1.1, 1.9])),
)
def test_no_fleet_is_cheaper(rows: list[tuple[float, tuple[float, float]]], rates: tuple[float, float]) -> None:
    kinds = [Kind(str(k), month, carries) for k, (month, carries) in enumerate(rows)]
    made = cheapest(kinds, rates)
    assert isinstance(made, Mix) and made.proven
    top = 16 if len(kinds) == 1 else 15
    best = min(
        sum(n * kind.month for n, kind in zip(counts, kinds, strict=True))
        for counts in itertools.product(range(top), repeat=len(kinds))
        if serves(counts, kinds, list(rates))
    )
    assert made.month == pytest.approx(best)
    for i, rate in enumerate(rates):
        assert sum(part.served[i] for part in made.parts) >= rate - 1e-6
    assert all(sum(x / c for x, c in zip(p.served, p.kind.carries, strict=True)) <= p.offers + 1e-6 for p in made.parts)
    assert made.single is not None and made.month <= made.single[2] + 1e-9


def test_mixing_pays_where_each_is_good_at_one() -> None:
    kinds = [Kind("short", 10.0, (10.0, 1.0)), Kind("long", 10.0, (1.0, 10.0))]
    made = cheapest(kinds, (10.0, 10.0))
    assert isinstance(made, Mix) and made.month == pytest.approx(20.0)
    assert made.single is not None and made.single[2] == pytest.approx(110.0)
    text = "\n".join(words(made, ["chat", "rag"], "USD"))
    assert "1 x short: 10/s of chat" in text and "mixing saves 82%" in text


def test_nobody_carries_it() -> None:
    made = cheapest([Kind("a", 1.0, (1.0, 0.0))], (1.0, 1.0))
    assert words(made, ["chat", "rag"], "USD") == ["no mixed fleet: no kind of offer carries rag within its target"]


def test_co2_by_hand() -> None:
    row = {"energy_j": 3.6e6, "request_rate": 2.0, "window_s": 50.0, "energy_scope": "wall"}  # 1 kWh for 100 requests
    found = carbon([row, {**row, "energy_scope": "gpu_board"}], parse("400 g/kWh 2024 example"), 1.5)
    assert (
        found is not None and found.kwh_lo == pytest.approx(10) and found.kg_lo == pytest.approx(10 * 1.5 * 0.4) and found.scope == "wall"
    )
    assert "6 kg CO2 per 1,000 requests (wall, PUE 1.5, 400 g/kWh, 2024, example)" in found.words
    assert carbon([{**row, "energy_j": None}], parse("0.4 kg/kWh 2024-01"), None) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [("400", "no intensity"), ("400 g/kWh", "no date"), ("4000 g/kWh 2024", "above any grid"), ("g/kWh 2024", "no intensity")],
)
def test_a_grid_that_lacks_a_part(text: str, what: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert what in caught.value.message and caught.value.hint


def test_names_say_what_tells_rows_apart_and_no_more() -> None:
    one = {"backend": "b", "model": "m", "variant": "int8", "device": "d", "machine_id": "1"}
    assert names([one, {**one, "backend": "c", "model": "n"}, {**one, "device": "e", "machine_id": "2"}]) == ["b", "c", "b"]
    assert names([one, {**one, "model": "n", "variant": "int4"}]) == ["b · m", "b · n"]
    assert names([one, {**one, "variant": "int4"}, {**one, "model": None}]) == ["b · m · int8", "b · m · int4", "b · no model"]
    assert names([one, {**one, "machine_id": "2"}]) == ["b · 1", "b · 2"]

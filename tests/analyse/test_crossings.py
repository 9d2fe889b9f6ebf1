"""Who is the cheapest at which demand: against a walk through a fine grid, which knows nothing of steps."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse import cost
from profiler.analyse.crossings import Curve, by_basis, stretches, words
from profiler.analyse.offers import Offer


def month(carries: float, price: float, rate: float) -> float:
    return max(1, math.ceil(round(rate / carries, 9))) * price


def test_two_staircases_by_hand() -> None:
    small, big = Curve("small", "rented", 1.0, 10.0), Curve("big", "rented", 10.0, 35.0)
    made = stretches([small, big], 12.0)
    assert [(s.above, s.upto, s.curve, s.month) for s in made] == [(0.0, 3.0, small, 30.0), (3.0, 12.0, big, 70.0)]
    assert "small up to 3/s, big up to 12/s" in words(made)


def test_no_crossing_is_said() -> None:
    made = stretches([Curve("a", "rented", 2.0, 1.0), Curve("b", "rented", 1.0, 1.0)], 10.0)
    assert len(made) == 1 and "no crossing" in words(made) and stretches([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.3, 20), st.floats(1, 1000)), min_size=1, max_size=4), st.floats(0.01, 1.0))
def test_nobody_is_cheaper_anywhere(curves: list[tuple[float, float]], where: float) -> None:
    made = stretches([Curve(str(k), "rented", c, p) for k, (c, p) in enumerate(curves)], 40.0)
    assert made[0].above == 0.0 and made[-1].upto == pytest.approx(40.0)
    assert all(a.upto == b.above and a.curve is not b.curve for a, b in itertools.pairwise(made))
    rate = 40.0 * where
    if min(abs(rate / c - round(rate / c)) for c, _ in curves) > 1e-6:  # at a step itself rounding decides
        chosen = next(s.curve for s in made if s.above < rate <= s.upto)
        assert month(chosen.carries, chosen.month, rate) == pytest.approx(min(month(c, p, rate) for c, p in curves))


def candidate(name: str, price: float, provenance: Any, quality: str | None = None, **changes: Any) -> Any:
    values: dict[str, Any] = {"name": "box", "device": "d", "basis": "rented", "currency": "USD", "as_of": "2026-11", "source": "s"}
    made = cost.cost(Offer(**values | {"price_per_hour": price} | changes), 1.0, 1, 0, 1.0, None, None, None, provenance=provenance)
    joint = SimpleNamespace(quality=quality) if quality else None
    return SimpleNamespace(name=name, span=SimpleNamespace(lower=1.0), demand=None, costs=(made,), joint=joint)


def test_classes_do_not_compete_and_what_quality_rules_out_is_not_named() -> None:
    own = [
        candidate("seen", 2.0, "measured"),
        candidate("worse", 1.0, "measured", "INFERIOR"),
        candidate("good", 3.0, "measured", "NON-INFERIOR"),
        candidate("theirs", 0.1, "imported"),
    ]
    found = by_basis(own)["rented"]
    assert {name: {s.curve.name for s in made} for name, made in found.items()} == {
        "measured": {"seen (box)"},
        "imported": {"theirs (box)"},
    }
    assert found["imported"][0].curve.provenance == "imported"


def test_a_price_of_which_a_part_is_unknown_is_called_at_least() -> None:
    own = [candidate("mine", 0.0, "measured", basis="owned", purchase=900.0, years=1.0)]
    assert by_basis(own)["owned"]["measured"][0].curve.name == "mine (box, at least)"

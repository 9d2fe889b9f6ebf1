"""Who is the cheapest at which demand: against a walk through a fine grid, which knows nothing of steps."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse.crossings import Curve, stretches, words


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

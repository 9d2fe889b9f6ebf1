"""How far apart the loads of stored runs lie says which of them are neighbours on a curve."""

from __future__ import annotations

import math

import pytest

from profiler.analyse import limit


@pytest.mark.parametrize("rung", [0.05, 0.08, 0.10])
@pytest.mark.parametrize("near", [0.83, 9.1, 217.0])
def test_it_is_that_of_the_search_that_chose_them(rung: float, near: float) -> None:
    """The oracle is the scale of docs/limits.md: half rungs, to four figures."""
    half = 1 + rung / 2
    begins = round(math.log(near) / math.log(half))
    loads = [float(f"{half ** (begins + k):.4g}") for k in (0, 1, 3)]
    assert limit.rung_of(loads) == rung
    screen = loads[-1] * 1.003  # a short probe that ran to its end lies on no scale
    assert limit.rung_of([*loads[:2], half ** (begins + 2), loads[-1], screen]) == rung


def test_others_are_taken_for_straight_over_ten_per_cent_at_most_and_five_at_least() -> None:
    assert limit.rung_of([1.0, 2.0, 4.0]) == 0.10
    assert limit.rung_of([1.0, 1.01]) == 0.05

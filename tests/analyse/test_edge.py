"""Where a replay just keeps a target: against crossings that are known, and counts at the boundary."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse.edge import CLOSE, STEEPEST, excess, highest, keeps
from profiler.analyse.qos import parse
from profiler.analyse.replicas import Served


def served(late: int, n: int) -> list[Served]:
    """The first tenth counts for nothing, however late."""
    warm = [Served(9.0, None, None, 9.0)] * (n // 10)
    waits = (2.0 if k < late else 0.5 for k in range(n - n // 10))
    return warm + [Served(wait, None, None, wait) for wait in waits]


@given(st.floats(0.01, 50.0), st.floats(0.3, 200.0), st.booleans(), st.floats(1e-3, 100.0))
def test_the_edge_is_found_however_steep(where: float, slope: float, in_counts: bool, start: float) -> None:
    tried = []

    def excess_at(x: float) -> float:
        tried.append(x)
        z = slope * math.log(x / where)
        z = math.copysign(max(1.0, abs(round(z * 4))) / 4, z) if in_counts else z  # a share of few requests moves in steps
        return max(-STEEPEST, min(STEEPEST, z))

    found = highest(excess_at, start, 1e-3, 100.0, 2.0)
    assert found <= where * (1 + 1e-9) and where < found * (1 + 2 * CLOSE)
    assert len(tried) <= 60


def test_an_edge_outside_is_the_end_it_lies_beyond() -> None:
    assert highest(lambda x: 1.0, 4.0, 2.0, 8.0, 1.5) == 2.0
    assert highest(lambda x: -1.0, 4.0, 2.0, 8.0, 1.5) == 8.0


@pytest.mark.parametrize("n", [100, 1000])
def test_the_shares_are_taken_as_they_are(n: int) -> None:
    target, counted = parse("ttft_p90<=1s"), n - n // 10
    assert keeps(target, served(counted // 10, n)) and not keeps(target, served(counted // 10 + 1, n))
    assert excess(target, served(0, n)) < excess(target, served(counted // 20, n)) < excess(target, served(counted // 10, n)) <= 0


def test_the_worst_constraint_decides() -> None:
    assert keeps(parse("ttft_p90<=1s, e2e_p95<=1s"), served(4, 100)) and not keeps(parse("ttft_p90<=1s, e2e_p95<=1s"), served(5, 100))
    assert keeps(parse("ttft_p90<=1s, error_rate<=1%"), served(5, 100))

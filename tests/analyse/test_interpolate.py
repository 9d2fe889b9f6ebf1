"""Interpolation: exact on figures that follow the model, honest about the rest, and never silently outside of what was measured."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse.interpolate import Point, fit, interpolation, plain, within, words

BASE, RUNNING, CONTEXT, PREFILL = 5e-3, 2e-5, 2e-8, 2e-5
GRID = list(itertools.product((256, 1024, 4096), (64, 256), (1, 8, 32)))


def tpot(isl: float, osl: float, r: float) -> float:
    return BASE + RUNNING * r + CONTEXT * r * (isl + osl / 2) + PREFILL * r * isl / osl


def ttft(isl: float, osl: float, r: float) -> float:
    return 0.01 + 3e-5 * isl + 1e-3 * r + 1e-6 * r * isl


def points(noise: float = 0.0) -> list[Point]:
    return [Point(i, o, r, ttft(i, o, r), tpot(i, o, r) * (1 + noise * (-1) ** k)) for k, (i, o, r) in enumerate(GRID)]


@settings(max_examples=30, deadline=None)
@given(st.floats(256, 4096), st.floats(64, 256), st.floats(1, 32))
def test_what_follows_the_model_comes_back(isl: float, osl: float, r: float) -> None:
    found = interpolation(points())
    assert not isinstance(found, str) and found.ttft is not None
    made = found.at_users(isl, osl, r)
    assert made.tpot_s == pytest.approx(tpot(isl, osl, r), rel=1e-6) and made.ttft_s == pytest.approx(ttft(isl, osl, r), rel=1e-6)
    assert not made.extrapolated and max(found.tpot.errors_inside) < 1e-6
    assert made.rate == pytest.approx(r / (ttft(isl, osl, r) + tpot(isl, osl, r) * (osl - 1)), rel=1e-6)


def test_a_rate_and_its_users_are_the_same_state_and_none_above_the_capacity() -> None:
    found = interpolation(points())
    assert not isinstance(found, str)
    users = found.at_users(1024, 128, 16)
    assert users.rate is not None
    rated = found.at_rate(1024, 128, users.rate)
    assert rated is not None and rated.running == pytest.approx(16) and rated.tpot_s == pytest.approx(users.tpot_s)
    assert found.at_rate(1024, 128, 1e6) is None


@pytest.mark.parametrize(
    ("isl", "osl", "r"), [(128, 128, 8), (8192, 128, 8), (1024, 32, 8), (1024, 512, 8), (1024, 128, 0.5), (1024, 128, 64)]
)
def test_outside_says_extrapolated(isl: float, osl: float, r: float) -> None:
    found = interpolation(points())
    assert not isinstance(found, str)
    assert found.at_users(isl, osl, r).extrapolated and "extrapolated" in found.at_users(isl, osl, r).words


def test_the_hull_is_convex_and_not_a_box() -> None:
    import numpy as np

    triangle = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    assert within(triangle, np.array([4.9, 4.9])) and not within(triangle, np.array([5.5, 5.5]))
    assert within(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([2.0, 5.0])) and not within(
        np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([2.0, 5.1])
    )


def test_the_error_is_that_of_cells_left_out_with_all_their_points() -> None:
    noisy = points(0.1)
    found = fit("tpot", noisy)
    assert found.inside is not None and 0.01 < found.inside[0] <= found.inside[1] < 0.5
    twice = fit("tpot", [*noisy, *noisy])  # a repeat of each: were one of the two left in, the errors would shrink
    assert twice.inside == pytest.approx(found.inside)
    assert len(found.errors_inside) + len(found.errors_outside) == len(GRID)
    assert "left out" in words(found)


def test_no_coefficient_is_negative_and_everything_is_stored() -> None:
    found = interpolation([Point(i, o, r, None, 0.05 - 1e-4 * r) for i, o, r in GRID])
    assert not isinstance(found, str) and found.ttft is None
    assert all(c >= 0 and math.isfinite(c) for c in found.tpot.coefficients)
    stored = plain(found)["tpot"]
    assert stored["provenance_class"] == "predicted" and stored["left_out_inside"] == found.tpot.inside
    assert set(stored["coefficients"]) == {"base", "running", "context", "prefill"}


def test_too_few_cells_say_so() -> None:
    assert "needs 4" in str(interpolation(points()[:3])) and "needs 4" in str(interpolation([points()[0]] * 9))


def test_the_step_times_are_those_of_the_model() -> None:
    found = interpolation(points())
    assert not isinstance(found, str)
    law = found.law(1024, 128)
    assert law.step_s(10, 0) == pytest.approx(BASE + 10 * (RUNNING + CONTEXT * (1024 + 64)), rel=1e-6)
    assert law.prefill_s == pytest.approx(PREFILL, rel=1e-6) and law.error is not None

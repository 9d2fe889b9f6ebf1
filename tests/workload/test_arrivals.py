"""Arrival processes: what users write is read exactly, and what comes out is distributed as it says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from profiler.errors import SpecError
from profiler.workload import arrivals, pauses


@pytest.mark.parametrize(
    ("text", "process", "words"),
    [
        ("poisson", arrivals.Renewal("poisson", 1.0), "poisson"),
        ("constant", arrivals.Renewal("constant", 0.0), "constant"),
        ("gamma:cv=2", arrivals.Renewal("gamma", 2.0), "gamma cv=2"),
        ("gamma:shape=0.25", arrivals.Renewal("gamma", 2.0), "gamma cv=2"),
        ("ramp:from=1,to=4", arrivals.Ramp(1, 4), "ramp 1 to 4/s"),
        ("ramp: from = 0, to=4, over=1min", arrivals.Ramp(0, 4, 60), "ramp 0 to 4/s over 60s"),
        ("step:1x30s, 0x500ms,3x2min", arrivals.Step(((1, 30), (0, 0.5), (3, 120))), "step 1/s for 30s, 0/s for 0.5s, 3/s for 120s"),
    ],
)
def test_what_users_write(text: str, process: arrivals.Process, words: str) -> None:
    assert arrivals.parse(text) == process
    assert str(process) == words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("poison", r"'poison' at character 1: not an arrival process"),
        ("", "not an arrival process"),
        ("poisson:rate=2", r"'rate=2' at character 9: poisson takes no settings"),
        ("gamma", "gamma takes one of cv and shape"),
        ("gamma:cv=2,shape=1", "gamma takes one of cv and shape"),
        ("gamma:vc=2", r"'vc=2' at character 7: no such setting; there are cv, shape"),
        ("gamma:cv=0", r"'0' at character 10: cv must be above 0"),
        ("gamma:cv=big", r"'big' at character 10: not a number"),
        ("gamma:2", r"'2' at character 7: not a setting NAME=VALUE"),
        ("ramp:from=1", "ramp needs to=RATE"),
        ("ramp:from=1,to=2,from=3", r"'from=3' at character 18: given twice"),
        ("ramp:from=-1,to=2", r"'-1' at character 11: must be 0 or more"),
        ("ramp:from=0,to=0", "sends nothing"),
        ("ramp:from=1,to=nan", "'nan' at character 16: must be 0 or more and finite"),
        ("ramp:from=1,to=2,over=60", r"'60' at character 23: not a duration such as"),
        ("step:", "not RATExDURATION"),
        ("step:1x30s,3", r"'3' at character 12: not RATExDURATION"),
        ("step: 2x30s, 30sx2", r"'30s' at character 14: not a number"),
        ("step:1x30s,3x0s", "must be longer than 0"),
    ],
)
def test_a_wrong_part_is_named_with_its_place(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        arrivals.parse(text)
    assert error.value.message.startswith("arrivals: ") and error.value.hint


def test_all_steps_at_rate_0_send_nothing() -> None:
    with pytest.raises(SpecError, match="nothing would be sent"):
        arrivals.segments(arrivals.parse("step:0x3s,0x4s"), 1)  # type: ignore[arg-type]


def gaps_of(offsets: tuple[int, ...]) -> list[float]:
    return [(b - a) / 1e9 for a, b in pairwise(offsets)]


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
def test_gamma_gaps_are_gamma_and_counts_are_dispersed_by_cv_squared(cv: float) -> None:
    rate, duration = 5.0, 40_000.0
    offsets = arrivals.gamma_offsets_ns(rate, cv, duration, 7)
    assert stats.kstest(gaps_of(offsets)[:20_000], stats.gamma(1 / cv**2, scale=cv**2 / rate).cdf).pvalue > 0.001
    # Index of dispersion over windows of 200 mean gaps; 1,000 windows have a standard error of about cv² * sqrt(2 / 1000).
    counts, _ = np.histogram(np.array(offsets) / 1e9, bins=1000, range=(0, duration))
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(cv**2, rel=0.2)
    assert counts.mean() == pytest.approx(rate * 40, rel=0.02)


def rate_at(t: float, parts: tuple[arrivals.Segment, ...]) -> float:
    """The oracle's own reading of a profile."""
    for a, b, length in parts:
        if t < length:
            return a + (b - a) * t / length
        t -= length
    return 0.0


@pytest.mark.parametrize("text", ["ramp:from=1,to=9,over=2000s", "ramp:from=8,to=0,over=2000s", "step:2x500s,0x200s,10x800s,1x500s"])
def test_a_changing_rate_is_followed(text: str) -> None:
    parts = arrivals.segments(arrivals.parse(text), 1)  # type: ignore[arg-type]
    total = sum(length for _, _, length in parts)
    grid = np.linspace(0, total, 40_001)
    rates = np.array([rate_at(t, parts) for t in grid])
    area = integrate.cumulative_trapezoid(rates, grid, initial=0)
    assert arrivals.mean_rate(parts) == pytest.approx(area[-1] / total, rel=1e-3)
    offsets = np.array(arrivals.profile_offsets_ns(parts, 5)) / 1e9
    # Time-changed by the cumulative rate, arrivals are a unit Poisson process: exponential gaps, Poisson count.
    changed = np.interp(offsets, grid, area)
    assert stats.kstest(np.diff(changed), "expon").pvalue > 0.001
    assert abs(len(offsets) - area[-1]) < 4 * area[-1] ** 0.5
    expected = np.diff(np.interp(np.linspace(0, total, 11), grid, area))
    counts, _ = np.histogram(offsets, bins=10, range=(0, total))
    some = expected > 5
    assert stats.chisquare(counts[some], expected[some] * counts[some].sum() / expected[some].sum()).pvalue > 0.001


@given(parts=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0.1, 5)), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_profile_offsets_rise_stay_inside_and_repeat(parts: list[arrivals.Segment], seed: int) -> None:
    offsets = arrivals.profile_offsets_ns(parts, seed)
    assert list(offsets) == sorted(offsets)
    assert all(0 <= t <= sum(length for _, _, length in parts) * 1e9 for t in offsets)
    assert offsets == arrivals.profile_offsets_ns(parts, seed)


@given(cv=st.floats(0.05, 5), rate=st.floats(0.1, 100), duration=st.floats(0, 10), seed=st.integers(0, 2**31))
def test_gamma_offsets_rise_and_stay_inside(cv: float, rate: float, duration: float, seed: int) -> None:
    offsets = arrivals.gamma_offsets_ns(rate, cv, duration, seed)
    assert list(offsets) == sorted(offsets) and all(0 <= t < duration * 1e9 for t in offsets)


def test_pauses_are_fixed_or_exponential() -> None:
    import random

    assert pauses.parse("500ms").draw_ns(random.Random(1)) == 500_000_000
    assert str(pauses.parse("exponential:2s")) == "exponential 2s" and str(pauses.parse("fixed:2s")) == "2s"
    source = random.Random(3)
    drawn = [pauses.parse("exponential:2s").draw_ns(source) / 1e9 for _ in range(20_000)]
    assert stats.kstest(drawn, "expon", args=(0, 2)).pvalue > 0.001
    assert pauses.parse("exponential:0s").draw_ns(source) == 0


@pytest.mark.parametrize(("text", "says"), [("2", "'2' is not a duration"), ("normal:2s", "'normal' is neither"), ("exponential:x", "'x'")])
def test_a_wrong_pause_is_named(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        pauses.parse(text, "sessions.think")

"""The search for λ* against a server whose limit is known: what it asks, where it ends, what it says when it cannot."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse.search import MOST_SCREENS, Ask, Search, crossing, monotone


def answer(load: float, knee: float, start: int, n: int = 300, noise: random.Random | None = None) -> dict[str, Any]:
    """A run of a server that misses next to nothing below `knee` and most above it; its latency rises towards the knee."""
    share = 0.005 if load < knee else 0.6
    misses = sum((noise or random.Random(1)).random() < share for _ in range(n)) if noise else round(share * n)
    constraint = {
        "text": "ttft_p95<=1s",
        "n": n,
        "misses": misses,
        "allowed_share": 0.05,
        "independent": float(n),
        "miss_share": misses / n,
    }
    constraint |= {"observed_s": min(load / knee, 3.0) ** 4, "limit_s": 1.0}
    result = "FITS" if misses <= 6 else "FAILS"
    run = {"status": "done", "validity": "valid", "start_id": f"s{start}", "qos_result": result, "stability": "steady"}
    return {"run": run, "verdicts": [{"result": result, "reason": "", "constraints": [constraint], "backlog": None}]}


def run(search: Search, knee: float, noise: random.Random | None = None) -> list[Ask]:
    asked = []
    while not search.done():
        while (ask := search.ask()) is not None:
            asked.append(ask)
            assert len(asked) < 100, "the search does not end"
            search.tell(ask, answer(ask.load, knee, search.starts, noise=noise))
        search.start_over()
    return asked


@settings(deadline=None, max_examples=15)
@given(st.floats(0.05, 200.0), st.floats(0.2, 20.0))
def test_the_knee_lies_between_two_loads_a_rung_apart(knee: float, first: float) -> None:
    search = Search(first)
    asked = run(search, knee)
    found = search.found()
    assert found.lower is not None and found.upper is not None
    assert found.lower < knee * 1.0001 and knee <= found.upper * 1.0001
    assert found.upper / found.lower <= 1.051 and found.starts == 3
    assert sum(ask.purpose == "decide" for ask in asked) == 6  # two loads on three starts


def test_few_probes_are_whole_cohorts() -> None:
    """A ladder of 5 % rungs over the same bracket would take 28 for each factor of four, on three starts each."""
    asked = run(Search(1.0), knee=3.3)
    assert sum(ask.purpose == "screen" for ask in asked) <= MOST_SCREENS
    assert len(asked) < 28


def test_noise_does_not_lead_it_astray() -> None:
    for seed in range(20):
        search = Search(2.0)
        run(search, 7.0, random.Random(seed))
        found = search.found()
        assert found.lower is None or found.lower < 7.0
        assert found.upper is None or found.upper >= 7.0


def test_what_never_fits_or_never_fails_is_said() -> None:
    never = Search(1.0, most_starts=3)
    run(never, 1e-9)
    assert never.found().lower is None and "no load down to" in never.found().reason
    always = Search(1.0, most_starts=3)
    run(always, 1e12)
    assert always.found().upper is None and "beyond what was tried" in always.found().reason


def test_an_engine_that_fails_ends_the_search_with_its_reason() -> None:
    search = Search(1.0)
    ask = search.ask()
    assert ask is not None
    search.tell(ask, {"run": {"status": "failed", "status_reason": "the engine died"}, "verdicts": []})
    assert search.done() and search.ask() is None and "the engine died" in search.found().reason


@given(st.lists(st.floats(-10, 10), max_size=30))
def test_the_monotone_fit_never_falls_and_keeps_the_mean(values: list[float]) -> None:
    fitted = monotone(values)
    assert all(a <= b + 1e-9 for a, b in pairwise(fitted))
    assert sum(fitted) == pytest.approx(sum(values), abs=1e-6)
    assert monotone(sorted(values)) == pytest.approx(sorted(values))


def test_the_crossing_is_between_the_loads_where_the_score_changes_its_sign() -> None:
    assert crossing([(1.0, -1.0), (4.0, 1.0)], 1.0, 4.0) == pytest.approx(2.0)
    assert crossing([(1.0, -1.0), (4.0, -0.5)], 1.0, 4.0) is None
    assert crossing([(1.0, None), (4.0, 1.0)], 1.0, 4.0) is None

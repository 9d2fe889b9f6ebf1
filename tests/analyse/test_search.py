"""The search for λ* against a server whose limit is known: what it asks, where it ends, what it says when it cannot."""

from __future__ import annotations

import math
import random
from statistics import NormalDist
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse.search import MOST_SCREENS, Ask, Search, looks

NORMAL = NormalDist()


def answer(load: float, share: float, start: str, n: int, seed: int, backlog: bool = False) -> dict[str, Any]:
    """A run in which each request misses with probability `share`, where 5 % may."""
    draw = random.Random(seed)
    misses = sum(draw.random() < share for _ in range(n))
    constraint = {
        "text": "ttft_p95<=1s",
        "n": n,
        "misses": misses,
        "allowed_share": 0.05,
        "independent": float(n),
        "miss_share": misses / n,
    }
    run = {"status": "done", "validity": "valid", "start_id": start, "qos_result": "UNDECIDED", "stability": "steady"}
    queue = {"grows": backlog, "growth": 0.5 * load if backlog else 0.0, "first": 0.0, "last": 0.35 * n}
    return {"run": run, "verdicts": [{"result": "UNDECIDED", "reason": "", "constraints": [constraint], "backlog": queue}]}


def run(
    search: Search, limit: float, seed: int = 1, *, slope: float = 6.0, spread: float = 0.0, n: int = 800, name: str = "s"
) -> list[Ask]:
    """A server whose probit share rises by `slope` with each factor e of the load; starts are faster or slower by `spread` (of log load)."""
    asked: list[Ask] = []
    while not search.done():
        number = search.starts
        shift = random.Random(f"{seed}/{number}").gauss(0, spread)
        while (ask := search.ask()) is not None:
            asked.append(ask)
            assert len(asked) < 100, "the search does not end"
            share = NORMAL.cdf(NORMAL.inv_cdf(0.05) + slope * (math.log(ask.load / limit) + shift))
            requests = 24 if ask.purpose == "screen" else n
            search.tell(ask, answer(ask.load, share, f"{name}{number}", requests, seed * 1000 + number))
        search.start_over()
    return asked


@settings(deadline=None, max_examples=10)
@given(st.floats(0.05, 200.0), st.floats(0.2, 20.0), st.integers(0, 10**6))
def test_the_limit_is_found_from_anywhere_to_a_rung_either_side(limit: float, first: float, seed: int) -> None:
    search = Search(first, rung=0.1)
    asked = run(search, limit, seed, n=1500)
    found = search.found()
    assert found.lower is not None and found.upper is not None
    # One of these examples in twenty may lie outside the interval, but none by more than it is wide.
    width = found.upper / found.lower
    assert found.lower / width < limit < found.upper * width
    assert sum(ask.purpose == "screen" for ask in asked) <= MOST_SCREENS and 3 <= found.starts <= 8


def test_the_interval_holds_the_limit_as_often_as_it_says() -> None:
    """40 searches, starts of 4 % spread: six or more misses would be one chance in fifty if it missed one in twenty."""
    missed, known = 0, 0
    for seed in range(40):
        search = Search(3.0, rung=0.1)
        run(search, 7.0, seed, spread=0.04)
        found = search.found()
        missed += not ((found.lower or 0.0) <= 7.0 < (found.upper or math.inf))
        known += found.lower is not None and found.upper is not None
    assert missed <= 5
    assert known >= 37


def test_the_search_goes_further_out_where_an_end_is_missing() -> None:
    """A share that rises slowly, runs worth little: the ends lie far from where it crosses. Within two rungs of the crossing they would stay open."""
    known = 0
    for seed in range(12):
        search = Search(3.0, rung=0.1)
        asked = run(search, 7.0, seed, slope=3.0, n=60)
        found = search.found()
        known += found.lower is not None and found.upper is not None
        cohorts = sum(ask.purpose == "decide" for ask in asked)
        assert cohorts <= 4 + 2 * 2 + 5 * 3  # two more than the crossing in a start, one for each end
    assert known >= 10


def test_few_runs_are_whole_cohorts() -> None:
    """A ladder of 5 % rungs over a factor of four has 29 loads, a bisection of it 5: each on as many starts as the search took."""
    search = Search(1.0)
    asked = run(search, 3.3, n=4000)
    found = search.found()
    cohorts = sum(ask.purpose == "decide" for ask in asked)
    assert found.lower is not None and found.upper is not None and found.upper <= found.lower * 1.05**2
    assert cohorts < 29 * found.starts / 3 and cohorts < 5 * found.starts


def test_where_the_share_leaps_nothing_is_read_between_the_measured_loads() -> None:
    """A TPOT limit that all requests cross together: nothing is known between the highest load that kept it and the lowest that did not."""
    search = Search(1.0)
    run(search, 7.0, slope=400.0)
    found = search.found()
    assert found.lower is not None and found.upper is not None and found.lower < 7.0 <= found.upper
    whole = [probe for probe in found.probes if not probe.screened]
    assert found.lower <= max(p.load for p in whole if p.share < 1) * 1.0001
    assert found.upper >= min(p.load for p in whole if p.share > 1) * 0.9999


def test_a_backlog_that_grows_is_a_limit_of_its_own() -> None:
    """Where a limit on TPOT is kept at any load, as a full batch is no slower for those that wait."""
    search = Search(1.0, rung=0.1)
    while not search.done():
        number = search.starts
        while (ask := search.ask()) is not None:
            search.tell(ask, answer(ask.load, 0.0, f"s{number}", 24 if ask.purpose == "screen" else 500, number, backlog=ask.load > 5.0))
        search.start_over()
    found = search.found()
    assert found.lower is not None and found.upper is not None and found.lower <= 5.0 < found.upper <= found.lower * 1.5


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


def test_a_machine_that_is_not_idle_ends_the_search() -> None:
    search = Search(1.0)
    while not search.done():
        while (ask := search.ask()) is not None:
            document = answer(ask.load, 0.0 if ask.load < 4.0 else 0.5, f"s{search.starts}", 24 if ask.purpose == "screen" else 500, 1)
            document["run"] |= {"validity": "suspect", "validity_reasons": ["other programs used 1.1 of 2 cores"]}
            search.tell(ask, document)
        search.start_over()
    assert search.starts == 3 and "disturbed" in search.found().reason and search.found().lower is None


def test_what_is_known_is_not_asked_again() -> None:
    first = Search(1.0, rung=0.1)
    run(first, 3.3, n=1500)
    again = Search(1.0, rung=0.1)
    for rows in first.cohorts.values():
        for load, document in rows.items():
            again.remember(load, document)
    again.take_up()
    assert again.done() and again.ask() is None
    assert (again.found().lower, again.found().upper) == (first.found().lower, first.found().upper)


def test_a_search_that_was_stopped_early_goes_on() -> None:
    """Though in none of its starts so far a load failed."""
    again = Search(1.0)
    for number in range(4):
        again.remember(3.2, answer(3.2, 0.04, f"s{number}", 800, number))
    again.take_up()
    assert again.starts == 4 and not again.done() and again.ask() is not None


def test_another_limit_far_away_is_searched_anew() -> None:
    first = Search(1.0, rung=0.1)
    run(first, 3.3, n=1500)
    again = Search(1.0, rung=0.1)
    for start, rows in first.cohorts.items():
        for load in rows:  # under the other target these all keep it
            again.remember(load, answer(load, 0.0, start, 1500, 1))
    again.take_up()
    assert again.starts == 0 and (ask := again.ask()) is not None and ask.load > 3.3


@given(st.integers(3, 60))
def test_all_looks_together_spend_the_whole_error(most: int) -> None:
    """Oracle: Bonferroni below, a single look above; test_starts.py simulates what the looks of a whole search err."""
    levels = looks(most, 0.025)
    assert min(levels) == 3 and max(levels) == most
    assert max(levels.values()) <= 0.025 <= sum(levels.values()) / (0.9 if most > 3 else 1.0) + 1e-9

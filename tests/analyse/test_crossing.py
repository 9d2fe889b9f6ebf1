"""The curve through runs and the interval that starts prove: pure, against shares that are known."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse.crossing import Seen, allowed, crossing, grows, interval, limit, seen

NORMAL = NormalDist()


def run(load: float, knee: float, start: str = "s", slope: float = 6.0, n: float = 2000.0, shift: float = 0.0) -> Seen:
    share = NORMAL.cdf(NORMAL.inv_cdf(0.05) + slope * (math.log(load / knee) + shift))
    return Seen(load, share * n, n, start)


@given(st.floats(0.1, 1000.0), st.floats(3.0, 20.0))
def test_the_curve_crosses_where_the_shares_do(knee: float, slope: float) -> None:
    fit = crossing([run(knee * f, knee, slope=slope) for f in (0.9, 0.97, 1.05, 1.1)], 0.05)
    assert fit.load == pytest.approx(knee, rel=0.01)
    assert fit.slope == pytest.approx(slope, rel=0.35)


def test_fewer_than_three_starts_prove_nothing() -> None:
    runs = [run(10 * f, 10.0, start) for start in "ab" for f in (0.95, 1.05)]
    assert interval(runs, 0.05, 10.0, 0.025, 0.025, 1.05).lower is None


def test_starts_that_differ_make_the_interval_wide() -> None:
    widths = []
    for spread in (0.01, 0.05):
        shifts = dict(zip("abcde", (-1.2, -0.5, 0.0, 0.5, 1.2), strict=True))
        runs = [run(10 * f, 10.0, start, shift=spread * shift) for start, shift in shifts.items() for f in (0.95, 1.0, 1.05)]
        lies = interval(runs, 0.05, 10.0, 0.025, 0.025, 1.05)
        assert lies.lower is not None and lies.upper is not None and lies.middle is not None
        assert lies.lower < 10.0 < lies.upper and lies.middle == pytest.approx(10.0, rel=0.03)
        widths.append(lies.upper / lies.lower)
    assert widths[1] - 1 > 2 * (widths[0] - 1)


def test_a_start_that_crosses_elsewhere_counts_though_none_of_its_loads_is_near() -> None:
    """It fails at 0.6 of the others' limit. What would fit there, or fails far above, tells nothing and changes nothing."""
    usual = [run(10 * f, 10.0, start, shift=0.01 * shift) for shift, start in enumerate("abcdef") for f in (0.95, 1.0, 1.05)]
    plain = interval(usual, 0.05, 10.0, 0.025, 0.025, 1.05)
    slow = interval([*usual, run(6.0, 5.5, "slow")], 0.05, 10.0, 0.025, 0.025, 1.05)
    fast = interval([*usual, run(16.0, 18.0, "fast")], 0.05, 10.0, 0.025, 0.025, 1.05)
    assert plain.lower is not None and plain.middle is not None and slow.middle is not None and fast.middle is not None
    assert slow.middle < plain.middle and (slow.lower is None or slow.lower < 0.9 * plain.lower)
    assert plain.upper is not None and fast.upper is not None and fast.upper > plain.upper
    idle = [*usual, run(6.0, 10.0, "low"), run(16.0, 10.0, "high")]
    assert interval(idle, 0.05, 10.0, 0.025, 0.025, 1.05) == plain
    far = [run(6.0, 5.5, start) for start in "abc"]  # none near: no curve to read
    assert interval(far, 0.05, 10.0, 0.025, 0.025, 1.05).middle is None


def test_what_chance_made_of_the_arrivals_is_not_noise() -> None:
    """Starts that got more requests than asked for miss more, by just that."""
    came = {"a": 0.96, "b": 1.0, "c": 1.04, "d": 0.98}
    plain, known = [], []
    for start, factor in came.items():
        for load in (9.5, 10.0, 10.5):
            one = run(load * factor, 10.0, start)
            plain.append(Seen(load, one.misses, one.n, start))
            known.append(Seen(load, one.misses, one.n, start, came=load * factor))
    wide, narrow = (interval(runs, 0.05, 10.0, 0.025, 0.025, 1.05) for runs in (plain, known))
    assert narrow.lower is not None and narrow.upper is not None
    assert narrow.lower < 10.0 < narrow.upper
    assert wide.lower is None or wide.upper is None or wide.upper / wide.lower > narrow.upper / narrow.lower


def test_a_constraint_that_is_nowhere_near_its_limit_bounds_nothing() -> None:
    rows = [[run(10 * f, 10.0, start), Seen(10 * f, 0.0, 2000.0, start)] for start in "abcd" for f in (0.95, 1.05)]
    alone = limit([[row[0]] for row in rows], [0.05], 0.025, 0.05)
    both = limit(rows, [0.05, 0.05], 0.025, 0.05)
    assert both.lower == alone.lower and both.lower is not None
    assert both.upper is not None and alone.upper is not None and both.upper >= alone.upper  # each failure at half of the error


def test_a_run_says_its_constraints_its_backlog_and_the_rate_that_came() -> None:
    constraint = {"text": "t", "n": 100, "misses": 5, "allowed_share": 0.05, "independent": 50.0, "miss_share": 0.05}
    verdict = {"constraints": [constraint], "backlog": {"grows": True, "growth": 4.0, "first": 2.0, "last": 30.0}}
    document = {"run": {"start_id": "s", "window_open_ns": 0, "window_close_ns": 9 * 10**9}, "verdicts": [verdict]}
    first, backlog = seen(document, 10.0)
    assert (first.misses, first.n, first.came) == (2.5, 50.0, pytest.approx(100 / 9))
    assert backlog.misses == backlog.n and grows(verdict, 10.0) and not grows(verdict, 40.0)
    # 4 requests/s would add 28 from the first three tenths of ten seconds to the last three: where one was added, fewer came than asked for.
    assert not grows({**verdict, "backlog": {**verdict["backlog"], "last": 3.0}}, 10.0)
    assert allowed(document)[0] == 0.05
    assert first.probit(0.05) == pytest.approx(NORMAL.inv_cdf(0.05))

"""One verdict of several engine starts: bounds against a model of our own, and what counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from profiler.analyse.starts import StartShare, share_bounds, starts_needed
from profiler.analyse.together import judge_together


def run(start: str, misses: int, n: int = 300, allowed: float = 0.05, result: str = "UNDECIDED", **columns: Any) -> dict[str, Any]:
    constraint = {"text": "ttft_p95<=1s", "n": n, "misses": misses, "allowed_share": allowed, "independent": float(n)}
    row = {"status": "done", "validity": "valid", "start_id": start, "qos_result": result, "stability": "steady", **columns}
    return {"run": row, "verdicts": [{"constraints": [constraint], "backlog": None}]}


def test_bounds_hold_as_often_as_they_say() -> None:
    """Oracle: starts drawn from the model, the long-run share by its closed form. 5 % of 400 is 20; 33 is the 99.7 % limit."""
    draw = np.random.default_rng(1)
    for mu, tau, count in ((-1.9, 0.3, 3), (-1.6, 0.5, 5), (-2.2, 0.7, 8)):
        truth = norm.cdf(mu / np.sqrt(1 + tau**2))
        above = below = 0
        for _ in range(400):
            shares = norm.cdf(draw.normal(mu, tau, count))
            starts = [StartShare(int(draw.binomial(400, share)), 400, 400.0) for share in shares]
            lower, upper = share_bounds(starts, 0.05, 0.05)
            above, below = above + (lower > truth), below + (upper < truth)
        assert above <= 33 and below <= 33, (mu, tau, count, above, below)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=12), st.floats(0.001, 0.2))
def test_bounds_are_in_order_and_widen_with_confidence(misses: list[int], alpha: float) -> None:
    starts = [StartShare(k, 300, 120.0) for k in misses]
    lower, upper = share_bounds(starts, alpha, alpha)
    wider = share_bounds(starts, alpha / 2, alpha / 2)
    assert 0 <= lower <= upper <= 1
    assert wider[0] <= lower + 1e-12 and wider[1] >= upper - 1e-12


def test_correlated_requests_count_for_less() -> None:
    few, many = ([StartShare(3, 300, worth)] * 3 for worth in (40.0, 300.0))
    assert share_bounds(few, 0.05, 0.05)[1] > share_bounds(many, 0.05, 0.05)[1]


def test_one_start_bounds_nothing() -> None:
    assert share_bounds([StartShare(0, 1000, 1000.0)], 0.05, 0.05) == (0.0, 1.0)
    assert starts_needed([StartShare(0, 1000, 1000.0)], 0.05, 0.05, 0.05) is None


@pytest.mark.parametrize(
    ("misses", "result"),
    [([1, 2, 1, 2], "FITS"), ([60, 75, 66, 71], "FAILS"), ([9, 15, 21, 13], "UNDECIDED"), ([0, 0, 0, 60], "UNDECIDED")],
)
def test_several_starts_decide_by_their_bounds(misses: list[int], result: str) -> None:
    found = judge_together(run(f"s{k}", m) for k, m in enumerate(misses))
    assert (found.result, found.starts, found.screening) == (result, len(misses), False)
    if result == "UNDECIDED":
        assert "more starts" in found.reason or "too close" in found.reason


def test_one_start_screens_and_two_do_not_decide() -> None:
    one = judge_together([run("s0", 0, result="FITS")])
    assert (one.result, one.screening) == ("FITS", True) and "screens" in one.reason
    two = judge_together([run("s0", 0), run("s1", 0)])
    assert (two.result, two.screening) == ("UNDECIDED", True)
    assert "1 more starts" in two.reason


def test_runs_of_one_start_are_one_start() -> None:
    found = judge_together([run("s0", 1), run("s0", 2), run("s1", 1), run("s2", 1)])
    assert (found.starts, found.runs, found.constraints[0].n) == (3, 4, 1200)
    assert found.constraints[0].shares[0] == 3 / 600
    disagree = judge_together([run("s0", 1, result="FITS"), run("s0", 40, result="FAILS")])
    assert (disagree.result, disagree.starts) == ("UNDECIDED", 1)


def test_what_was_disturbed_is_set_aside_but_not_what_did_not_settle() -> None:
    disturbed = run("s3", 250, validity="suspect", validity_reasons=["other programs used 0.7 of 2 cores"])
    unsettled = run("s4", 250, validity="suspect", stability="unstable", validity_reasons=["the backlog grows"])
    calm = [run(f"s{k}", 1) for k in range(3)]
    assert judge_together([*calm, disturbed]).result == "FITS" and judge_together([*calm, disturbed]).set_aside == 1
    assert judge_together([*calm, unsettled]).result != "FITS"
    assert judge_together([run("s0", 0, status="failed"), run("s1", 0, validity="invalid")]).reason == "no sound run"


def test_a_client_error_that_is_small_beside_the_limit_sets_nothing_aside() -> None:
    why = "the client may add 2.0 ms to a TTFT of 25.7 ms (this run)"
    coloured = {"validity": "suspect", "ttft_error_bar_s": 0.002, "ttft_p50_s": 0.0257}
    calm = [run(f"s{k}", 1) for k in range(3)]

    def judged(limit_s: float | None, *reasons: str) -> int:
        document = run("s3", 1, validity_reasons=list(reasons), **coloured)
        document["verdicts"][0]["constraints"][0]["limit_s"] = limit_s
        return judge_together([*calm, document]).set_aside

    assert judged(1.0, why) == 0, "0.2 % of the limit"
    assert judged(0.03, why) == 1, "7 % of it"
    assert judged(None, why) == 1, "a limit that grows with the prompt: not known how small"
    assert judged(1.0, why, "other programs used 0.7 of 2 cores") == 1


def test_a_backlog_that_grows_over_the_starts_proves_no_fit() -> None:
    growing = [run(f"s{k}", 1) for k in range(4)]
    for k, document in enumerate(growing):
        document["verdicts"][0]["backlog"] = {"growth": 0.2 + 0.01 * k}
    found = judge_together(growing)
    assert found.result == "UNDECIDED" and "backlog grows" in found.reason


def test_looks_cost_confidence() -> None:
    starts = [run(f"s{k}", m) for k, m in enumerate([3, 6, 4])]
    once, often = judge_together(starts), judge_together(starts, sequential=True)
    assert once.constraints[0].miss_hi < often.constraints[0].miss_hi


def floor(start: str, score: float) -> dict[str, Any]:
    constraint = {"text": "output_tps>=100", "kind": "floor", "n": 300, "misses": 0, "allowed_share": 0.0, "score": score}
    row = {"status": "done", "validity": "valid", "start_id": start, "qos_result": "FITS", "stability": "steady"}
    return {"run": row, "verdicts": [{"constraints": [constraint], "backlog": None}]}


def test_a_floor_says_how_many_starts_are_missing() -> None:
    clear = judge_together([floor("s0", 3.0), floor("s1", 3.1)])
    assert (clear.result, clear.constraints[0].starts_needed) == ("UNDECIDED", 3) and "1 more starts" in clear.reason
    assert judge_together([floor("s0", 3.0), floor("s1", 3.1), floor("s2", 3.05)]).result == "FITS"
    near = judge_together([floor(f"s{k}", score) for k, score in enumerate((0.9, 1.2, 1.05))])
    assert near.result == "UNDECIDED" and (near.constraints[0].starts_needed or 0) > 3
    on_it = judge_together([floor(f"s{k}", score) for k, score in enumerate((0.5, 2.0, 1.0))])
    assert on_it.constraints[0].starts_needed is None and "too close" in on_it.reason

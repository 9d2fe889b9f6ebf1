"""KL and agreement from lists of the most probable tokens, against whole distributions by lines that share nothing with the product."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse import divergence

Rows = list[list[float]]  # per place the probabilities of all tokens


def distributions(seed: int, places: int, vocabulary: int, apart: float) -> tuple[Rows, Rows]:
    made = np.random.default_rng(seed)
    logits = made.normal(0, 3, (places, vocabulary))
    other = logits + made.normal(0, apart, logits.shape)
    both = []
    for one in (logits, other):
        raised = [[math.exp(x) for x in row] for row in one.tolist()]
        both.append([[x / math.fsum(row) for x in row] for row in raised])
    return both[0], both[1]


def lists(rows: Rows, k: int) -> divergence.Top:
    """As they are stored: best first, 32-bit."""
    ids = [sorted(range(len(row)), key=lambda token: -row[token])[:k] for row in rows]
    log_probs = [[math.log(row[token]) for token in best] for row, best in zip(rows, ids, strict=True)]
    return np.array(ids, dtype=np.int32), np.array(log_probs, dtype=np.float32)


def full_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def joined_kl(p: list[float], q: list[float], k: int) -> tuple[float, float]:
    """Of p and q with every token that is not among the k best of both in one bucket; and the smaller of that bucket's probabilities."""
    best = [set(sorted(range(len(x)), key=lambda token: -x[token])[:k]) for x in (p, q)]
    alone = best[0] & best[1]
    rest = [math.fsum(x[token] for token in range(len(x)) if token not in alone) for x in (p, q)]
    return full_kl([*(p[t] for t in alone), rest[0]], [*(q[t] for t in alone), rest[1]]), min(rest)


@given(st.integers(0, 10**6), st.integers(25, 300), st.sampled_from([0.0, 0.05, 0.5, 2.0, 6.0]), st.sampled_from([1, 5, 20]))
@settings(max_examples=60, deadline=None)
def test_it_is_the_kl_of_the_joined_distributions_and_never_above_the_full_one(seed: int, vocabulary: int, apart: float, k: int) -> None:
    p, q = distributions(seed, 6, vocabulary, apart)
    found = divergence.kl_per_place(lists(p, k), lists(q, k))
    for value, one, other in zip(found, p, q, strict=True):
        joined, rest = joined_kl(one, other, k)
        if rest > 1e-5:  # less is near the rounding of 32-bit floats, where it is held down to a lower bound
            assert value == pytest.approx(joined, rel=0.01, abs=2e-6)
        assert 0 <= value <= full_kl(one, other) + 2e-6


def test_where_the_lists_hold_nearly_all_it_is_nearly_the_full_kl() -> None:
    p, q = distributions(3, 200, 40, 0.3)
    found = divergence.kl_per_place(lists(p, 20), lists(q, 20)).mean()
    full = sum(map(full_kl, p, q)) / 200
    assert 0.9 * full < found <= full


def test_the_direction_is_reference_first() -> None:
    p, q = [[0.9, 0.1]], [[0.5, 0.5]]
    assert divergence.kl_per_place(lists(p, 2), lists(q, 2))[0] == pytest.approx(full_kl(p[0], q[0]), rel=1e-5)
    assert full_kl(p[0], q[0]) != pytest.approx(full_kl(q[0], p[0]), rel=0.1)


def test_the_same_lists_have_none_and_lists_with_nothing_shared_no_more_than_one_bucket_can_say() -> None:
    p, _ = distributions(1, 5000, 60, 0.0)
    one = lists(p, 20)
    assert (divergence.kl_per_place(one, one) == 0).all() and (divergence.top1_per_place(one, one) == 1).all()
    strangers = (one[0] + 1000, one[1])
    assert (divergence.kl_per_place(one, strangers) == 0).all() and (divergence.top1_per_place(one, strangers) == 0).all()


def test_a_sure_model_does_not_divide_by_nothing() -> None:
    sure = (np.array([[7, 8]], dtype=np.int32), np.array([[0.0, -40.0]], dtype=np.float32))
    unsure = (np.array([[7, 8]], dtype=np.int32), np.array([[-0.7, -0.7]], dtype=np.float32))
    assert divergence.kl_per_place(sure, unsure)[0] == pytest.approx(0.7, abs=1e-5)
    assert math.isfinite(divergence.kl_per_place(unsure, sure)[0])


def test_places_that_are_not_the_same_are_refused() -> None:
    p, q = distributions(1, 4, 30, 0.1)
    with pytest.raises(ValueError, match="same places"):
        divergence.kl_per_place(lists(p, 5), lists(q[:3], 5))
    with pytest.raises(ValueError, match="one value"):
        divergence.estimate(np.ones(5), [2, 2])


def test_an_estimate_is_a_mean_over_tokens_with_bounds_over_windows() -> None:
    made = np.random.default_rng(2)
    tokens = [int(x) for x in made.integers(1, 200, 30)]
    values = made.exponential(0.02, sum(tokens))
    found = divergence.estimate(values, tokens)
    assert found.value == pytest.approx(math.fsum(values) / len(values)) and (found.windows, found.tokens) == (30, len(values))
    assert found.lo is not None and found.hi is not None and found.lo < found.value < found.hi
    few = divergence.estimate(values[: sum(tokens[:5])], tokens[:5])
    assert (few.lo, few.hi) == (None, None)


def test_the_bounds_hold_the_truth_as_often_as_they_say() -> None:
    """Windows differ, tokens within one do not tell more of that. 95 % each: 15 of 300 expected above, and below; over 30 under 0.001."""
    made = np.random.default_rng(5)
    above = below = 0
    for _ in range(300):
        level = made.gamma(4.0, 0.01 / 4.0, 15)
        values = np.concatenate([made.exponential(x, 127) for x in level])
        found = divergence.estimate(values, [127] * 15)
        assert found.lo is not None and found.hi is not None
        above, below = above + (found.lo > 0.01), below + (found.hi < 0.01)
    assert above <= 30 and below <= 30, (above, below)


@pytest.mark.parametrize("longest", [1, 14, 16, 127, 255, 5000])
def test_the_parts_of_a_window_hold_each_place_once(longest: int) -> None:
    covered = [place for first, last in divergence.parts(longest) for place in range(first, last + 1)]
    assert covered == list(range(1, longest + 1))


def test_per_token_values_are_values_that_occurred() -> None:
    found = divergence.per_token(np.array([float(k) for k in range(100, 0, -1)]))
    assert (found.p50, found.p90, found.p99, found.largest) == (50, 90, 99, 100)

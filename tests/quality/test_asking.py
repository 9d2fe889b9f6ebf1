"""What a server gives, and what is said where it does not."""

from __future__ import annotations

import itertools
from urllib.parse import urlsplit

import pytest
from quality_stand import Stand, log_prob, standing, top

from profiler.errors import EngineError
from profiler.quality.asking import Asker, NotGiven
from profiler.records import Endpoint

IDS = [5, 9, 2, 40, 7, *range(100)]


def endpoint(stand: Stand) -> Endpoint:
    return Endpoint("127.0.0.1", urlsplit(stand.url).port or 0, "stand")


@pytest.mark.parametrize("way", ["echo", "prompt_logprobs"])
def test_both_ways_give_the_log_probability_of_each_token(way: str) -> None:
    with standing(Stand(way)) as stand:
        asker = Asker(endpoint(stand))
        found = asker.score(IDS)
        assert found.source == way
        assert found.log_probs == pytest.approx([log_prob(a, b) for a, b in itertools.pairwise(IDS)])
        if way == "echo":
            assert found.top is None and "given token only" in str(found.no_top)
        else:
            assert found.no_top is None and found.top is not None
            oracle = [sorted(top(a, b).items(), key=lambda one: -one[1])[:20] for a, b in itertools.pairwise(IDS)]
            assert [[token for token, _ in place] for place in found.top] == [[token for token, _ in place] for place in oracle]
            assert [x for place in found.top for _, x in place] == pytest.approx([x for place in oracle for _, x in place])
        before = len(stand.asked)
        asker.score(IDS)
        assert len(stand.asked) == before + 1, "the way is found once"
        assert all(body["temperature"] == 0 for body in stand.asked)


def test_a_server_that_is_set_to_fewer_gives_the_given_tokens_and_says_why_no_more() -> None:
    with standing(Stand("prompt_logprobs", allows=5)) as stand:
        asker = Asker(endpoint(stand))
        for _ in range(2):
            found = asker.score(IDS)
            assert found.source == "prompt_logprobs" and found.top is None and "max allowed: 5" in str(found.no_top)
            assert found.log_probs == pytest.approx([log_prob(a, b) for a, b in itertools.pairwise(IDS)])
    assert [body["prompt_logprobs"] for body in stand.asked] == [20, 1, 1]


def test_a_server_without_is_named_with_its_reasons() -> None:
    with (
        standing(Stand("none")) as stand,
        pytest.raises(NotGiven, match=r"prompt_logprobs: HTTP 400.*echo: HTTP 400: echo is not supported"),
    ):
        Asker(endpoint(stand)).score(IDS)


def test_log_probabilities_that_a_cache_swallowed_are_not_taken_for_others() -> None:
    with standing(Stand("cached")) as stand, pytest.raises(NotGiven, match="prefix cache"):
        Asker(endpoint(stand)).score(IDS)


def test_a_server_that_is_gone_is_no_missing_feature() -> None:
    with standing(Stand()) as stand:
        gone = endpoint(stand)
    with pytest.raises(EngineError) as caught:
        Asker(gone).score(IDS)
    assert not isinstance(caught.value, NotGiven)

"""What a server gives, and what is said where it does not."""

from __future__ import annotations

import itertools
from urllib.parse import urlsplit

import pytest
from quality_stand import Stand, log_prob, standing

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
        assert found.top1 == (tuple(token + 1000 for token in IDS[1:]) if way == "prompt_logprobs" else None)
        before = len(stand.asked)
        asker.score(IDS)
        assert len(stand.asked) == before + 1, "the way is found once"
        assert all(body["temperature"] == 0 for body in stand.asked)


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

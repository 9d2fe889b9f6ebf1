"""What a server gives, and what is said where it does not."""

from __future__ import annotations

import itertools
import math
from typing import Any
from urllib.parse import urlsplit

import pytest
from quality_stand import Stand, log_prob, standing, top

from profiler.errors import EngineError
from profiler.quality import asking, tool_asking
from profiler.quality.asking import Asker, NotGiven
from profiler.quality.tasks import Example
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


class Refusing(Stand):
    """The first `times` requests get `status`."""

    def __init__(self, status: int, times: int) -> None:
        super().__init__(answers={"q": "yes"})
        self.status, self.times = status, times

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if len(self.asked) < self.times:
            self.asked.append(body)
            return self.status, {"error": {"message": "not \ud83d now"}}
        return super().reply(path, body)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("profiler.quality.asking.time.sleep", found.append)
    return found


@pytest.mark.parametrize(("status", "missing"), [(400, True), (404, True), (422, True), (401, False), (403, False), (500, False)])
def test_what_is_refused_is_missing_and_who_is_refused_is_an_error(slept: list[float], status: int, missing: bool) -> None:
    with standing(Refusing(status, 99)) as stand, pytest.raises(EngineError, match=f"HTTP {status}: not \\? now") as caught:
        Asker(endpoint(stand)).answer("q", 8, chat=True)
    assert isinstance(caught.value, NotGiven) is missing and len(stand.asked) == 1 and slept == []


@pytest.mark.parametrize("status", [408, 429])
@pytest.mark.parametrize(
    ("asks", "waits"), [(None, [1, 2, 4]), ("7", [7, 7, 7]), ("Wed, 21 Oct 2026 07:28:00 GMT", [1, 2, 4]), ("-3", [1, 2, 4])]
)
def test_a_server_that_is_busy_is_asked_again(slept: list[float], status: int, asks: str | None, waits: list[float]) -> None:
    with standing(Refusing(status, 3)) as stand:
        stand.headers = {"Retry-After": asks} if asks else {}
        assert Asker(endpoint(stand)).answer("q", 8, chat=True) == "yes"
    assert slept == waits


@pytest.mark.parametrize(("asks", "times"), [("1", 5), ("3600", 1), ("inf", 1)])
def test_a_server_that_stays_busy_is_an_error_and_no_smaller_sample(slept: list[float], asks: str, times: int) -> None:
    with standing(Refusing(429, 99)) as stand:
        stand.headers = {"Retry-After": asks}
        with pytest.raises(EngineError, match="HTTP 429") as caught:
            Asker(endpoint(stand)).answer("q", 8, chat=True)
    assert not isinstance(caught.value, NotGiven) and len(stand.asked) == times


class Saying(Stand):
    def __init__(self, choice: dict[str, Any]) -> None:
        super().__init__()
        self.choice = choice

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"choices": [self.choice]}


@pytest.mark.parametrize(
    ("choice", "chat", "says"),
    [
        ({"message": {"content": None}}, True, ""),
        ({"message": {"role": "assistant"}}, True, ""),
        ({"message": None}, True, None),
        ({}, True, None),
        ({"message": {"content": ["x"]}}, True, None),
        ({"text": ""}, False, ""),
        ({"text": None}, False, ""),
        ({"text": 3}, False, None),
        ({}, False, None),
    ],
)
def test_an_empty_answer_is_one_and_a_missing_message_is_none(choice: dict[str, Any], chat: bool, says: str | None) -> None:
    with standing(Saying(choice)) as stand:
        asker = Asker(endpoint(stand))
        if says is not None:
            assert asker.answer("q", 8, chat=chat) == says
            return
        with pytest.raises(NotGiven, match=r"the answer has no (message|text)"):
            asker.answer("q", 8, chat=chat)
        if chat:
            with pytest.raises(NotGiven, match="no message"):
                tool_asking.ask(asker, Example("e", "q", "no call", "tool-call", tools=({"type": "function"},)))


class Impossible(Stand):
    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, content = super().reply(path, body)
        choice = content["choices"][0] if status == 200 else {}
        if "logprobs" in choice:
            choice["logprobs"]["token_logprobs"][2] = -math.inf
        for entry in choice.get("prompt_logprobs", [None])[1:]:
            entry[min(entry, key=lambda token: entry[token]["logprob"])]["logprob"] = -math.inf
        return status, content


def test_a_token_that_is_called_impossible_is_no_log_probability() -> None:
    with standing(Impossible("echo")) as stand, pytest.raises(NotGiven, match="echo: what came is no log-probability"):
        Asker(endpoint(stand)).score(IDS)
    with standing(Impossible("prompt_logprobs", allows=asking.TOP_K)) as stand, pytest.raises(NotGiven, match="no log-probability"):
        Asker(endpoint(stand)).score(IDS)
    with pytest.raises(NotGiven):
        asking._checked([-(10**400)])

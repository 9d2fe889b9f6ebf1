"""The load under which an evaluation is asked, found against a server whose answers are known to change at a number at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quality_stand import Stand, standing

from profiler.errors import EngineError
from profiler.quality import determinism, parallel
from profiler.quality.asking import Asker
from profiler.quality.tasks import Example, Tasks
from profiler.quality.windows import Windows
from profiler.records import Endpoint

EXAMPLES = tuple(Example(f"e{k}", f"question {k}", "yes", "exact") for k in range(6))
CHOICE = Example("c", "The sun", " east", "choice", (" east", " west"))
WINDOWS = Windows("two", ((1, 2, 3, 4), (5, 6, 7, 8)))


def measured(stand: Stand, wanted: int | None = None, examples: Sequence[Example] = EXAMPLES) -> dict[str, Any]:
    with standing(stand):
        asker = Asker(Endpoint("127.0.0.1", urlsplit(stand.url).port or 0, "stand"))
        return determinism.measure(asker, WINDOWS, Tasks("t", tuple(examples)), wanted, lambda _: None)


def by_batch(found: dict[str, Any]) -> dict[int, tuple[int, int, int, int]]:
    return {one["batch"]: (one["same"], one["of"], one["windows_same"], one["windows_of"]) for one in found["determinism"]["by_batch"]}


def test_where_nothing_changes_the_most_is_used() -> None:
    stand = Stand()
    stand.gathers = 8
    found = measured(stand)
    assert by_batch(found) == {1: (4, 4, 2, 2), 2: (4, 4, 2, 2), 4: (4, 4, 4, 4), 8: (8, 8, 8, 8)}
    assert found["determinism"]["parallel"] == 8 and found["determinism"]["prompts"] == 6 and found["determinism_reason"] is None
    assert found["determinism"]["note"] == "8 of 8 answers and 8 of 8 windows were the same at 8 at once; asked 8 at once"
    assert stand.most == 8, "they were in it at once"
    assert all(body["max_tokens"] <= determinism.MAX_TOKENS for body in stand.asked)


@pytest.mark.parametrize(("turns_at", "chosen"), [(2, 1), (4, 2), (8, 4)])
def test_answers_that_change_with_the_load_bound_it(turns_at: int, chosen: int) -> None:
    stand = Stand("prompt_logprobs")
    stand.turns_at = stand.gathers = turns_at
    found = measured(stand)
    shares = by_batch(found)
    assert found["determinism"]["parallel"] == chosen
    assert shares[turns_at][0] == shares[turns_at][2] == 0, "each of a crowd that large came otherwise"
    assert all(same == of and w_same == w_of for n, (same, of, w_same, w_of) in shares.items() if n <= chosen)
    assert f"at {turns_at} at once 0 of" in found["determinism"]["note"]
    changed = next(one for one in found["determinism"]["by_batch"] if one["batch"] == turns_at)
    assert changed["largest_nats"] == pytest.approx(0.01)


def test_ones_own_number_is_compared_and_used_whatever_comes_of_it() -> None:
    stand = Stand()
    stand.turns_at = stand.gathers = 3
    found = measured(stand, wanted=3)
    assert list(by_batch(found)) == [1, 3] and found["determinism"]["parallel"] == 3
    assert found["determinism"]["note"].endswith("0 of 6 answers and 0 of 3 windows were the same; asked 3 at once, as you said")


def test_one_by_one_is_only_asked_twice() -> None:
    stand = Stand()
    found = measured(stand, wanted=1)
    assert by_batch(found) == {1: (4, 4, 2, 2)} and stand.most == 1
    assert "one by one" in found["determinism"]["note"]


def test_a_server_that_differs_when_alone_is_said_so_and_asked_one_by_one() -> None:
    class Moody(Stand):
        def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            status, said = super().reply(path, body)
            for choice in said.get("choices", ()):
                if "message" in choice:
                    choice["message"]["content"] += f" {len(self.asked)}"
            return status, said

    found = measured(Moody())
    assert found["determinism"]["parallel"] == 1
    assert found["determinism"]["note"].startswith("not deterministic: asked alone a second time, 0 of 4 answers and 2 of 2 windows")


def test_without_log_probabilities_the_answers_decide_and_without_either_nobody_knows() -> None:
    assert by_batch(measured(Stand("none")))[4] == (4, 4, 0, 0)
    found = measured(Stand("none"), examples=[CHOICE])
    assert found == {"determinism": None, "determinism_reason": determinism.NOTHING}


@given(st.integers(0, 40), st.integers(2, 9))
def test_prompts_are_spread_from_the_first_to_the_last(of: int, count: int) -> None:
    found = determinism.spread(range(of), count)
    assert len(found) == min(of, count) == len(set(found)) and found == sorted(found)
    assert not found or (found[0], found[-1]) == (0, of - 1)


@given(st.lists(st.integers(), max_size=20), st.integers(1, 9))
def test_results_come_in_order_and_each_job_is_done_once(jobs: list[int], at_once: int) -> None:
    done: list[int] = []

    def ask(job: int) -> int | None:
        done.append(job)
        return job * 2 if job % 3 else None

    assert list(parallel.each(jobs, ask, at_once)) == [job * 2 if job % 3 else None for job in jobs]
    assert sorted(done) == sorted(jobs)


def test_a_failure_comes_in_its_place_and_no_further_job_begins() -> None:
    begun: list[int] = []
    held = threading.Event()

    def ask(job: int) -> int:
        begun.append(job)
        if job == 3:
            raise EngineError("gone")
        if job > 3:
            held.wait(30)
        return job

    found = []
    try:
        with pytest.raises(EngineError, match="gone"):
            for one in parallel.each(range(100), ask, 4):
                found.append(one)
        assert found == [0, 1, 2] and len(begun) <= 7
    finally:
        held.set()
    for thread in [t for t in threading.enumerate() if t.name == "asking"]:
        thread.join(30)
    assert len(begun) <= 8, "those under way end, and nobody takes another"


def test_never_more_at_once_than_asked() -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def ask(job: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
        return job

    assert list(parallel.each(range(200), ask, 3)) == list(range(200))
    assert most <= 3

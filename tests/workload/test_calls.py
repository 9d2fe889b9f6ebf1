"""Sessions, shared prefixes and tool-call chains: who waits for whom, what a prompt carries, and what a cache could find."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.run.schedule import roots_of
from profiler.spec import WorkloadSpec
from profiler.workload import prompts, sessions
from profiler.workload.calls import Call, Piece, fit, shorten, single
from profiler.workload.reuse import prefix_reuse

QUANTILES = {"kind": "quantiles", "isl": {"0": 5, "0.5": 40, "1": 90}, "osl": {"0": 2, "1": 30}}
FIXED = {"kind": "fixed", "isl": 40, "osl": 8}


def workload(lengths: dict[str, Any] | None = None, **more: Any) -> WorkloadSpec:
    raw = {"name": "w", "version": 1, "summary": "s", "source": "t", "lengths": lengths or FIXED, **more}
    return WorkloadSpec.model_validate(raw)


def symbols(call: Call) -> list[tuple[str, int, int]]:
    return [(space, number, i) for space, number, tokens in call.pieces for i in range(tokens)]


def longest_common_prefix(a: list[Any], b: list[Any]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def brute_force_reuse(rows: list[list[Any]]) -> float:
    """The oracle: compares every prompt with every earlier one, token by token."""
    found = sum(max((longest_common_prefix(row, old) for old in rows[:i]), default=0) for i, row in enumerate(rows))
    return found / sum(map(len, rows))


PIECES = st.lists(st.builds(Piece, st.sampled_from("ab"), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=4)


@given(rows=st.lists(PIECES, min_size=1, max_size=12))
def test_reuse_is_that_of_comparing_all_prompts(rows: list[list[Piece]]) -> None:
    calls = [Call(tuple(row), 1) for row in rows]
    assert prefix_reuse(calls) == pytest.approx(brute_force_reuse([symbols(call) for call in calls]))


def test_reuse_follows_the_order_and_counts_what_is_asked() -> None:
    calls = [Call((Piece("a", 0, 10),), 1), Call((Piece("a", 0, 4), Piece("b", 0, 6)), 1)]
    assert prefix_reuse(calls, [1, 0], {0}) == 0.4
    assert prefix_reuse(calls, [0, 1], {0}) == 0.0
    assert prefix_reuse(calls, [0, 0, 0]) == pytest.approx(2 / 3)
    assert prefix_reuse(calls, [0], set()) is None


@given(rate=st.floats(0, 0.99), n=st.integers(1, 30), seed=st.integers(0, 99))
def test_a_declared_hit_rate_is_shared_by_every_prompt(rate: float, n: int, seed: int) -> None:
    calls = single(workload(QUANTILES, prompts={"hit_rate": rate}), n, seed)
    plain = single(workload(QUANTILES), n, seed)
    assert [call.isl for call in calls] == [call.isl for call in plain]  # the shared part is inside the length
    for call in calls:
        shared = sum(p.tokens for p in call.pieces if p.space == "group")
        assert abs(shared - rate * call.isl) <= 1 and call.pieces[-1].space == "own"
    assert prefix_reuse(calls) == pytest.approx(brute_force_reuse([symbols(c) for c in calls]))
    fixed = single(workload(prompts={"hit_rate": 0.5}), n, seed)
    assert prefix_reuse(fixed) == pytest.approx(0.5 * (n - 1) / n)  # the first finds nothing


def test_shared_prefix_groups() -> None:
    spec = workload(prompts={"shared_prefix": {"groups": 4, "tokens": 30}})
    calls = single(spec, 400, 3)
    groups = [call.pieces[0].number for call in calls]
    assert {call.pieces[0].tokens for call in calls} == {30} and set(groups) == {0, 1, 2, 3}
    assert all(60 < groups.count(g) < 140 for g in range(4))
    assert prefix_reuse(calls) == pytest.approx(30 * 396 / (400 * 40))  # all but the first of each group find it
    made = prompts.build(spec, None, 400, 3, None)
    assert made.prefix_declared == 0.75 and len({p.token_ids[:30] for p in made.prompts}) == 4
    assert len({p.token_ids for p in made.prompts}) == 400
    assert single(spec, 7, 3) == calls[:7]


def test_a_prompt_shorter_than_its_prefix_keeps_a_token_of_its_own() -> None:
    calls = single(workload({"kind": "fixed", "isl": 10, "osl": 1}, prompts={"shared_prefix": {"groups": 1, "tokens": 30}}), 2, 1)
    assert [p.tokens for p in calls[0].pieces] == [9, 1]


SESSIONS = {"turns": {"0": 1, "0.5": 3, "1": 9}, "think": "exponential:2s"}


@given(n=st.integers(1, 40), seed=st.integers(0, 50))
def test_each_turn_waits_for_the_one_before_and_carries_the_history(n: int, seed: int) -> None:
    calls = sessions.conversations(workload(QUANTILES, sessions=SESSIONS), n, seed)
    assert n <= len(calls) < n + 9
    for number, call in enumerate(calls):
        if call.turn == 0:
            assert call.parents == () and call.delay_ns == 0
            continue
        before = calls[number - 1]
        assert call.parents == (number - 1,) and call.session_id == before.session_id and call.turn == before.turn + 1
        assert symbols(call)[: before.isl] == symbols(before)
        assert call.pieces[len(before.pieces)] == Piece("answer", number - 1, before.osl)  # exactly as long as was asked
        assert call.delay_ns > 0
    assert sessions.conversations(workload(QUANTILES, sessions=SESSIONS), n + 20, seed)[: len(calls)] == calls


def test_fixed_turns_and_their_reuse() -> None:
    calls = sessions.conversations(workload(sessions={"turns": 3, "think": "2s"}), 6, 1)
    assert [call.isl for call in calls] == [40, 88, 136] * 2  # 40 new each time, and answers of 8
    assert {call.delay_ns for call in calls if call.turn} == {2_000_000_000}
    # Only earlier prompts are found: the answers in the history are stand-ins that no server has written.
    assert prefix_reuse(calls) == pytest.approx((40 + 88) / (40 + 88 + 136))


def test_a_system_prompt_is_shared_by_sessions() -> None:
    calls = sessions.conversations(workload(sessions={"turns": 2}, prompts={"shared_prefix": {"groups": 1, "tokens": 16}}), 4, 1)
    assert calls[0].pieces[0] == calls[2].pieces[0] == Piece("group", 0, 16)


def test_chains_grow_branch_and_join() -> None:
    spec = workload(agentic={"steps": 5, "branches": 3, "result_tokens": 10, "tool_time": "500ms"})
    calls = sessions.chains(spec, 1, 1)
    assert [call.turn for call in calls] == [0, 1, 1, 1, 2, 3, 3, 3, 4]
    assert [call.parents for call in calls] == [(), (0,), (0,), (0,), (1, 2, 3), (4,), (4,), (4,), (5, 6, 7)]
    # 40 | + answer 8 + result 10 | + three branches of 10 and 8, + 10 | ...
    assert [call.isl for call in calls] == [40, 58, 58, 58, 112, 130, 130, 130, 184]
    join = calls[4]
    for branch in (1, 2, 3):
        assert Piece("own", branch, 10) in join.pieces and Piece("answer", branch, 8) in join.pieces
    assert {call.delay_ns for call in calls[1:]} == {500_000_000}
    assert roots_of([call.parents for call in calls], len(calls)) == [0] * 9
    assert len(sessions.chains(spec, 10, 1)) == 18  # whole chains


def test_a_chain_without_branches_is_a_line() -> None:
    calls = sessions.chains(workload(agentic={"steps": 4}), 4, 1)
    assert [call.parents for call in calls] == [(), (0,), (1,), (2,)]


def test_the_last_step_of_a_chain_is_one_call() -> None:
    calls = sessions.chains(workload(agentic={"steps": 4, "branches": 2}), 1, 1)
    assert [call.turn for call in calls] == [0, 1, 1, 2, 3]


def test_a_history_that_outgrows_the_context_ends_the_session() -> None:
    calls = sessions.conversations(workload(sessions={"turns": 5}), 10, 1)
    fitted = fit(calls, 150)  # 136 + 8 fits, 184 + 8 does not
    assert [call.turn for call in fitted.calls] == [0, 1, 2, 0, 1, 2] and fitted.cut_share == 0.4
    assert [call.parents for call in fitted.calls] == [(), (0,), (1,), (), (3,), (4,)]
    with pytest.raises(SpecError, match="no room"):
        fit(calls, 1)


@given(calls=st.integers(1, 30), context=st.integers(2, 400), seed=st.integers(0, 20))
def test_fitted_calls_fit_and_wait_only_for_calls_that_are_there(calls: int, context: int, seed: int) -> None:
    made = sessions.chains(workload(QUANTILES, agentic={"steps": 4, "branches": 2, "result_tokens": 20}), calls, seed)
    fitted = fit(made, context)
    assert all(call.isl >= 1 and call.isl + call.osl <= context for call in fitted.calls)
    assert all(0 <= parent < number for number, call in enumerate(fitted.calls) for parent in call.parents)
    assert sum(not c.parents for c in fitted.calls) == sum(not c.parents for c in made)
    roots_of([call.parents for call in fitted.calls], len(fitted.calls))


@given(pieces=PIECES, tokens=st.integers(0, 20))
def test_shortening_keeps_the_beginning(pieces: list[Piece], tokens: int) -> None:
    row = symbols(Call(tuple(pieces), 1))
    assert symbols(Call(shorten(pieces, tokens), 1)) == row[:tokens]


def test_prefixes_of_different_lengths_are_the_same_text(tokenizer_json: Any) -> None:
    made = prompts.build(workload(QUANTILES, prompts={"hit_rate": 0.9}), tokenizer_json, 40, 5, None)
    assert [len(p.token_ids) for p in made.prompts] == [call.isl for call in made.calls]
    longest = max(made.prompts, key=lambda p: len(p.token_ids)).token_ids
    for prompt, call in zip(made.prompts, made.calls, strict=True):
        shared = call.isl - call.pieces[-1].tokens
        assert prompt.token_ids[:shared] == longest[:shared]


@pytest.mark.parametrize(
    "more",
    [
        {"sessions": SESSIONS},
        {"agentic": {"steps": 5, "branches": 3, "result_tokens": 20}},
        {"prompts": {"shared_prefix": {"groups": 3, "tokens": 48}}},
    ],
)
def test_tokens_are_shared_exactly_as_pieces_are(more: dict[str, Any], tokenizer_json: Any) -> None:
    """A cache of 16-token blocks, simulated on the ids themselves, finds what the bound says and not more, but for whole blocks."""
    spec = workload({"kind": "fixed", "isl": 64, "osl": 16}, **more)
    made = prompts.build(spec, tokenizer_json, 60, 5, None)
    assert [len(p.token_ids) for p in made.prompts] == [call.isl for call in made.calls]
    cache: set[tuple[int, ...]] = set()
    found = 0
    for prompt in made.prompts:
        ends = range(16, len(prompt.token_ids) + 1, 16)
        hits = [end for end in ends if prompt.token_ids[:end] in cache]
        found += max(hits, default=0)
        cache.update(prompt.token_ids[:end] for end in ends)
    total = sum(len(p.token_ids) for p in made.prompts)
    bound = prefix_reuse(made.calls)
    assert bound is not None and bound - 16 * len(made.prompts) / total <= found / total <= bound + 1e-9


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"sessions": {"turns": 2}, "agentic": {"steps": 2}}, "exclude one another"),
        ({"sessions": {"turns": 0}}, "at least 1 turn"),
        ({"prompts": {"hit_rate": 0.5, "shared_prefix": {"groups": 1, "tokens": 5}}}, "exclude one another"),
        ({"prompts": {"hit_rate": 1.0}}, "less than 1"),
        ({"trace": {"file": "x"}}, "either lengths or a trace"),
    ],
)
def test_contradictions_are_refused(more: dict[str, Any], says: str) -> None:
    from profiler.spec import validate_spec

    raw = {"name": "w", "version": 1, "summary": "s", "source": "t", "lengths": FIXED, **more}
    with pytest.raises(SpecError, match=says):
        validate_spec(raw, WorkloadSpec, "w.toml")

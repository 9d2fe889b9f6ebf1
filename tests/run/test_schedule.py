"""What is due when, and the rules of the window: pure bookkeeping, against plain simulations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import plan

from profiler.run.schedule import NEVER, Schedule, roots_of
from profiler.run.window import Window

S = 1_000_000_000


def taken(schedule: Schedule, until_ns: int) -> list[tuple[int, int]]:
    """(time, body) of everything due up to then, without ending any of it."""
    got = []
    while schedule.next_ns <= until_ns:
        intended, body, _ = schedule.take()
        got.append((intended, body))
    return got


def test_an_open_loop_takes_roots_by_the_clock_and_starts_over_when_bodies_run_out():
    schedule = Schedule(plan(kind="rate", offsets_ns=(0, 5, 9, 12)), bodies=3, start_ns=100)
    assert taken(schedule, 108) == [(100, 0), (105, 1)]
    assert schedule.next_ns == 109
    assert taken(schedule, 200) == [(109, 2), (112, 0)]
    assert (schedule.next_ns, schedule.repeated) == (NEVER, 1)


def test_a_closed_loop_gives_each_free_slot_the_next_body_after_its_think_time():
    schedule = Schedule(plan(load=2, think_s=1.0), bodies=10, start_ns=100)
    assert taken(schedule, 10 * S) == [(100, 0), (100, 1)]
    schedule.ended(1, None, 500, answered=True)
    assert taken(schedule, 10 * S) == [(500 + S, 2)]
    schedule.ended(0, None, 700, answered=False, pause_ns=7)
    assert taken(schedule, 10 * S) == [(707, 3)]  # a failure pauses instead of thinking


#  0 -> 1 -> (2, 3) -> 4    5    6 -> 7
FOREST = ((), (0,), (1,), (1,), (2, 3), (), (), (6,))
DELAYS = (0, 10, 20, 30, 40, 0, 0, 70)


def test_a_descendant_is_due_after_its_last_parent_and_its_own_delay():
    schedule = Schedule(plan(load=1, parents=FOREST, delays_ns=DELAYS), bodies=8, start_ns=0)
    at, body, chain = schedule.take()
    assert (at, body, schedule.next_ns) == (0, 0, NEVER)
    schedule.ended(0, chain, 100, answered=True)
    assert schedule.take() == (110, 1, chain)
    schedule.ended(1, chain, 200, answered=True)
    assert [schedule.take()[:2], schedule.take()[:2]] == [(220, 2), (230, 3)]  # branches side by side
    schedule.ended(3, chain, 300, answered=True)
    assert schedule.next_ns == NEVER  # 4 waits for 2 as well
    schedule.ended(2, chain, 350, answered=True)
    assert schedule.take() == (390, 4, chain)
    schedule.ended(4, chain, 400, answered=True)
    assert schedule.take()[:2] == (400, 5)  # only now is the slot free


def test_a_failure_abandons_what_waits_for_it_and_frees_the_slot():
    schedule = Schedule(plan(load=1, parents=FOREST, delays_ns=DELAYS), bodies=8, start_ns=0)
    _, _, chain = schedule.take()
    schedule.ended(0, chain, 10, answered=True)
    schedule.take()
    schedule.ended(1, chain, 20, answered=True)
    schedule.take(), schedule.take()
    schedule.ended(2, chain, 60, answered=False)
    assert (schedule.abandoned, schedule.next_ns) == (1, NEVER)  # 4; its other branch is still under way
    schedule.ended(3, chain, 70, answered=True)
    assert schedule.take()[:2] == (70, 5)
    schedule.ended(5, None, 80, answered=True)
    _, _, chain = schedule.take()
    schedule.ended(6, chain, 90, answered=False, pause_ns=5)
    assert (schedule.abandoned, schedule.next_ns) == (2, 95)


def test_in_an_open_loop_only_roots_take_from_the_offsets():
    schedule = Schedule(plan(kind="rate", parents=FOREST, delays_ns=DELAYS, offsets_ns=(0, 1000, 2000)), bodies=8, start_ns=0)
    _, _, chain = schedule.take()
    schedule.ended(0, chain, 1500, answered=True)
    assert [schedule.take()[:2] for _ in range(3)] == [(1000, 5), (1510, 1), (2000, 6)]


@st.composite
def forests(draw):
    """Chains with one root each, as parents per body."""
    parents: list[tuple[int, ...]] = []
    for _ in range(draw(st.integers(1, 4))):
        first = len(parents)
        parents.append(())
        for body in range(first + 1, first + 1 + draw(st.integers(0, 4))):
            above = draw(st.lists(st.integers(first, body - 1), min_size=1, max_size=3, unique=True))
            parents.append(tuple(above))
    return tuple(parents)


@given(parents=forests(), load=st.integers(1, 3), data=st.data())
def test_a_closed_loop_never_has_more_chains_than_slots_and_loses_no_request(parents, load, data):
    """Everything is either sent once per round or abandoned, never before its parents were answered, and every slot comes back."""
    roots = roots_of(parents, len(parents))
    schedule = Schedule(plan(load=load, parents=parents), bodies=len(parents), start_ns=0)
    now, sent, open_, answered = 0, 0, [], {}
    n_roots = sum(not above for above in parents)
    started = 0
    while True:
        while schedule.next_ns <= now:
            _, body, chain = schedule.take()
            started += not parents[body]
            if parents[body]:
                assert all(answered[(id(chain), parent)] for parent in parents[body])
            sent += 1
            open_.append((body, chain))
        assert len({id(chain) if chain else ("alone", i) for i, (_, chain) in enumerate(open_)}) <= load
        if not open_ or started >= 2 * n_roots + load:
            break
        body, chain = open_.pop(data.draw(st.integers(0, len(open_) - 1)))
        ok = data.draw(st.booleans())
        answered[(id(chain), body)] = ok
        now += 1
        schedule.ended(body, chain, now, answered=ok)
    assert open_  # it ended because enough was started, not because a slot was lost
    assert roots[0] == 0


@pytest.mark.parametrize(
    ("parents", "what"),
    [
        (((1,), (0,)), "circle"),
        (((), (), (0, 1)), "two chains"),
        (((), (5,)), "does not exist"),
        (((), (0, 0)), "twice"),
        (((),), "1 of 2"),
    ],
)
def test_dependencies_that_cannot_be_driven_are_refused(parents, what):
    with pytest.raises(ValueError, match=what):
        roots_of(parents, max(2, len(parents)))


@given(clients=st.integers(1, 4), load=st.integers(1, 9), n=st.integers(1, 30))
def test_shares_are_the_whole_load(clients, load, n):
    """Together, clients send what one would: the same times and bodies of an open loop, as many slots of a closed one."""
    offsets = tuple(range(0, 100 * n, 100))
    open_loop = plan(kind="rate", offsets_ns=offsets)
    together = sorted(item for j in range(clients) for item in taken(Schedule(open_loop, 7, 0, (j, clients)), 10**9))
    assert together == taken(Schedule(open_loop, 7, 0), 10**9)
    closed = plan(load=load)
    bodies = [body for j in range(clients) for _, body in taken(Schedule(closed, 100, 0, (j, clients)), 0)]
    assert sorted(bodies) == list(range(load))


def test_a_closed_loops_window_opens_when_warm_and_closes_by_count_but_not_early():
    window = Window(plan(warmup_s=1.0, warmup_requests=2, window_min_s=5.0, window_max_s=20.0, cohort_min=3), 0)
    for seq in range(2):
        window.sent_one(seq, 0)
    window.tick(2 * S)
    assert window.open_ns is None  # time has come, requests have not
    window.ended_one(0), window.ended_one(1)
    window.tick(3 * S)
    assert window.open_ns == 3 * S
    for seq in range(2, 6):
        window.sent_one(seq, 4 * S)
    window.tick(7 * S)
    assert window.close_ns is None and window.look_ns == 8 * S
    window.tick(8 * S)
    assert (window.close_ns, window.close_reason, window.over) == (8 * S, "cohort complete", False)
    window.sent_one(6, 9 * S)  # load goes on, outside the cohort
    for seq in range(2, 6):
        assert not window.over
        window.ended_one(seq)
    assert window.over and (window.cohort_sent, window.cohort_done) == (4, 4)


def test_a_warm_up_that_hangs_does_not_hold_the_window_for_ever():
    window = Window(plan(warmup_s=1.0, warmup_requests=2, request_timeout_s=5.0), 0)
    window.tick(6 * S - 1)
    assert window.open_ns is None and window.look_ns == 6 * S
    window.tick(6 * S)
    assert window.open_ns == 6 * S


def test_window_budget_and_an_open_loops_fixed_opening():
    window = Window(plan(kind="rate", warmup_s=1.0, window_min_s=1.0, window_max_s=4.0, cohort_min=100), 0)
    assert window.open_ns == S
    window.sent_one(0, S - 1)
    window.sent_one(1, S)
    assert window.cohort_sent == 1  # [open, close)
    window.tick(5 * S)
    assert (window.close_ns, window.close_reason) == (5 * S, "window budget spent")
    window.sent_one(2, 5 * S)
    assert window.cohort_sent == 1


def test_enough_closes_the_window_but_not_before_its_least_length():
    window = Window(plan(window_min_s=2.0, cohort_min=100, window_max_s=50.0), 0)
    window.tick(0)
    window.ask_to_close()
    window.tick(S)
    assert window.close_ns is None and window.look_ns == 2 * S
    window.tick(2 * S)
    assert (window.close_ns, window.close_reason) == (2 * S, "precise enough")


@given(
    events=st.lists(st.tuples(st.sampled_from(["send", "end"]), st.integers(0, 3 * S)), max_size=40),
    kind=st.sampled_from(["concurrency", "rate"]),
    cohort=st.integers(1, 6),
)
def test_nothing_is_missed_by_looking_only_when_told(events, kind, cohort):
    """A window asked at every moment and one asked only from `look_ns` on decide the same."""
    load = plan(kind=kind, warmup_s=0.5, warmup_requests=2, window_min_s=1.0, window_max_s=3.0, cohort_min=cohort, request_timeout_s=2.0)
    eager, lazy = Window(load, 0), Window(load, 0)
    now, seq, open_ = 0, 0, []
    for what, gap in events:
        now += gap
        for window in (eager, lazy):
            if what == "send":
                window.sent_one(seq, now)
            elif open_:
                window.ended_one(open_[0])
        if what == "send":
            open_.append(seq)
            seq += 1
        elif open_:
            open_.pop(0)
        eager.tick(now)
        if now >= lazy.look_ns:
            lazy.tick(now)
        assert (eager.open_ns, eager.close_ns, eager.over, eager.phase) == (lazy.open_ns, lazy.close_ns, lazy.over, lazy.phase)

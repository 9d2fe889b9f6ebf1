"""Replicas: the replay against closed forms of queueing theory and against a step-by-step queue that shares no code with it."""

from __future__ import annotations

import math
import random

import pytest
import queues
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analyse import capacity, law, qos
from profiler.analyse.demand import Demand
from profiler.analyse.fit import _range
from profiler.analyse.limit import Limit
from profiler.analyse.replicas import replay

NS = 10**9


def steps(**changes: object) -> law.Law:
    values: dict[str, object] = {"base_s": 0.02, "running_s": 0.0005, "prefill_s": 0.0, "overhead_s": 0.0, "slots": 16}
    values |= {"error": 0.0, "runs": 3, "highest_running": 9.0}
    return law.Law(**(values | changes))  # type: ignore[arg-type]


def test_one_slot_and_one_token_is_m_d_1() -> None:
    """Pollaczek-Khinchine: mean wait = rho / (2 (1 - rho)) services of fixed length."""
    service, rho, n = 1.0, 0.7, 60_000
    draw, t, arrivals = random.Random(4), 0.0, []
    for _ in range(n):
        t += draw.expovariate(rho / service)
        arrivals.append(t)
    served = replay(arrivals, [(1, 1)] * n, steps(base_s=service, running_s=0.0, slots=1), 1)
    wait = sum((s.ttft_sched_s or 0) - service for s in served) / n
    assert wait == pytest.approx(rho / (2 * (1 - rho)) * service, rel=0.06)


@pytest.mark.parametrize(("servers", "load", "waits"), [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (10, 8.0, 0.4092)])
def test_erlang_c_by_its_closed_forms_and_tables(servers: int, load: float, waits: float) -> None:
    direct = load**servers / math.factorial(servers) * servers / (servers - load)
    assert capacity.erlang_c(servers, load) == pytest.approx(direct / (sum(load**k / math.factorial(k) for k in range(servers)) + direct))
    assert capacity.erlang_c(servers, load) == pytest.approx(waits, abs=1e-4)


def test_erlang_c_agrees_with_a_queue_that_is_walked_through() -> None:
    requests = queues.parallel_servers(1.6, 2, 1.0, 20_000, seed=3)
    waits = capacity.erlang_c(2, 1.6)
    # Mean time in M/M/c = service + C / (c mu - lambda).
    mean = sum((r.done_ns or 0) - r.intended_ns for r in requests) / len(requests) / NS
    assert mean == pytest.approx(1.0 + waits / (2 - 1.6), rel=0.08)


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_the_replay_agrees_with_an_independent_batching_queue(share: float) -> None:
    """tests/queues.py: 20 ms and 0.5 ms per sequence a step, 10 ms per newcomer; here a newcomer has 10 prompt tokens of 1 ms."""
    oracle = queues.batching_server(400.0, 11, rate=share * queues.CAPACITY)
    whole = [r for r in oracle if r.done_ns is not None]
    arrivals = [r.intended_ns / NS for r in whole]
    served = replay(arrivals, [(10, 32)] * len(whole), steps(prefill_s=0.001), 1)
    for mine, theirs in ((0.5, 0.5), (0.9, 0.9)):
        own = sorted(s.e2e_sched_s or 0 for s in served)[int(mine * len(served))]
        seen = sorted(((r.done_ns or 0) - r.intended_ns) / NS for r in whole)[int(theirs * len(whole))]
        assert own == pytest.approx(seen, rel=0.05)


TARGET = qos.parse("ttft_p95<=200ms, tpot_p95<=40ms")
LENGTHS = [(10, 32)]


def test_replicas_keep_the_target_and_one_less_does_not_by_the_bound() -> None:
    span = capacity.predicted_range(steps(prefill_s=0.001), LENGTHS, TARGET)
    assert span is not None and 0 < span.lower <= (span.upper or 0)
    made = capacity.capacity(Demand("", rate=3.5 * span.lower), span, LENGTHS, TARGET)
    assert isinstance(made, capacity.Capacity) and made.replicas >= 4
    assert made.idle_share == pytest.approx(1 - 3.5 / made.replicas)
    assert (made.ttft_p95_s or 9) <= 0.2 and (made.tpot_p95_s or 9) <= 0.04


@settings(max_examples=8, deadline=None)
@given(rate=st.floats(0.5, 20), more=st.floats(1.3, 3.0), routing=st.sampled_from(["round-robin", "random", "least-outstanding"]))
def test_more_demand_never_takes_fewer_replicas(rate: float, more: float, routing: str) -> None:
    span = capacity.Range(5.0, 6.0, "measured", steps(prefill_s=0.001), "")
    few, many = (capacity.capacity(Demand("", rate=r), span, LENGTHS, TARGET, routing) for r in (rate, rate * more))  # type: ignore[arg-type]
    assert isinstance(few, capacity.Capacity) and isinstance(many, capacity.Capacity)
    assert many.replicas >= few.replicas >= math.ceil(rate / span.lower - 1e-9)


def test_bursts_and_blind_routing_take_more_than_the_mean_says() -> None:
    span = capacity.Range(9.0, None, "measured", steps(prefill_s=0.001), "")
    smooth, bursty = (capacity.capacity(Demand("", rate=18.0, cv=cv), span, LENGTHS, TARGET, "random") for cv in (0.0, 4.0))
    assert isinstance(smooth, capacity.Capacity) and isinstance(bursty, capacity.Capacity)
    assert bursty.replicas > smooth.replicas


def test_a_demand_beyond_any_fleet_is_said() -> None:
    text = capacity.capacity(Demand("", rate=1e5), capacity.Range(1.0, None, "measured", None, ""), LENGTHS, TARGET)
    assert isinstance(text, str) and "100,000 replicas" in text


def test_a_daily_shape_asks_for_its_peak_and_autoscaling_for_less_on_average() -> None:
    span = capacity.Range(9.0, 9.5, "measured", steps(prefill_s=0.001), "")
    shape = tuple([0.25] * 12 + [1.75] * 12)
    fixed, scaled = (
        capacity.capacity(Demand("", rate=20.0, shape=shape), span, LENGTHS, TARGET, ready_s=30.0, autoscale=auto) for auto in (False, True)
    )
    assert isinstance(fixed, capacity.Capacity) and isinstance(scaled, capacity.Capacity)
    assert fixed.replicas == scaled.replicas >= 4 and scaled.mean_replicas < fixed.mean_replicas
    assert any("ready after 30.0 s" in note for note in scaled.notes)
    assert len(scaled.hours) == 24 and max(scaled.hours) == scaled.replicas and scaled.mean_replicas == sum(scaled.hours) / 24
    assert fixed.hours == ()


def test_a_law_that_carries_what_was_measured_to_fail_predicts_nothing() -> None:
    fast, target = steps(base_s=0.01), qos.parse("ttft_p95<=5s, error_rate<=1%")
    assert capacity.predicted_range(fast, LENGTHS, target, fails_at=0.5) is None
    free = capacity.predicted_range(fast, LENGTHS, target)
    assert free is not None
    bounded = capacity.predicted_range(fast, LENGTHS, target, fails_at=0.8 * free.lower)
    assert bounded is not None and 0 < bounded.lower < 0.8 * free.lower and bounded.upper == pytest.approx(0.8 * free.lower)


@pytest.mark.parametrize("share", [0.3, 1.6])
def test_steps_are_made_longer_or_shorter_until_they_carry_what_was_measured(share: float) -> None:
    own = capacity.predicted_limit(steps(prefill_s=0.001), LENGTHS, TARGET)
    span = capacity.measured_range(share * own, None, steps(prefill_s=0.001), LENGTHS, TARGET)
    assert span.law is not None and capacity.predicted_limit(span.law, LENGTHS, TARGET) == pytest.approx(share * own, rel=0.01)


def test_a_fleet_that_does_not_keep_the_target_is_said_with_the_number_that_was_tried() -> None:
    span = capacity.Range(5.0, None, "measured", steps(base_s=1.0), "")
    text = capacity.capacity(Demand("", rate=1.0), span, LENGTHS, TARGET)
    assert isinstance(text, str) and "even 12 replicas do not keep" in text


def test_extrapolated_is_said_by_the_mean_output_and_the_steps_of_many() -> None:
    """By Little's law: what runs at once is the rate times how long an answer of mean length takes beside as many."""
    loose, none = qos.parse("ttft_p95<=60s, tpot_p95<=60s"), Limit("rate", None, None, "predicted", "none was measured", ())

    def said(lengths: list[tuple[int, int]], highest: float) -> bool:
        missing: list[str] = []
        assert _range(none, steps(highest_running=highest), lengths, loose, missing) is not None
        return any("extrapolated" in text for text in missing)

    assert said([(10, 1), *[(10, 200)] * 9], 4.0)  # the first answer is short, the others keep all sixteen slots busy
    assert not said([(10, 2000), *[(10, 4)] * 99], 16.0)  # no more than sixteen can run at once

"""The limit of N replicas from one: against a queue of N servers that shares no code, and by what must hold."""

from __future__ import annotations

import math
import random

import pytest

from profiler.analyse import law
from profiler.analyse.capacity import Range, predicted_limit
from profiler.analyse.fleet import FleetLimit, fleet_limit
from profiler.analyse.qos import parse

TARGET = parse("ttft_p90<=300ms")
LENGTHS = [(10, 20)]
ONE = law.Law(0.02, 0.0005, 0.001, 0.0, 8, 0.05, 3, 8.0)


def p90_of_turns(rate: float, servers: int, seed: int, n: int = 4000) -> float:
    """Whole replicas walked step by step: arrivals by turns, each step a token for all who run and the prompts of those who join."""
    draw, t, times = random.Random(seed), 0.0, []
    for _ in range(n):
        t += draw.expovariate(rate)
        times.append(t)
    waits = []
    for own in (times[k::servers] for k in range(servers)):
        now, queue, running = 0.0, list(own), []
        while queue or running:
            if not running and queue and queue[0] > now:
                now = queue[0]
            joins = []
            while queue and queue[0] <= now and len(running) + len(joins) < 8:
                joins.append(queue.pop(0))
            now += 0.02 + 0.0005 * (len(running) + len(joins)) + 0.001 * 10 * len(joins)
            waits += [(came, now - came) for came in joins]
            running = [left - 1 for left in running if left > 1] + [19] * len(joins)
    late = [wait for came, wait in sorted(waits)][n // 10 :]
    return sorted(late)[math.ceil(0.9 * len(late)) - 1]


@pytest.mark.parametrize("replicas", [2, 3])
def test_the_interval_holds_the_limit_of_a_queue_walked_by_hand(replicas: int) -> None:
    carried = predicted_limit(ONE, LENGTHS, TARGET)
    found = fleet_limit(Range(carried * 0.95, carried * 1.05, "measured", ONE.slower(1.05), ""), LENGTHS, TARGET, replicas)
    assert isinstance(found, FleetLimit) and found.lower < found.upper
    below, above = (sum(p90_of_turns(rate, replicas, seed) for seed in range(3)) / 3 for rate in (found.lower * 0.95, found.upper * 1.05))
    assert below <= 0.3 < above


def test_two_carry_at_least_twice_one_by_turns_and_less_at_random() -> None:
    carried = predicted_limit(ONE, LENGTHS, TARGET)
    one = Range(carried, carried * 1.05, "measured", ONE, "")
    turns, chance = (fleet_limit(one, LENGTHS, TARGET, 2, routing) for routing in ("round-robin", "random"))
    assert isinstance(turns, FleetLimit) and isinstance(chance, FleetLimit)
    assert turns.lower >= 1.95 * carried and chance.lower <= turns.lower


def test_what_cannot_be_said_is_said() -> None:
    assert "no step times" in str(fleet_limit(Range(1.0, None, "measured", None, ""), LENGTHS, TARGET, 2))
    found = fleet_limit(Range(1.0, None, "measured", ONE, ""), LENGTHS, TARGET, 2)
    assert isinstance(found, FleetLimit) and "no upper end" in " ".join(found.notes)

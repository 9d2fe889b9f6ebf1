"""N model replicas of one engine behind a router, walked through from step to step: what a demand's arrivals would meet.

Each replica is the continuous batching of `law`: whoever waits joins at the next step while there are slots, a step with newcomers also
reads their prompts, every running sequence gets one token per step. First come, first served.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.analyse.law import Law

Routing = Literal["round-robin", "random", "least-outstanding"]


@dataclass
class Served:
    """One simulated request, with what a QoS target reads of it (seconds)."""

    ttft_sched_s: float | None
    tpot_s: float | None
    max_icl_s: float | None
    e2e_sched_s: float | None
    done_ns: int | None = 0
    error_kind: str | None = None
    prompt_tokens: int | None = None


class Replica:
    """State of one replica. Steps without newcomers are taken in one leap, up to the next that ends an answer or meets an arrival."""

    def __init__(self, law: Law, lengths: Sequence[tuple[int, int]], first: list[float], last: list[float], worst: list[float]) -> None:
        self.law, self.lengths = law, lengths
        self.first, self.last, self.worst = first, last, worst  # first and last token, longest gap, by request
        self.now = 0.0
        self.steps = 0
        self.running: list[tuple[int, int]] = []  # (step at which it ends, request)
        self.waiting: deque[int] = deque()

    @property
    def outstanding(self) -> int:
        return len(self.running) + len(self.waiting)

    def push(self, t: float, request: int) -> None:
        if not self.running and not self.waiting:
            self.now = max(self.now, t)
        self.waiting.append(request)

    def advance(self, until: float) -> None:
        """Take every step that begins before `until`."""
        while self.now < until and (self.running or self.waiting):
            if self.waiting and len(self.running) < self.law.slots:
                self._join()
            else:
                step_s = self.law.step_s(len(self.running))
                leap = self.running[0][0] - self.steps
                # Whoever comes meanwhile waits for the next step, so steps are leapt over only up to `until`; full slots let nobody in anyway.
                if len(self.running) < self.law.slots and math.isfinite(until):
                    leap = min(leap, max(1, math.ceil((until - self.now) / step_s)))
                self.steps += leap
                self.now += leap * step_s
                self._end()

    def _join(self) -> None:
        newcomers: list[int] = []
        while self.waiting and len(self.running) + len(newcomers) < self.law.slots:
            newcomers.append(self.waiting.popleft())
        prompt = sum(self.lengths[k][0] for k in newcomers)
        step_s = self.law.step_s(len(self.running) + len(newcomers), prompt)
        for _, k in self.running:
            if step_s > self.worst[k]:
                self.worst[k] = step_s
        self.steps += 1
        self.now += step_s
        for k in newcomers:
            self.first[k] = self.now
            heapq.heappush(self.running, (self.steps + self.lengths[k][1] - 1, k))
        self._end()

    def _end(self) -> None:
        while self.running and self.running[0][0] <= self.steps:
            self.last[heapq.heappop(self.running)[1]] = self.now


def replay(
    arrivals: Sequence[float], lengths: Sequence[tuple[int, int]], law: Law, replicas: int, routing: Routing = "round-robin", seed: int = 1
) -> list[Served]:
    """What each request meets: `arrivals` in s, ascending; `lengths` (input, output >= 1) tokens of each. All of them are answered."""
    n = len(arrivals)
    first, last, worst = [0.0] * n, [0.0] * n, [0.0] * n
    fleet = [Replica(law, lengths, first, last, worst) for _ in range(replicas)]
    draw = random.Random(seed)
    for k, t in enumerate(arrivals):
        if routing == "least-outstanding":
            for replica in fleet:
                replica.advance(t)
            chosen = min(fleet, key=lambda replica: replica.outstanding)
        else:
            chosen = fleet[k % replicas] if routing == "round-robin" else draw.choice(fleet)
            chosen.advance(t)
        chosen.push(t, k)
    for replica in fleet:
        replica.advance(math.inf)
    served = []
    for k, t in enumerate(arrivals):
        osl = lengths[k][1]
        ttft, over = first[k] - t + law.overhead_s, last[k] - first[k]
        tpot = over / (osl - 1) if osl > 1 else None
        gap = max(worst[k], tpot) if tpot is not None else None
        served.append(Served(ttft, tpot, gap, ttft + over, prompt_tokens=lengths[k][0]))
    return served

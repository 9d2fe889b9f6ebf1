"""Queues walked through step by step, as oracles for what is judged by formulas. Shares no code with the product."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthetic import record

from profiler.records import RequestRecord

NS = 10**9


def batching_server(
    horizon_s: float,
    seed: int,
    *,
    rate: float = 0.0,
    users: int = 0,
    slots: int = 16,
    tokens: int = 32,
    speed: float = 1.0,
    slow_until_s: float = 0.0,
    cv2: float = 1.0,
) -> list[RequestRecord]:
    """A server that makes one token for each of up to `slots` requests per step, as continuous batching does; the rest wait in line.

    A step takes 20 ms and 0.5 ms per request, 10 ms for each newcomer, ± 5 % (a coefficient of variation); `slow_until_s`: twice that at
    first. Offered are `rate` requests/s with gaps of squared coefficient of variation `cv2` (gamma), or as many `users` in a closed loop.
    """
    draw = random.Random(seed)
    arrivals: list[float] = [0.0] * users
    t = 0.0
    while rate and (t := t + draw.gammavariate(1 / cv2, cv2 / rate)) < horizon_s:
        arrivals.append(t)
    waiting, active, done, now = arrivals, [], [], 0.0
    while waiting or active:
        if not active and waiting[0] > now:
            now = waiting[0]
        if now > horizon_s * (1 if users else 3):
            break
        newcomers = 0
        while waiting and waiting[0] <= now and len(active) < slots:
            active.append((waiting.pop(0), []))
            newcomers += 1
        step_s = (0.020 + 0.0005 * len(active) + 0.010 * newcomers) * (1 + 0.05 * draw.gauss(0, 1)) / speed
        now += step_s * (2 if now < slow_until_s else 1)
        for came, stamps in list(active):
            stamps.append(now)
            if len(stamps) == tokens:
                active.remove((came, stamps))
                done.append((came, stamps))
                if users:
                    waiting.append(now)
    done += active if rate else []
    return [_record(number, came, stamps, len(stamps) == tokens) for number, (came, stamps) in enumerate(sorted(done))]


CAPACITY = 16 / 32 / (0.020 + 0.0005 * 16 + 0.010 * 16 / 32)  # requests/s of batching_server: 16 in each step, half a newcomer


def parallel_servers(rate: float, servers: int, mean_s: float, horizon_s: float, seed: int, fixed: bool = False) -> list[RequestRecord]:
    """M/M/c, or M/D/c with `fixed` service times; first come, first served."""
    draw = random.Random(seed)
    free = [0.0] * servers
    requests, t = [], 0.0
    while (t := t + draw.expovariate(rate)) < horizon_s:
        server = min(range(servers), key=lambda k: free[k])
        free[server] = max(free[server], t) + (mean_s if fixed else draw.expovariate(1 / mean_s))
        requests.append(_record(len(requests), t, [free[server]], True))
    return requests


def _record(number: int, came_s: float, stamps: Sequence[float], whole: bool) -> RequestRecord:
    return record(
        number,
        intended_ns=int(came_s * NS),
        sent_ns=int(came_s * NS),
        done_ns=int(stamps[-1] * NS) if whole and stamps else None,
        error_kind=None if whole else "cancelled",
        arrival_offsets_us=tuple(int((s - came_s) * 1e6) for s in stamps),
        arrival_tokens=(1,) * len(stamps),
    )

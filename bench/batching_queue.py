"""A queue before a batching server, simulated step by step for many engine starts at once. Shares no code with `profiler`.

Requests arrive as a Poisson process and wait first come, first served for one of `slots` places. The server works in steps: each step
gives every running request one token, takes in at most one waiting request and lasts

    speed x (step_s + per_running_s x running + per_input_token_s x input tokens of the request taken in)   seconds,

the batching law of continuous batching with one prefill a step. Output lengths are geometric, input lengths log-normal. `speed` is drawn
once for each start, log-normal with mean 1: starts differ, and everything within a start is correlated through the queue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FREE = np.int64(1 << 40)  # tokens left of a place that nobody has


@dataclass(frozen=True)
class Server:
    slots: int = 8
    step_s: float = 0.02
    per_running_s: float = 0.003
    per_input_token_s: float = 0.0002
    input_mean: float = 200.0
    input_sigma: float = 0.5  # of the logarithm
    output_mean: float = 32.0

    @property
    def capacity(self) -> float:
        """Requests/s of a server that is always full: a request costs its share of the steps of its output, and its own prefill."""
        full_step_s = self.step_s + self.per_running_s * self.slots
        return 1 / (self.output_mean * full_step_s / self.slots + self.per_input_token_s * self.input_mean)


@dataclass(frozen=True)
class Runs:
    """Arrays of shape (starts, requests): when each request came, had its first and its last token, s; and its output tokens."""

    came: Floats
    first: Floats
    last: Floats
    tokens: NDArray[np.int64]

    @property
    def ttft_s(self) -> Floats:
        return self.first - self.came

    @property
    def tpot_s(self) -> Floats:
        """NaN for an answer of one token."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.tokens > 1, (self.last - self.first) / (self.tokens - 1), np.nan)


def simulate(server: Server, rate: float, cv: float, starts: int, requests: int, seed: int) -> Runs:
    """`starts` independent engine starts, each `requests` long from an empty server. `rate` in requests/s, `cv` of the speed."""
    draw = np.random.default_rng(seed)
    sigma = float(np.sqrt(np.log1p(cv**2)))
    speed = draw.lognormal(-(sigma**2) / 2, sigma, starts)
    came = np.cumsum(draw.exponential(1 / rate, (starts, requests)), axis=1)
    tokens = draw.geometric(1 / server.output_mean, (starts, requests))
    input_tokens = draw.lognormal(np.log(server.input_mean) - server.input_sigma**2 / 2, server.input_sigma, (starts, requests))
    padded = np.concatenate([came, np.full((starts, 1), np.inf)], axis=1)
    first, last = np.full((starts, requests), np.nan), np.full((starts, requests), np.nan)
    row = np.arange(starts)
    now, head = np.zeros(starts), np.zeros(starts, dtype=np.int64)
    left = np.full((starts, server.slots), FREE)
    who = np.zeros((starts, server.slots), dtype=np.int64)
    ended = np.zeros(starts, dtype=np.int64)
    while (ended < requests).any():
        running = (left < FREE).sum(axis=1)
        following = padded[row, head]  # inf when all have been taken in
        # An idle server waits for the next arrival; one that is done waits for ever.
        now = np.where((running == 0) & (ended < requests), np.maximum(now, following), now)
        takes = (running < server.slots) & (following <= now)
        taken = row[takes]
        prefill_s = np.zeros(starts)
        prefill_s[taken] = server.per_input_token_s * input_tokens[taken, head[taken]]
        slot = np.argmax(left[taken], axis=1)
        left[taken, slot], who[taken, slot] = tokens[taken, head[taken]], head[taken]
        step_s = speed * (server.step_s + server.per_running_s * (running + takes) + prefill_s)
        # Steps that are all alike are one: until an answer ends, or until one comes that there is a place for.
        steps = left.min(axis=1)
        with np.errstate(invalid="ignore"):
            until = np.ceil(np.where(running < server.slots, (following - now) / step_s, np.inf))
        steps = np.where(takes, 1, np.where(until < steps, np.maximum(until, 1), steps)).astype(np.int64)
        steps = np.where(running + takes == 0, 0, steps)
        now = now + steps * step_s
        first[taken, head[taken]] = now[taken]
        head[taken] += 1
        left = np.where(left < FREE, left - steps[:, None], FREE)
        which, place = np.nonzero(left == 0)
        last[which, who[which, place]] = now[which]
        left[which, place] = FREE
        ended += np.bincount(which, minlength=starts)
    return Runs(came, first, last, tokens)

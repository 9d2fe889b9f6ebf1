"""A back without a model: tokens at set times. What it really sent, and when, goes to a file, so a client can be checked against it."""

from __future__ import annotations

import asyncio
import json
import math
import random
import selectors
import time
from argparse import Namespace
from collections import deque
from typing import TextIO

from . import wire
from .http11 import BadRequest

WORDS = (" one", " two", " three", " four", " five", " six", " seven", " eight")


class Pace:
    """One answer being paced."""

    __slots__ = ("answer", "max_tokens", "started_s", "timer")

    def __init__(self, answer: wire.Answer, max_tokens: int) -> None:
        self.answer, self.max_tokens = answer, max_tokens
        self.started_s = 0.0
        self.timer: asyncio.TimerHandle | None = None


class NullBack:
    """Chunk k of an answer leaves `ttft + k * itl` after its service began; at most `capacity` answers are in service, others queue."""

    max_context_tokens = 131072
    load_s = 0.0
    no_logprobs = "there is no model behind this server"

    def __init__(self, options: Namespace) -> None:
        self.model: str = options.served_model_name
        # One factor for the whole life of the server: what an engine start has of its own.
        spread = math.sqrt(math.log1p(options.scale_cv**2))
        self.scale = math.exp(random.Random(options.seed).gauss(0, 1) * spread - spread**2 / 2)
        self.ttft_s, self.itl_s = options.ttft_ms / 1000 * self.scale, options.itl_ms / 1000 * self.scale
        if options.scale_cv:
            print(f"slm-server: all times x {self.scale:.9g}", flush=True)  # noqa: T201 - this is the engine's log
        self.per_chunk: int = options.tokens_per_chunk
        self.capacity: int = options.capacity or 2**31
        self.record: TextIO | None = options.record.open("w", encoding="utf-8") if options.record else None
        self.paces: dict[int, Pace] = {}
        self.queue: deque[Pace] = deque()
        self.loop = asyncio.get_running_loop()

    def encode(self, ask: wire.Ask) -> list[int]:
        if isinstance(ask.prompt, list):
            return ask.prompt
        if ask.tools:
            raise BadRequest(400, "tools are not supported: there is no model")
        text = ask.prompt if ask.prompt is not None else json.dumps(ask.messages)
        return [0] * max(1, len(text.split()))  # a word is a token: any fixed rule does

    def submit(self, answer: wire.Answer, prompt: list[int], max_tokens: int) -> None:
        pace = Pace(answer, max_tokens)
        if len(self.paces) < self.capacity:
            self._begin(pace)
        else:
            self.queue.append(pace)

    def _begin(self, pace: Pace) -> None:
        self.paces[id(pace.answer)] = pace
        pace.started_s = self.loop.time()
        pace.timer = self.loop.call_at(pace.started_s + self.ttft_s, self._send, pace, 0)

    def _send(self, pace: Pace, k: int) -> None:
        answer = pace.answer
        first = answer.tokens
        n = min(self.per_chunk, pace.max_tokens - first)
        last = first + n == pace.max_tokens
        ids = list(range(first, first + n))
        text = "".join(WORDS[i % len(WORDS)] for i in ids)
        if last:
            self._leave(answer)
        else:
            # From the start of service, not from now: lateness must not add up.
            pace.timer = self.loop.call_at(pace.started_s + self.ttft_s + (k + 1) * self.itl_s, self._send, pace, k + 1)
        stamp_ns = time.monotonic_ns()  # before the write: no client can see the chunk earlier
        answer.push(ids, text, "length" if last else None)
        if self.record is not None:
            line = {"request_id": answer.ask.request_id, "index": first, "tokens": n, "sent_ns": stamp_ns}
            self.record.write(json.dumps(line) + "\n")
            if last:
                self.record.flush()

    def cancel(self, answer: wire.Answer) -> None:
        pace = self.paces.get(id(answer))
        if pace is None:
            self.queue = deque(p for p in self.queue if p.answer is not answer)
            return
        if pace.timer is not None:
            pace.timer.cancel()
        self._leave(answer)

    def _leave(self, answer: wire.Answer) -> None:
        self.paces.pop(id(answer), None)
        if self.queue and len(self.paces) < self.capacity:
            self._begin(self.queue.popleft())

    def reset_prefix_cache(self) -> None:
        """There is none."""

    def gauges(self) -> dict[str, float]:
        return {"requests_waiting": len(self.queue), "load_seconds": self.load_s, "time_scale": self.scale}

    async def run(self, selector: selectors.BaseSelector) -> None:
        await asyncio.Event().wait()

"""The routes, over any back that can generate tokens."""

from __future__ import annotations

import time
from typing import Protocol

from . import wire
from .http11 import BadRequest, Connection


class Back(Protocol):
    """What generates. All calls come from the one thread of the loop."""

    model: str
    max_context_tokens: int
    no_logprobs: str | None  # why it gives no log-probabilities; None where it does

    def encode(self, ask: wire.Ask) -> list[int]:
        """The prompt's token ids. Raises BadRequest."""
        ...

    def submit(self, answer: wire.Answer, prompt: list[int], max_tokens: int) -> None:
        """Begin; tokens go to `answer.push`. Raises BadRequest."""
        ...

    def cancel(self, answer: wire.Answer) -> None: ...

    def reset_prefix_cache(self) -> None: ...

    def gauges(self) -> dict[str, float]:
        """More lines for /metrics, without the `slm_server_` prefix."""
        ...


class App:
    """Handles each request of each connection; counts what it did."""

    def __init__(self, back: Back) -> None:
        self.back = back
        self.running: dict[int, wire.Answer] = {}
        self.totals = {"prompt_tokens_total": 0, "generation_tokens_total": 0}
        self.outcomes = {"done": 0, "cancelled": 0, "failed": 0, "refused": 0}
        self.serial = 0

    def handle(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        wanted = "POST" if path in ("/v1/completions", "/v1/chat/completions", "/reset_prefix_cache") else "GET"
        known = ("/v1/completions", "/v1/chat/completions", "/reset_prefix_cache", "/health", "/metrics", "/v1/models")
        if path not in known:
            raise BadRequest(404, f"no such path: {path}; there are {', '.join(known)}")
        if method != wanted:
            raise BadRequest(405, f"{path} wants {wanted}")
        if path == "/v1/completions":
            self._generate(connection, "completions", headers, body)
        elif path == "/v1/chat/completions":
            self._generate(connection, "chat", headers, body)
        elif path == "/health":
            connection.respond_json(200, {"status": "ok"})
        elif path == "/metrics":
            connection.respond(200, self._metrics(), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/v1/models":
            model = {"id": self.back.model, "object": "model", "owned_by": "slm-profiler", "max_model_len": self.back.max_context_tokens}
            connection.respond_json(200, {"object": "list", "data": [model]})
        else:
            if self.running:
                raise BadRequest(409, f"{len(self.running)} requests are running; the prefix cache is reset by rebuilding the pipeline")
            self.back.reset_prefix_cache()
            connection.respond_json(200, {"status": "ok"})

    def _generate(self, connection: Connection, kind: str, headers: dict[str, str], body: bytes) -> None:
        self.serial += 1
        name = headers.get("x-request-id") or f"{self.serial:x}-{time.monotonic_ns():x}"
        try:
            ask = wire.parse(kind, body, ("chatcmpl-" if kind == "chat" else "cmpl-") + name, self.back.model)
            if (ask.echo or ask.logprobs) and self.back.no_logprobs:
                raise BadRequest(400, f"echo and logprobs: {self.back.no_logprobs}")
            prompt = self.back.encode(ask)
            room = self.back.max_context_tokens - len(prompt)
            max_tokens = room if ask.max_tokens is None else ask.max_tokens
            if max_tokens > room or room < 1:
                asked = f"{len(prompt)} tokens of prompt and {ask.max_tokens or 'some'} of answer"
                raise BadRequest(400, f"{asked} do not fit: the model's context is {self.back.max_context_tokens} tokens")
            answer = wire.Answer(ask, connection, self.back.model, len(prompt), self._ended)
            self.running[id(answer)] = answer
            try:
                self.back.submit(answer, prompt, max_tokens)
            except BadRequest:
                del self.running[id(answer)]
                connection.on_disconnect = None
                raise
        except BadRequest:
            self.outcomes["refused"] += 1
            raise
        self.totals["prompt_tokens_total"] += len(prompt)

    def _ended(self, answer: wire.Answer, outcome: str) -> None:
        self.running.pop(id(answer), None)
        self.totals["generation_tokens_total"] += answer.tokens
        self.outcomes[outcome] += 1
        if outcome != "done":
            self.back.cancel(answer)

    def _metrics(self) -> bytes:
        values: dict[str, float] = {**self.totals, "requests_running": len(self.running), **self.back.gauges()}
        values["generation_tokens_total"] += sum(answer.tokens for answer in self.running.values())
        lines = []
        for name, value in values.items():
            lines += [f"# TYPE slm_server_{name} {'counter' if name.endswith('_total') else 'gauge'}", f"slm_server_{name} {value:.17g}"]
        lines.append("# TYPE slm_server_requests_total counter")
        lines += [f'slm_server_requests_total{{outcome="{outcome}"}} {count}' for outcome, count in self.outcomes.items()]
        return ("\n".join(lines) + "\n").encode()

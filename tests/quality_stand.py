"""A stand-in for a served model, on a real socket: log-probabilities by a rule that the tests compute too. Shares no code with the product."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def log_prob(before: int, token: int, worse: float = 0.0) -> float:
    return -1.5 - ((before * 31 + token * 7) % 13) / 5 - worse


def top(before: int, token: int, worse: float = 0.0) -> dict[int, float]:
    """What the model knows of a place: another token is a little more probable than the given one, 30 are far less; the rest is elsewhere."""
    given = log_prob(before, token, worse)
    return {token + 1000: given + 0.1, token: given} | {token + 2000 + j: given - 3 - j / 10 for j in range(30)}


GATHERING_S = 0.25


class Stand:
    """`way`: how it gives log-probabilities (echo | prompt_logprobs | cached | none). `worse`: nats per token. `answers`: by prompt.

    `allows`: of how many tokens per place, as a server may be set.
    """

    def __init__(self, way: str = "echo", worse: float = 0.0, answers: dict[str, str] | None = None, allows: int = 20) -> None:
        self.way, self.worse, self.answers, self.allows = way, worse, answers or {}, allows
        self.asked: list[dict[str, Any]] = []
        self.url = ""
        self.headers: dict[str, str] = {}  # sent with each answer
        self.breaks_at: str | None = None  # the prompt at which it begins to fail
        self.turns_at: int | None = None  # this many requests in it at once change what it says, answers and log-probabilities both
        self.gathers = 0  # a request waits until so many are in it, or none has come for GATHERING_S
        self.most = 0  # requests that were in it at once
        self._inside: dict[int, bool] = {}  # by thread: whether it is one of a crowd that turns answers
        self._came = threading.Condition()
        self._last_s = 0.0

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What a handler thread sends: `reply`, according to who is in it at the same time."""
        me = threading.get_ident()
        with self._came:
            self._inside[me] = False
            self._last_s = time.monotonic()
            self.most = max(self.most, len(self._inside))
            if self.turns_at is not None and len(self._inside) >= self.turns_at:
                self._inside = dict.fromkeys(self._inside, True)
            self._came.notify_all()
            self._came.wait_for(lambda: len(self._inside) >= self.gathers or time.monotonic() > self._last_s + GATHERING_S, GATHERING_S)
        try:
            return self.reply(path, body)
        finally:
            with self._came:
                del self._inside[me]

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        turn, shift = (" (turned)", 0.01) if self._inside.get(threading.get_ident()) else ("", 0.0)
        self.asked.append(body)
        if self.breaks_at and self.breaks_at in json.dumps(body):
            return 500, {"error": {"message": "out of order"}}
        if path.endswith("/chat/completions"):
            content = self.answers.get(body["messages"][0]["content"], "I do not know.") + turn
            return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
        if not path.endswith("/completions"):
            return 404, {"error": {"message": "no such path"}}
        ids = body["prompt"]
        if isinstance(ids, str):
            return 200, {"choices": [{"index": 0, "text": self.answers.get(ids, "") + turn, "finish_reason": "stop"}]}
        values = [None, *(log_prob(a, b, self.worse + shift) for a, b in itertools.pairwise(ids))]
        choice: dict[str, Any] = {"index": 0, "text": "x", "finish_reason": "length"}
        if "prompt_logprobs" in body:
            if self.way != "prompt_logprobs":
                return 400, {"error": {"message": "prompt_logprobs is not supported"}}
            k = body["prompt_logprobs"]
            if k > self.allows:
                return 400, {"error": {"message": f"prompt_logprobs of {k}, which is greater than max allowed: {self.allows}"}}
            places: list[Any] = [None]
            for before, token in itertools.pairwise(ids):
                ranked = sorted(top(before, token, self.worse + shift).items(), key=lambda one: -one[1])
                sent = ranked[:k] + [one for one in ranked[k:] if one[0] == token]
                places.append({str(t): {"logprob": v, "rank": ranked.index((t, v)) + 1} for t, v in reversed(sent)})
            choice["prompt_logprobs"] = places
        if body.get("echo"):
            if self.way in ("none", "prompt_logprobs"):
                return 400, {"error": {"message": "echo is not supported"}}
            choice["logprobs"] = {"token_logprobs": ([*values, -1.0])[64 if self.way == "cached" else 0 :]}
        return 200, {"choices": [choice]}


@contextmanager
def standing(stand: Stand) -> Iterator[Stand]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(200, {"object": "list", "data": [{"id": "stand", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send(*stand.answer(self.path, body))

        def send(self, status: int, content: dict[str, Any]) -> None:
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            for header in stand.headers.items():
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # of five, a crowd of eight comes in two parts, a second apart

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stand.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stand
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

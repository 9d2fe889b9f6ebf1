"""A plain HTTP client of a running engine, the oracle of the engine tests: it shares no code with the product."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from profiler.engines.protocol import RunningEngine


def until(condition: Callable[[], bool], what: str, deadline_s: float = 30.0) -> None:
    """Poll with a deadline: no test waits longer than it must, none forever."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@dataclass
class Reply:
    status: int
    body: bytes
    events: list[Any]  # of a stream, decoded, without [DONE]
    done: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def chunks(self) -> list[Any]:
        """Events that carry a choice."""
        return [event for event in self.events if event.get("choices")]


class Wire:
    """A plain HTTP client of one running engine."""

    def __init__(self, running: RunningEngine) -> None:
        self.running = running
        self.host, self.port, self.model = running.endpoint.host, running.endpoint.port, running.endpoint.model

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        try:
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        lines = [line[6:] for line in content.decode().split("\n") if line.startswith("data: ")]
        events = [json.loads(line) for line in lines if line != "[DONE]"]
        return Reply(response.status, content, events, bool(lines) and lines[-1] == "[DONE]")

    def complete(self, **fields: Any) -> Reply:
        return self.call("POST", "/v1/completions", {"model": self.model, "prompt": [100, 101, 102, 103], "temperature": 0, **fields})

    def chat(self, **fields: Any) -> Reply:
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        return self.call("POST", "/v1/chat/completions", {"model": self.model, "messages": messages, "temperature": 0, **fields})

    def stream(self, **fields: Any) -> Reply:
        options = {"include_usage": True, "continuous_usage_stats": True}
        return self.complete(stream=True, stream_options=options, return_token_ids=True, **fields)

    def open_stream(self, **fields: Any) -> socket.socket:
        """A connection on which a stream has begun to arrive."""
        body = json.dumps({"model": self.model, "prompt": [100, 101, 102], "stream": True, "ignore_eos": True, **fields}).encode()
        sock = socket.create_connection((self.host, self.port), timeout=120)
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        return sock

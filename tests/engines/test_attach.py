"""The `openai` engine: what can be wrong with an endpoint, and what must never be shown."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from specs import backend

from profiler.engines import openai, process
from profiler.errors import EngineError, SpecError


def attach(url, **options):
    spec = backend("openai", url=url, **options)
    with openai.ENGINE.start(openai.ENGINE.prepare(None, spec, print), spec, None, lambda line: None) as running:
        return running


@pytest.fixture
def guarded_endpoint():
    """An endpoint that wants a key and lists two models; keeps what it was sent."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(dict(self.headers))
            right = self.headers.get("Authorization") == "Bearer s3cret"
            body = json.dumps({"data": [{"id": "one"}, {"id": "two"}]} if right else {"error": {"message": "no key"}}).encode()
            self.send_response(200 if right else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("SLM_PROFILER_HEADERS", raising=False)


def test_nothing_there():
    with pytest.raises(EngineError, match="nothing answers at http://127"):
        attach(f"http://127.0.0.1:{process.free_port('127.0.0.1')}/v1")


def test_the_only_model_is_taken_and_a_wrong_one_is_told(null_server):
    assert attach(null_server.endpoint.url).endpoint.model == "null"
    with pytest.raises(EngineError) as caught:
        attach(null_server.endpoint.url, model="nul")
    assert "'null'" in caught.value.hint


def test_the_device_is_declared_or_unknown(null_server):
    assert attach(null_server.endpoint.url).device_source is None
    assert attach(null_server.endpoint.url, device="an H100").device_source == "declared"


def test_a_missing_key_is_told(guarded_endpoint):
    with pytest.raises(EngineError) as caught:
        attach(guarded_endpoint[0])
    assert "no key" in caught.value.message and "OPENAI_API_KEY" in caught.value.hint


def test_the_key_is_sent_and_never_shown(guarded_endpoint, monkeypatch):
    url, seen = guarded_endpoint
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    monkeypatch.setenv("SLM_PROFILER_HEADERS", "X-Team: a\nX-Other: b")
    with pytest.raises(EngineError, match="which model"):
        attach(url)
    running = attach(url, model="two")
    assert seen[-1]["Authorization"] == "Bearer s3cret" and seen[-1]["X-Team"] == "a" and seen[-1]["X-Other"] == "b"
    assert "s3cret" not in repr(running.endpoint)


@pytest.mark.parametrize("text", ["{broken", "no colon", '{"A": "b\\nC: d"}'])
def test_bad_headers_are_refused_without_quoting_them(monkeypatch, text):
    monkeypatch.setenv("SLM_PROFILER_HEADERS", text)
    with pytest.raises(SpecError) as caught:
        openai.user_headers()
    assert text not in caught.value.message


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://host:8000/v1", (False, "host", 8000, "/v1")),
        ("http://host", (False, "host", 80, "/v1")),
        ("https://host/a/v1/", (True, "host", 443, "/a/v1")),
        ("http://[::1]:80/v1", (False, "::1", 80, "/v1")),
    ],
)
def test_urls(url, parts):
    assert openai.parse_url(url) == parts


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host/v1", "http://", "http://u:p@host/v1", "http://host:notaport/v1", "http://host/v1?x=1"]
)
def test_what_is_no_url(url):
    with pytest.raises(SpecError):
        openai.parse_url(url)

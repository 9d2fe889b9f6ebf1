"""Starting servers that behave badly. They are small scripts, so no engine is needed."""

from __future__ import annotations

import socket
import sys
import textwrap

import pytest
from specs import backend
from wire_client import until

from profiler.engines import process, registry
from profiler.engines.process import Launch
from profiler.errors import EngineError

ANSWERS_500 = textwrap.dedent("""
    import http.server, sys
    class H(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"error": {"message": "no kernel for this precision"}}'
            self.send_response(500); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
""")


def launch(tmp_path, code, **fields):
    command = lambda port: [sys.executable, "-c", code, str(port)]  # noqa: E731
    return Launch(name="b", command=command, model="m", log_path=tmp_path / "engine.log", **fields)


def refused(a_launch):
    with pytest.raises(EngineError) as caught, process.serve(a_launch, lambda line: None):
        pass
    return caught.value


def test_a_death_carries_the_last_lines(tmp_path):
    error = refused(launch(tmp_path, "print('loading'); raise SystemExit('weights are broken')"))
    assert "exit code 1" in error.message and "weights are broken" in error.message
    assert "loading" in error.detail and str(tmp_path / "engine.log") in error.hint


def test_healthy_is_not_ready(tmp_path):
    assert "no kernel for this precision" in refused(launch(tmp_path, ANSWERS_500)).message


def test_never_ready_times_out_and_is_stopped(tmp_path):
    error = refused(launch(tmp_path, "print('still loading', flush=True); import time; time.sleep(600)", timeout_s=0.5))
    assert "not ready after" in error.message and "still loading" in error.detail


def test_a_fixed_port_in_use_is_said_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = refused(launch(tmp_path, "raise SystemExit(1)", port=taken.getsockname()[1]))
    assert "is in use" in error.message
    assert not (tmp_path / "engine.log").exists()


def test_a_port_lost_in_the_race_is_tried_again(tmp_path, monkeypatch, null_server):
    free = process.free_port
    ports = [null_server.endpoint.port]  # the first choice is taken by the time the server binds it
    monkeypatch.setattr(process, "free_port", lambda host: ports.pop() if ports else free(host))
    engine, spec = registry.get("null"), backend("null", ttft_ms=1.0, itl_ms=1.0)
    with engine.start(engine.prepare(None, spec, print), spec, tmp_path / "log", lambda line: None) as running:
        assert running.endpoint.port != null_server.endpoint.port
    assert "cannot listen" in (tmp_path / "log").read_text()


def test_no_such_interpreter(tmp_path):
    bad = Launch(name="b", command=lambda port: ["/nowhere/python"], model="m", log_path=tmp_path / "log")
    assert "cannot run /nowhere/python" in refused(bad).message


def test_it_is_stopped_when_the_body_raises(tmp_path):
    engine, spec = registry.get("null"), backend("null", ttft_ms=1.0, itl_ms=1.0)
    seen = []
    with pytest.raises(KeyboardInterrupt), engine.start(engine.prepare(None, spec, print), spec, tmp_path / "log", print) as running:
        seen.append(running)
        raise KeyboardInterrupt
    until(lambda: not seen[0].alive(), "the server is stopped")
    assert seen[0].peak_memory_bytes() > 1_000_000, "what was known stays readable"

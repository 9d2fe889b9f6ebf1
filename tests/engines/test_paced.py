"""The paced server keeps its pace, says what it sent, and misbehaves exactly as its script asks. The client here is a bare socket."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import statistics
import struct
import time
from contextlib import ExitStack
from itertools import pairwise

import pytest
from specs import backend
from wire_client import until

from profiler.engines import registry
from profiler.engines.paced import build, record
from profiler.errors import EngineError, EnvironmentError_


class Peer:
    """One raw connection: sends a streaming request, gives back every read with the time it returned."""

    def __init__(self, port, buffer_bytes=None):
        self.sock = socket.socket()
        self.sock.settimeout(30)
        if buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reads = []
        self.error = None

    def send(self, tokens=8, path="/v1/completions", **fields):
        prompt = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": [1, 2, 3]}
        body = {**prompt, "max_tokens": tokens, "stream": True, "return_token_ids": True, **fields}
        self.body = json.dumps(body).encode()
        self.sent_ns = time.monotonic_ns()
        self.sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(self.body)}\r\n\r\n".encode() + self.body)
        return self

    def read(self, until_end=True):
        """Until the answer is complete, or the server closes or resets."""
        self.reads = []
        try:
            while data := self.sock.recv(65536):
                self.reads.append((time.monotonic_ns(), data))
                if until_end and (data.endswith(b"0\r\n\r\n") or b"Content-Length" in self.reads[0][1]):
                    return self
        except OSError as error:
            self.error = error.errno
        return self

    @property
    def text(self):
        return b"".join(data for _, data in self.reads).decode()

    @property
    def status(self):
        return int(self.text.split(" ", 2)[1])

    @property
    def lines(self):
        return [line[6:] for line in self.text.split("\n") if line.startswith("data: ")]

    @property
    def chunks(self):
        """Token ids of every chunk that has some."""
        events = [json.loads(line) for line in self.lines if line != "[DONE]"]
        return [ids for e in events for c in e["choices"] if (ids := c.get("token_ids"))]


@pytest.fixture
def server(tmp_path):
    """start(script lines, options...) gives the port; sent() the record's requests that were streams."""
    with ExitStack() as stack:

        class Server:
            def start(self, *script, **options):
                if script:
                    (tmp_path / "script").write_text("\n".join(script) + "\n")
                    options["script"] = str(tmp_path / "script")
                engine = registry.get("paced")
                spec = backend("paced", **{"ttft_ms": 4.0, "itl_ms": 2.0, "record": str(tmp_path / "sent"), **options})
                variant = engine.prepare(None, spec, print)
                self.running = stack.enter_context(engine.start(variant, spec, tmp_path / "log", print))
                self.port = self.running.endpoint.port
                return self

            def peer(self, buffer_bytes=None):
                peer = Peer(self.port, buffer_bytes)
                stack.callback(peer.sock.close)
                return peer

            def sent(self, n):
                """The record's streams, once there are n."""
                found = []

                def enough():
                    found[:] = [r for r in record.read(tmp_path / "sent") if r.stream_index is not None]
                    return len(found) >= n

                until(enough, f"{n} streams in the record")
                return sorted(found, key=lambda r: r.stream_index)

        yield Server()


def test_what_it_says_it_sent_is_what_arrives(server):
    peer = server.start(ttft_ms=30.0, itl_ms=5.0).peer().send(tokens=20).read()
    (sent,) = server.sent(1)
    assert [c.tokens for c in sent.chunks] == [1] * 20 == [len(ids) for ids in peer.chunks]
    assert peer.lines[-1] == "[DONE]" and sent.ended == "done" and sent.blocked == 0
    assert sent.body_fnv1a == record.fnv1a(peer.body)
    assert peer.sent_ns <= sent.received_ns <= sent.chunks[0].before_ns
    # On one clock: nothing leaves before it is due, and nothing arrives before it left.
    assert all(c.before_ns - sent.received_ns >= 30e6 + k * 5e6 for k, c in enumerate(sent.chunks))
    arrived = 0
    for at, data in peer.reads:
        arrived += data.count(b'"token_ids"')
        assert at >= sent.chunks[arrived - 1].before_ns
    assert all(c.before_ns < c.after_ns for c in sent.chunks) and all(a.after_ns <= b.before_ns for a, b in pairwise(sent.chunks))


def test_several_tokens_per_chunk(server):
    peer = server.start(tokens_per_chunk=3).peer().send(tokens=10).read()
    assert peer.chunks == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [c.tokens for c in server.sent(1)[0].chunks] == [3, 3, 3, 1]


def test_script_lines_are_for_the_requests_in_their_order(server):
    server.start("# a comment", "1000 500 2 -", "60000", "- - 4 none")
    peer = server.peer()
    for tokens in (4, 3, 8, 2):  # on one kept connection
        peer.send(tokens=tokens).read()
    first, second, third, fourth = server.sent(4)
    assert [len(r.chunks) for r in (first, second, third, fourth)] == [2, 3, 2, 2]
    assert len({r.connection for r in (first, second, third, fourth)}) == 1
    waits = [r.chunks[0].before_ns - r.received_ns for r in (first, second, third, fourth)]
    assert waits[0] >= 1e6 and waits[1] >= 60e6 and waits[2] >= 4e6 and waits[3] >= 4e6
    assert waits[0] < waits[1]


def test_chat_brings_the_role_with_the_first_token_or_at_once(server):
    events = server.start().peer().send(path="/v1/chat/completions").read().lines
    assert json.loads(events[0])["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    server.start(role_first=True, ttft_ms=50.0)
    peer = server.peer().send(path="/v1/chat/completions").read()
    assert '"role"' in peer.reads[0][1].decode() and "token_ids" not in peer.reads[0][1].decode()
    assert peer.chunks == [[k] for k in range(8)]


@pytest.mark.parametrize(("word", "field"), [("include_usage", 1), ("continuous_usage_stats", 9)])
def test_usage_only_where_it_was_asked_for(server, word, field):
    options = {"include_usage": True, "continuous_usage_stats": word == "continuous_usage_stats"}
    peer = server.start().peer().send(stream_options=options).read()
    usages = [json.loads(line)["usage"] for line in peer.lines if "usage" in line]
    assert len(usages) == field and usages[-1] == {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}


def test_a_place_is_waited_for(server):
    server.start(capacity=1, ttft_ms=20.0)
    peers = [server.peer().send() for _ in range(3)]
    for peer in peers:
        assert len(peer.read().chunks) == 8
    sent = sorted(server.sent(3), key=lambda r: r.chunks[0].before_ns)
    assert all(a.chunks[-1].before_ns <= b.chunks[0].before_ns - 20e6 for a, b in pairwise(sent))
    assert sent[2].waited_ns >= sent[1].waited_ns >= 20e6


def test_the_gap_grows_with_what_runs(server):
    server.start(itl_ms=1.0, itl_per_running_ms=2.0)
    server.peer().send(tokens=5).read()
    peers = [server.peer().send(tokens=5) for _ in range(4)]
    for peer in peers:
        peer.read()
    alone, *together = server.sent(5)
    assert alone.chunks[-1].before_ns - alone.received_ns >= 4e6 + 4 * 3e6
    assert max(r.chunks[1].before_ns - r.received_ns for r in together) >= 4e6 + 5e6  # at least two of them at that time


@pytest.mark.parametrize(("distribution", "cv"), [("lognormal", 0.5), ("exponential", 1.0), ("gamma", 2.0)])
def test_distributed_times_have_the_mean_and_the_spread_asked_for(server, distribution, cv):
    server.start(distribution=distribution, ttft_ms=0.0, itl_ms=0.4, itl_cv=cv, seed=7)
    peers = [server.peer().send(tokens=200) for _ in range(10)]
    for peer in peers:
        peer.read()
    # Chunks that are late catch up, so a request's whole length is the sum of its draws; its last chunk is late by little.
    lengths = [(r.chunks[-1].before_ns - r.began_ns) / 1e6 for r in server.sent(10)]
    deviation = 0.4 * cv * math.sqrt(199 / 10)  # of the mean of ten sums
    assert abs(statistics.mean(lengths) - 0.4 * 199) < 5 * deviation + 5


def test_the_same_seed_gives_the_same_times(server, tmp_path):
    spans = []
    for seed in (3, 3, 4):
        server.start(distribution="exponential", itl_ms=20.0, ttft_ms=0.0, seed=seed, record=str(tmp_path / f"sent{len(spans)}"))
        server.peer().send(tokens=4).read()
        until(lambda: '"stream_index":0' in (tmp_path / f"sent{len(spans)}").read_text(), "in the record")
        (sent,) = [r for r in record.read(tmp_path / f"sent{len(spans)}") if r.stream_index == 0]
        spans.append([c.before_ns - sent.began_ns for c in sent.chunks])
    due, again, other = spans
    assert due != again  # late by something, each
    # A chunk is never early, and lateness is far below the spread of the draws (20 ms) on any machine that runs at all.
    assert sum(abs(a - b) for a, b in zip(due, again, strict=True)) < sum(abs(a - b) for a, b in zip(due, other, strict=True))


def test_starts_differ_by_a_factor(server, tmp_path):
    factors = []
    for seed in (1, 1, 2):
        server.start(scale_cv=0.2, seed=seed, record=str(tmp_path / "x"))
        factors.append(server.running.metrics()["slm_server_start_factor"])
    assert factors[0] == factors[1] != factors[2] and all(0.3 < f < 3 for f in factors)


def test_reset_before_the_stream(server):
    peer = server.start("- - - reset-before").peer().send().read()
    assert peer.error == errno.ECONNRESET and not peer.reads
    assert server.sent(1)[0].ended == "reset"


def test_reset_in_the_stream(server):
    peer = server.start("- 20000 - reset-in=3").peer().send().read()
    assert peer.error == errno.ECONNRESET and len(peer.chunks) == 3 == len(server.sent(1)[0].chunks)


def test_reset_after_the_stream(server):
    peer = server.start("- 20000 - reset-after").peer().send().read()
    assert len(peer.chunks) == 8 and peer.lines[-1] == "[DONE]" and peer.error is None
    assert not peer.read().reads and peer.error == errno.ECONNRESET


def test_stall(server):
    peer = server.start("- - - stall=2").peer().send()
    other = server.peer().send().read()
    assert len(other.chunks) == 8  # the others are served meanwhile
    peer.sock.settimeout(0.2)
    peer.read()
    assert peer.error is None and len(peer.chunks) == 2  # a time-out has no errno
    assert server.running.metrics()["slm_server_requests_running"] == 1
    peer.sock.close()
    assert server.sent(2)[0].ended == "client gone"


def test_half_a_chunk(server):
    peer = server.start("- - - half=2").peer().send().read(until_end=False)
    assert peer.error is None and "[DONE]" not in peer.text
    assert peer.text.count("data: ") == 3
    with pytest.raises(ValueError):
        json.loads(peer.lines[-1])


def test_bad_json_in_the_middle(server):
    peer = server.start("- - - bad-json=1").peer().send().read()
    with pytest.raises(ValueError):
        json.loads(peer.lines[1])
    assert len(peer.lines) == 9 and json.loads(peer.lines[2])["choices"][0]["token_ids"] == [2]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_status(server, status):
    server.start(f"- - - status={status}:7")
    peer = server.peer().send().read()
    assert peer.status == status and ("Retry-After: 7" in peer.text) == (status in (429, 503))
    assert "asked for by the script" in json.loads(peer.text.split("\r\n\r\n")[1])["error"]["message"]
    assert len(peer.send().read().chunks) == 8  # the connection lives on


def test_longer_and_shorter_than_asked(server):
    server.start("- - - longer=3", "- - - shorter=3")
    peer = server.peer()
    assert [len(peer.send().read().chunks) for _ in range(2)] == [11, 5]


def test_nobody_listens_for_a_while(server):
    server.start("- - - refuse=300")
    peer = server.peer().send().read()
    assert peer.error == errno.ECONNRESET

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", server.port)) == 0

    assert not listens()
    until(listens, "it listens again")
    assert len(server.peer().send().read().chunks) == 8


def test_it_dies_for_good(server):
    server.start("- - - -", "- - - die=2")
    other = server.peer().send(tokens=1000)
    peer = server.peer().send().read()
    other.read()
    assert len(peer.chunks) == 2 and "[DONE]" not in peer.text + other.text
    until(lambda: not server.running.alive(), "it ends")
    long, short = server.sent(2)  # nothing that was sent is missing in the record
    assert (long.ended, short.ended) == ("server stopped", "died")
    assert len(long.chunks) >= len(other.chunks)


def test_a_client_that_does_not_read_blocks_nobody(server):
    server.start(itl_ms=0.0)
    peer = server.peer(buffer_bytes=4096)
    peer.send(tokens=100_000, stream_options={"continuous_usage_stats": True})  # 25 MB: more than any kernel's buffers take
    assert len(server.peer().send().read().chunks) == 8
    peer.read()
    assert len(peer.chunks) == 100_000
    assert server.sent(2)[0].blocked > 0


def test_what_runs_at_the_end_is_in_the_record(server, tmp_path):
    server.start("1000 1000000")
    peer = server.peer().send()
    until(lambda: b"token_ids" in peer.sock.recv(4096, socket.MSG_PEEK), "the first token")
    server.running.stop()
    (sent,) = server.sent(1)
    assert sent.ended == "server stopped" and len(sent.chunks) >= 1


def test_request_ids_are_kept(server):
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        body = b'{"prompt":"a b","stream":true,"max_tokens":1}'
        sock.sendall(
            b'POST /v1/completions HTTP/1.1\r\nx-request-id: ab-1"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b' % (len(body), body)
        )
        while sock.recv(4096):
            pass
    (sent,) = server.sent(1)
    assert sent.request_id == "ab-1" and sent.prompt_tokens == 2


@pytest.mark.parametrize("line", ["x", "- - 0", "- - - burn", "- - - status", "1 2 3 none 5"])
def test_a_wrong_script_line_is_named(server, line):
    with pytest.raises(EngineError) as caught:
        server.start("- - - none", line)
    assert "script line 2" in caught.value.message


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert registry.get("paced").problems(backend("paced")) == [build.NO_COMPILER]
    with pytest.raises(EnvironmentError_) as caught:
        build.binary()
    assert "apt-get install gcc" in caught.value.hint
    monkeypatch.setenv("CC", "false")
    with pytest.raises(EnvironmentError_, match="does not compile"):
        build.binary()
    assert not list((tmp_path / "paced").iterdir())


def test_it_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path))
    first = build.binary()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build.binary() == first and os.access(first, os.X_OK)


def test_fnv1a_against_its_published_values():
    assert record.fnv1a(b"") == "cbf29ce484222325"
    assert record.fnv1a(b"foobar") == struct.pack(">Q", 0x85944171F73967E8).hex()

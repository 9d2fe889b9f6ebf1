"""The paced server keeps its pace and writes down what it sent."""

from __future__ import annotations

import json
import socket
import threading
import time
from itertools import pairwise

import pytest
from specs import backend
from wire_client import Wire, until

from profiler.engines import registry


@pytest.fixture
def start(tmp_path):
    from contextlib import ExitStack

    with ExitStack() as stack:

        def one(**options):
            engine, spec = registry.get("null"), backend("null", record=str(tmp_path / "sent.jsonl"), **options)
            return Wire(stack.enter_context(engine.start(engine.prepare(None, spec, print), spec, tmp_path / "log", print)))

        yield one


def sent(tmp_path):
    return [json.loads(line) for line in (tmp_path / "sent.jsonl").read_text().splitlines()]


def test_the_record_holds_every_chunk_and_its_pace(start, tmp_path):
    wire = start(ttft_ms=30.0, itl_ms=4.0, tokens_per_chunk=3)
    before_ns = time.monotonic_ns()
    reply = wire.stream(max_tokens=10)
    after_ns = time.monotonic_ns()

    def written():
        return [row for row in sent(tmp_path) if row["request_id"] == reply.events[0]["id"]]

    until(lambda: len(written()) >= 4, "the record is written after the answer has left")
    rows = written()
    assert [(row["index"], row["tokens"]) for row in rows] == [(0, 3), (3, 3), (6, 3), (9, 1)]
    assert [len(c["choices"][0]["token_ids"]) for c in reply.chunks] == [3, 3, 3, 1]
    stamps = [row["sent_ns"] for row in rows]
    assert before_ns + 30e6 <= stamps[0] and stamps[-1] <= after_ns
    assert stamps[-1] - stamps[0] >= 3 * 4e6 - 1.1e6  # lateness of the first may shorten the span by its own amount, not the pace
    assert all(b > a for a, b in pairwise(stamps))


def test_capacity_makes_the_others_wait(start):
    wire = start(ttft_ms=5.0, itl_ms=2.0, capacity=1)
    first = wire.open_stream(max_tokens=4000)
    second = []
    thread = threading.Thread(target=lambda: second.append(wire.stream(max_tokens=2)))
    thread.start()
    until(lambda: wire.running.metrics()["slm_server_requests_waiting"] == 1, "the second waits")
    first.close()  # its leaving gives the place away
    thread.join()
    assert second[0].done


def test_a_start_has_one_factor_for_all_its_times(tmp_path):
    """What the server says of its factor is what its answers show, and the same seed gives the same one."""
    from contextlib import ExitStack

    engine = registry.get("null")
    with ExitStack() as stack:

        def one(**options):
            spec = backend("null", **options)
            return Wire(stack.enter_context(engine.start(engine.prepare(None, spec, print), spec, tmp_path / "log", print)))

        def factor(wire):
            return wire.running.metrics()["slm_server_time_scale"]

        first, same, other = (one(ttft_ms=1.0, itl_ms=2.0, scale_cv=0.5, seed=seed) for seed in (7, 7, 8))
        assert factor(first) == factor(same) != factor(other)
        before_ns = time.monotonic_ns()
        first.stream(max_tokens=61)
        assert time.monotonic_ns() - before_ns >= (60 * 2e6 + 1e6) * factor(first)
        assert factor(one()) == 1 and factor(one(scale_cv=0.03)) != factor(one(scale_cv=0.03))


def test_64_streams_at_once(start):
    wire = start(ttft_ms=10.0, itl_ms=3.0)
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(wire.stream(max_tokens=30))) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(r.chunks) for r in replies] == [30] * 64


def exchange(wire, data):
    """All that comes back until the server closes."""
    with socket.create_connection((wire.host, wire.port), timeout=30) as sock:
        for part in data:
            sock.sendall(part)
        received = b""
        while more := sock.recv(65536):
            received += more
    return received


def post(body, extra=b""):
    return b"POST /v1/completions HTTP/1.1\r\n" + extra + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


BODY = json.dumps({"prompt": [1], "max_tokens": 2, "stream": True}).encode()


def test_two_requests_sent_at_once_are_answered_in_order(null_server):
    wire = Wire(null_server)
    received = exchange(wire, [post(BODY) + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"])
    stream, _, health = received.rpartition(b"HTTP/1.1 200 OK")
    assert stream.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") and b'"status":"ok"' in health


def test_a_request_may_arrive_byte_by_byte(null_server):
    data = post(BODY, b"Connection: close\r\n")
    assert b"[DONE]" in exchange(Wire(null_server), [data[i : i + 1] for i in range(len(data))])


def test_expect_100_continue(null_server):
    wire = Wire(null_server)
    with socket.create_connection((wire.host, wire.port), timeout=30) as sock:
        sock.sendall(post(BODY, b"Expect: 100-continue\r\nConnection: close\r\n")[: -len(BODY)])
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(BODY)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70000, b"431"),
    ],
)
def test_bad_http_is_answered_and_closed(null_server, data, status):
    assert exchange(Wire(null_server), [data]).startswith(b"HTTP/1.1 " + status)

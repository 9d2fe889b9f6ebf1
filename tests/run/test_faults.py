"""Every fault of docs/faults.md on a real socket: a typed error on its request, the others measured, a clear reason to stop."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from email.utils import formatdate

import pytest
from scripted import DONE, END, HEAD, Peer, Request, answer, chunk, event, plan, run, serving, status

from profiler.records import Endpoint
from profiler.run.drive import DriveProgress

MS = 1_000_000


def every(n: int, fault):
    """The fault on every n-th body, as often as it is tried; a good answer to the others."""

    def script(peer: Peer, request: Request) -> None:
        (fault if request.index % n == 1 else answer(tokens=3))(peer, request)

    return script


def reset_before(peer: Peer, request: Request) -> None:
    peer.reset()


def reset_in_header(peer: Peer, request: Request) -> None:
    peer.send(HEAD[:20])
    time.sleep(0.005)
    peer.reset()


def reset_in_stream(peer: Peer, request: Request) -> None:
    peer.send(HEAD + chunk(event([1], "a", 1)))
    time.sleep(0.005)
    peer.reset()


def half_a_chunk(peer: Peer, request: Request) -> None:
    peer.send(HEAD + chunk(event([1], "a", 1)) + chunk(event([2], "b", 2))[:-9])
    peer.close()


def end_without_done(peer: Peer, request: Request) -> None:
    peer.send(HEAD + chunk(event([1], "a", 1)) + END)


def invalid_json(peer: Peer, request: Request) -> None:
    peer.send(HEAD + chunk(event([1], "a", 1)) + chunk(b'data: {"choices": [\n\n') + chunk(DONE) + END)


def error_event(peer: Peer, request: Request) -> None:
    peer.send(HEAD + chunk(event([1], "a", 1)) + chunk(b'data: {"error":{"message":"out of memory"}}\n\n') + END)
    peer.close()


def gzipped(peer: Peer, request: Request) -> None:
    peer.send(HEAD.replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type") + chunk(b"\x1f\x8b\x08\x00") + END)


def not_http(peer: Peer, request: Request) -> None:
    peer.send(b"220 mail ready\r\n\r\n")
    peer.close()


@pytest.mark.parametrize(
    ("fault", "kind", "says", "tokens"),
    [
        (reset_before, "reset", "reset", None),
        (reset_in_header, "reset", "reset", None),
        (reset_in_stream, "reset", "reset", 1),
        (half_a_chunk, "reset", "closed the connection", 1),
        (end_without_done, "truncated", "ended before", 1),
        (invalid_json, "bad_stream", "not a JSON object", 1),
        (error_event, "server_error", "out of memory", 1),
        (gzipped, "bad_stream", "compressed (gzip)", None),
        (not_http, "bad_stream", "not HTTP", None),
        (status(400, "too long"), "http_status", "400: too long", None),
        (status(404, "no such model"), "http_status", "404: no such model", None),
        (status(429, "slow down", "Retry-After: 0"), "http_status", "429: slow down", None),
        (status(500, "boom"), "http_status", "500: boom", None),
        (status(503, "loading"), "http_status", "503: loading", None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_an_error_of_its_request_and_the_run_goes_on(fault, kind, says, tokens, tmp_path):
    with serving(every(4, fault)) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=12), tmp_path)
    assert done.drive.stop_reason == "cohort complete"
    kinds = done.kinds()
    assert set(kinds) == {None, kind} and kinds[kind] >= 3 and kinds[None] >= 8
    for r in done.requests:
        if r.error_kind == kind:
            assert says in (r.error or "").lower() or says in (r.error or "")
            assert (r.output_tokens, r.done_ns, r.e2e_s) == (tokens, None, None)
            assert r.sent_ns is not None and (r.first_token_ns is not None) == (tokens is not None)
        elif r.error_kind is None:
            assert r.output_tokens == 3


def test_a_reset_after_the_stream_spoils_nothing(tmp_path):
    def script(peer: Peer, request: Request) -> None:
        answer(tokens=3)(peer, request)
        time.sleep(0.003)
        peer.reset()

    with serving(script) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=8, think_s=0.02), tmp_path)
    assert set(done.kinds()) == {None}


def test_a_stalled_stream_and_no_answer_at_all_time_out_on_their_own(tmp_path):
    release = threading.Event()

    def stalled(peer: Peer, request: Request) -> None:
        if request.number % 4 == 1:
            peer.send(HEAD + chunk(event([1], "a", 1)))
        release.wait(20)

    def script(peer: Peer, request: Request) -> None:
        (stalled if request.number % 2 else answer(tokens=3))(peer, request)

    with serving(script) as server:
        done = run(server.endpoint, plan(load=4, cohort_min=8, request_timeout_s=0.4), tmp_path)
        release.set()
    kinds = done.kinds()
    assert set(kinds) == {None, "stalled", "timeout"}
    for r in done.requests:
        if r.error_kind in ("stalled", "timeout"):
            assert "not complete after 0.4 s" in (r.error or "")
            assert (r.first_token_ns is not None) == (r.error_kind == "stalled")
    assert done.drive.ended_ns - done.drive.started_ns < plan(request_timeout_s=0.4).cell_timeout_s * 1e9


def test_a_server_that_never_answers_bounds_the_cell(tmp_path):
    release = threading.Event()
    load = plan(load=2, warmup_requests=2, window_max_s=0.3, request_timeout_s=0.3)
    with serving(lambda peer, request: release.wait(30) and None) as server:
        done = run(server.endpoint, load, tmp_path)
        release.set()
    assert done.drive.stop_reason == "window budget spent"
    assert set(done.kinds()) == {"timeout"}
    assert done.cohort


def test_a_refused_connection_stops_the_run_with_its_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = run(Endpoint("127.0.0.1", port, "m"), plan(load=2, cohort_min=1000), tmp_path)
    assert done.drive.stop_reason == "server gone"
    assert set(done.kinds()) == {"connect"}
    assert done.requests[0].error == "ECONNREFUSED" and done.requests[0].sent_ns is None


def test_a_server_that_dies_for_good_loses_nothing_that_was_measured(tmp_path):
    with serving(answer(tokens=3, gap_s=0.002)) as server:

        def kill(progress: DriveProgress) -> None:
            if progress.cohort_done >= 20:
                server.stop()

        done = run(server.endpoint, plan(load=2, cohort_min=100_000, window_max_s=60.0), tmp_path, on_progress=kill)
        answered = len({request.index for request in server.requests})
    assert done.drive.stop_reason == "server gone"
    kinds = done.kinds()
    assert kinds[None] >= 20 and kinds["connect"] >= 20
    assert set(kinds) <= {None, "connect", "reset", "send"}
    assert sum(r.error_kind is None and r.output_tokens == 3 for r in done.cohort) >= 20
    assert answered >= 20


def test_a_server_that_comes_back_is_measured_again(tmp_path):
    """Refused for a while, then there: errors in between, and the run goes on."""
    with serving(answer(tokens=1)) as first:
        port = first.port
    later = {}

    def start() -> None:
        time.sleep(0.5)
        later["server"] = serving(answer(tokens=3), port=port)
        later["server"].__enter__()

    thread = threading.Thread(target=start)
    thread.start()
    done = run(Endpoint("127.0.0.1", port, "m"), plan(load=1, cohort_min=20), tmp_path)
    thread.join()
    later["server"].__exit__(None, None, None)
    assert done.drive.stop_reason == "cohort complete"
    assert set(done.kinds()) == {None, "connect"}


def test_a_server_that_only_refuses_ends_the_run(tmp_path):
    with serving(status(400, "no such parameter")) as server:
        done = run(server.endpoint, plan(load=20, cohort_min=100_000), tmp_path)
    assert done.drive.stop_reason == "no request was answered"
    assert len(done.requests) < 200  # it did not hammer the server
    assert set(done.kinds()) == {"http_status"}


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("how", ["seconds", "date"])
def test_a_slot_obeys_retry_after(tmp_path, code, how):
    """After 1 s (as a date: at the next whole second but one) where another failure would pause for 0.1 s."""

    def script(peer: Peer, request: Request) -> None:
        when = "1" if how == "seconds" else formatdate(time.time() + 2, usegmt=True)
        (status(code, "busy", f"Retry-After: {when}") if request.number == 1 else answer(tokens=1))(peer, request)

    with serving(script) as server:
        done = run(server.endpoint, plan(load=1, cohort_min=4), tmp_path)
    refused = next(i for i, r in enumerate(done.requests) if r.error_kind == "http_status")
    pause_ns = done.requests[refused + 1].intended_ns - done.requests[refused].sent_ns
    assert pause_ns >= 900 * MS


def test_retry_after_is_bounded_by_the_requests_time_out(tmp_path):
    def script(peer: Peer, request: Request) -> None:
        (status(503, "busy", "Retry-After: 86400") if request.number == 1 else answer(tokens=1))(peer, request)

    with serving(script) as server:
        done = run(server.endpoint, plan(load=1, cohort_min=4, request_timeout_s=0.3), tmp_path)
    assert done.drive.stop_reason == "cohort complete"
    assert done.kinds()[None] >= 3


def test_an_open_loop_never_waits_for_retry_after(tmp_path):
    offsets = tuple(range(0, 300 * MS, 10 * MS))
    load = plan(kind="rate", load=100, offsets_ns=offsets, window_min_s=0.2, window_max_s=0.3, cohort_min=1000)
    with serving(every(2, status(429, "busy", "Retry-After: 30"))) as server:
        done = run(server.endpoint, load, tmp_path)
    assert [r.intended_ns - done.drive.started_ns for r in done.requests] == list(offsets)
    assert done.kinds() == {None: 15, "http_status": 15}


@pytest.mark.parametrize("got", [2, 9])
def test_an_answer_shorter_or_longer_than_asked_is_no_error_and_is_seen(got, tmp_path):
    with serving(answer(tokens=got)) as server:
        done = run(server.endpoint, plan(load=1, cohort_min=4), tmp_path, asked=5)
    answered = [r for r in done.requests if r.error_kind is None]
    assert {(r.output_tokens, r.asked_output_tokens) for r in answered} == {(got, 5)}


def test_a_body_refused_half_way_keeps_the_servers_words(tmp_path):
    """413 before the body was read: the server answers and closes; what it said must not be lost to our failed send."""

    body = b'{"error":{"message":"too large"}}'
    head = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)

    def listen(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = sock.accept()
                with peer:
                    if peer.recv(4096):  # the client's first connection only asks whether somebody is there
                        peer.sendall(head + body)
                        time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        threading.Thread(target=listen, args=(sock,), daemon=True).start()
        load = plan(load=1, cohort_min=3, window_max_s=3.0)
        done = run(Endpoint("127.0.0.1", sock.getsockname()[1], "m"), load, tmp_path, count=3, padding=8_000_000)
        sock.shutdown(socket.SHUT_RDWR)
    assert set(done.kinds()) == {"http_status"}
    assert {r.error for r in done.requests if r.error_kind == "http_status"} == {"413: too large"}


def test_an_answer_longer_than_its_content_length_is_not_taken_for_the_next_one(tmp_path):
    body = event([1], "a", 1, "stop") + DONE
    head = HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body))

    def script(peer: Peer, request: Request) -> None:
        peer.send(head + body)
        peer.send(b"HTTP/1.1 200 OK\r\n")  # nobody asked

    with serving(script) as server:
        done = run(server.endpoint, plan(load=1, think_s=0.02, cohort_min=4), tmp_path)
    assert set(done.kinds()) <= {None, "bad_stream"}
    assert not any(r.connection_reused for r in done.requests)

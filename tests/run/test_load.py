"""What load reaches a server, seen from that server, and what the records say of it: real client processes, real sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from scripted import DONE, END, HEAD, Peer, Request, Server, answer, bodies, chunk, clients_below, event, meta, plan, run, serving

from profiler.errors import LoadError
from profiler.run import spool
from profiler.run.decode import decode
from profiler.run.drive import DriveProgress, drive

MS = 1_000_000


def token_sends(server: Server) -> dict[int, list[int]]:
    """When each token of each body's first answer had been sent, by body index."""
    found: dict[int, list[int]] = {}
    for number, at, data in server.sends:
        if b"token_ids" in data:
            found.setdefault(server.requests[number].index, []).append(at)
    return found


def test_a_closed_loop_keeps_n_in_flight_and_reuses_connections(tmp_path):
    with serving(answer(tokens=4, gap_s=0.01)) as server:
        done = run(server.endpoint, plan(load=3, cohort_min=15), tmp_path)
    assert done.drive.stop_reason == "cohort complete"
    assert done.kinds() == {None: len(done.requests) - sum(r.error_kind == "cancelled" for r in done.requests)}
    assert server.most_at_once == 3
    assert len({request.connection for request in server.requests}) == 3
    assert sum(r.connection_reused is False for r in done.requests) == 3
    spans = [(r.sent_ns, r.done_ns) for r in done.requests if r.done_ns]
    for begin, _ in spans[3:]:
        assert sum(a <= begin < b for a, b in spans) <= 3


def test_every_record_says_what_the_server_did(tmp_path):
    with serving(answer(tokens=5, gap_s=0.004, ttft_s=0.01)) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=8), tmp_path)
    sent = token_sends(server)
    assert done.drive.stamps == ("kernel" if sys.platform == "linux" else "user")
    answered = [r for r in done.requests if r.error_kind is None]
    assert len(answered) >= 8
    for r in answered:
        index = int(r.request_id[1:])
        assert r.output_tokens == sum(r.arrival_tokens) == 5
        assert r.sent_ns is not None and r.first_token_ns is not None
        assert r.intended_ns <= r.sent_ns <= r.first_token_ns <= r.last_token_ns <= r.done_ns
        # The server's stamp is taken when its send returned, so ours may lie before it, but never before the token before it.
        arrivals = [r.sent_ns + offset * 1000 for offset in r.arrival_offsets_us]
        if len(arrivals) == 5:
            for before, arrived in zip(sent[index], arrivals[1:], strict=False):
                assert arrived > before
        assert r.ttft_s == (r.first_token_ns - r.sent_ns) / 1e9
        assert r.tpot_s == pytest.approx((r.last_token_ns - r.first_token_ns) / 1e9 / (5 - r.arrival_tokens[0]))


def test_an_open_loop_never_waits_for_answers(tmp_path):
    gate = threading.Event()

    def held(peer: Peer, request: Request) -> None:
        gate.wait(20)
        answer(tokens=1)(peer, request)

    offsets = tuple(range(0, 40 * 10 * MS, 10 * MS))
    load = plan(kind="rate", load=100, offsets_ns=offsets, window_min_s=0.3, window_max_s=0.4, cohort_min=1000)

    def open_gate(progress: DriveProgress) -> None:
        if progress.sent == 40:
            gate.set()

    with serving(held) as server:
        done = run(server.endpoint, load, tmp_path, on_progress=open_gate)
    assert server.most_at_once == 40  # all of them, though none was answered
    assert [r.intended_ns - done.drive.started_ns for r in done.requests] == list(offsets)
    assert all(r.sent_ns >= r.intended_ns for r in done.requests)
    assert done.kinds() == {None: 40}
    late = [r.sent_ns - r.intended_ns for r in done.requests]
    assert sorted(late)[len(late) // 2] < min(r.first_token_ns - r.sent_ns for r in done.requests)


def test_the_cohort_is_the_requests_whose_intended_send_falls_in_the_window(tmp_path):
    with serving(answer(tokens=2, ttft_s=0.03)) as server:
        load = plan(load=4, warmup_s=0.1, warmup_requests=8, window_min_s=0.2, cohort_min=20)
        done = run(server.endpoint, load, tmp_path)
    opened, closed = done.drive.window_open_ns, done.drive.window_close_ns
    assert opened >= done.drive.started_ns + 100 * MS and closed - opened >= 200 * MS
    assert sum(r.done_ns is not None and r.done_ns <= opened for r in done.requests) >= 8
    assert [r.in_window for r in done.requests] == [opened <= r.intended_ns < closed for r in done.requests]
    assert [r.warmup for r in done.requests] == [r.intended_ns < opened for r in done.requests]
    assert len(done.cohort) >= 20
    assert all(r.error_kind is None for r in done.cohort)
    # Load went on until the last of the cohort was done, and no longer.
    last = max(r.done_ns for r in done.cohort)
    assert done.drive.ended_ns >= last
    after = [r for r in done.requests if r.intended_ns >= closed]
    assert after and all(r.intended_ns <= done.drive.ended_ns for r in after)
    busy_until_end = [r for r in done.requests if r.error_kind == "cancelled"]
    assert all(not r.in_window for r in busy_until_end)


def test_think_time_passes_between_an_answer_and_the_next_request_of_a_slot(tmp_path):
    with serving(answer(tokens=1)) as server:
        done = run(server.endpoint, plan(load=1, think_s=0.05, cohort_min=4), tmp_path)
    for before, after in pairwise(r for r in done.requests if r.error_kind is None):
        assert after.intended_ns - before.done_ns >= 50 * MS


def test_the_next_turn_waits_for_the_answer_and_its_delay(tmp_path):
    parents = tuple(() if i % 3 == 0 else (i - 1,) for i in range(30))
    delays = tuple(0 if i % 3 == 0 else 20 * MS for i in range(30))
    with serving(answer(tokens=2, gap_s=0.005)) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=9, parents=parents, delays_ns=delays), tmp_path, count=30)
    by_id = {r.request_id: r for r in done.requests}
    turns = [r for r in done.requests if int(r.request_id[1:]) % 3]
    assert turns and done.drive.abandoned == 0
    for r in turns:
        parent = by_id[f"r{int(r.request_id[1:]) - 1}"]
        assert r.intended_ns >= parent.done_ns + 20 * MS
    assert server.most_at_once <= 2


def test_what_waits_for_a_failed_request_is_never_sent(tmp_path):
    def script(peer: Peer, request: Request) -> None:
        peer.reset() if request.index % 4 == 1 else answer(tokens=1)(peer, request)

    parents = tuple(() if i % 4 == 0 else (i - 1,) for i in range(40))
    with serving(script) as server:
        done = run(server.endpoint, plan(load=1, cohort_min=6, parents=parents), tmp_path, count=40)
    asked = {request.index % 4 for request in server.requests}
    assert asked == {0, 1}
    assert done.drive.abandoned == 2 * done.kinds()["reset"]


def test_enough_closes_the_window(tmp_path):
    with serving(answer(tokens=1, ttft_s=0.01)) as server:
        load = plan(load=2, window_min_s=0.2, window_max_s=60.0, cohort_min=100_000)
        done = run(server.endpoint, load, tmp_path, enough=lambda progress: progress.cohort_done >= 5)
    assert done.drive.stop_reason == "precise enough"
    assert done.drive.window_close_ns - done.drive.window_open_ns >= 200 * MS
    assert all(r.error_kind is None for r in done.cohort)


def test_an_idle_connection_the_server_closed_costs_no_request(tmp_path):
    def script(peer: Peer, request: Request) -> None:
        answer(tokens=1)(peer, request)
        time.sleep(0.01)
        peer.close()  # without having said so

    with serving(script) as server:
        done = run(server.endpoint, plan(load=1, think_s=0.05, cohort_min=5), tmp_path)
    assert done.kinds() == {None: len([r for r in done.requests if r.error_kind != "cancelled"])}
    assert server.connections >= 5


def test_a_connection_closed_under_a_request_is_tried_once_more(tmp_path):
    """The server closes a kept-alive connection on reading the next request, as if its idle time-out had been a moment earlier."""

    def script(peer: Peer, request: Request) -> None:
        if getattr(peer, "served", False):
            peer.reset()
        else:
            answer(tokens=1)(peer, request)
            peer.served = True  # type: ignore[attr-defined]

    with serving(script) as server:
        done = run(server.endpoint, plan(load=1, cohort_min=5), tmp_path)
    assert set(done.kinds()) == {None}
    assert len(server.requests) > len(done.requests)  # the server saw the second tries, the records hold each request once
    assert not any(r.connection_reused for r in done.requests if r.error_kind is None)


def test_connection_close_and_content_length_and_the_end_as_framing(tmp_path):
    body = event([1], "a", 1) + event([2], "b", 2, "stop") + DONE
    length = HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body))
    neither = HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"")
    closing = HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    shapes = (length + body, closing + chunk(body) + END, neither + body)

    def script(peer: Peer, request: Request) -> None:
        data = shapes[request.number % 3]
        peer.send(data[:50])
        time.sleep(0.002)
        peer.send(data[50:])
        if request.number % 3:
            peer.close()

    with serving(script) as server:
        done = run(server.endpoint, plan(load=1, cohort_min=9), tmp_path)
    assert set(done.kinds()) == {None}
    assert all(r.output_tokens == 2 for r in done.requests if r.error_kind is None)


def test_a_slow_header_and_a_cut_at_every_awkward_place(tmp_path):
    data = HEAD + chunk(event([1], "a", 1)) + chunk(event([2], "b", 2, "stop")) + chunk(DONE) + END

    def script(peer: Peer, request: Request) -> None:
        cuts = [3, len(HEAD) - 2, len(HEAD) + 2, len(data) - 6, len(data) - 4, len(data) - 1]
        for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True):
            peer.send(data[a:b])
            time.sleep(0.003)

    with serving(script) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=6), tmp_path)
    assert set(done.kinds()) == {None}
    assert all(r.output_tokens == 2 for r in done.requests if r.error_kind is None)


def test_a_body_larger_than_the_socket_buffers(tmp_path):
    def script(peer: Peer, request: Request) -> None:
        answer(tokens=1)(peer, request)

    with serving(script) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=4), tmp_path, count=4, padding=8_000_000)
    assert set(done.kinds()) == {None}
    assert min(request.size for request in server.requests) > 8_000_000


def test_tls_keeps_the_stamps(tmp_path, server_tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(answer(tokens=5, gap_s=0.005), server_tls) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=6), tmp_path)
    assert set(done.kinds()) == {None}
    assert done.drive.stamps == ("kernel" if sys.platform == "linux" else "user")
    sent = token_sends(server)
    for r in done.requests:
        if r.error_kind is None and len(r.arrival_offsets_us) == 5:
            arrivals = [r.sent_ns + offset * 1000 for offset in r.arrival_offsets_us]
            assert all(arrived > before for before, arrived in zip(sent[int(r.request_id[1:])], arrivals[1:], strict=False))


def test_a_certificate_nobody_vouches_for_is_refused(tmp_path, server_tls):
    with serving(answer(), server_tls) as server:
        done = run(server.endpoint, plan(load=2, cohort_min=5), tmp_path)
    assert set(done.kinds()) == {"connect"}
    assert "CERTIFICATE_VERIFY_FAILED" in (done.requests[0].error or "")
    assert done.drive.stop_reason in ("no request was answered", "cohort complete")


def test_the_portable_way_offers_the_same_load(tmp_path, monkeypatch):
    monkeypatch.setenv("SLM_PROFILER_PORTABLE", "1")
    with serving(answer(tokens=3, gap_s=0.003)) as server:
        closed = run(server.endpoint, plan(load=2, cohort_min=6), tmp_path)
        offsets = tuple(range(0, 400 * MS, 20 * MS))
        rate = run(server.endpoint, plan(kind="rate", load=50, offsets_ns=offsets, cohort_min=10, window_max_s=1.0), tmp_path)
    assert set(closed.kinds()) == set(rate.kinds()) == {None}
    assert closed.drive.stamps == "user" and closed.decoded.read_delay_p50_s is None
    assert all(r.sent_ns >= r.intended_ns for r in rate.requests)
    assert closed.drive.stop_reason == "cohort complete"


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from scripted import Endpoint, bodies, plan
from profiler.run.drive import drive
print("up", flush=True)
drive(Endpoint("127.0.0.1", {port}, "m"), "/completions", bodies(50), plan(cohort_min=10**6, window_max_s=600.0), Path({folder!r}))
"""


@contextlib.contextmanager
def parent(server: Server, folder: Path):
    """A process that drives load, once its client has been answered a few times; and that client."""
    code = PARENT.format(tests=str(Path(__file__).parent), port=server.port, folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        limit = time.monotonic() + 30
        while len(server.requests) < 20 and time.monotonic() < limit:
            time.sleep(0.02)
        (client,) = psutil.Process(process.pid).children()
        yield process, client
    finally:
        process.kill()
        process.communicate()


def test_the_client_stops_when_its_parent_is_killed(tmp_path):
    with serving(answer(tokens=1, ttft_s=0.01)) as server, parent(server, tmp_path) as (process, client):
        process.kill()
        process.wait(10)
        with contextlib.suppress(psutil.NoSuchProcess):
            client.wait(10)
        assert not client.is_running()
    requests = decode(tmp_path, meta(50), None).requests
    assert sum(r.error_kind is None for r in requests) >= 18
    assert '"stop_reason": "parent gone"' in (tmp_path / "result.json").read_text()


def test_ctrl_c_leaves_a_whole_spool(tmp_path):
    with serving(answer(tokens=1, ttft_s=0.01)) as server, parent(server, tmp_path) as (process, client):
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert b"KeyboardInterrupt" in errors
        assert not client.is_running()
    requests = decode(tmp_path, meta(50), None).requests
    assert sum(r.error_kind is None for r in requests) >= 18
    assert {r.error_kind for r in requests} <= {None, "cancelled"}
    assert '"stop_reason": "interrupted"' in (tmp_path / "result.json").read_text()


def test_a_killed_client_is_an_error_and_its_spool_is_kept(tmp_path):
    def kill(progress: DriveProgress) -> None:
        if progress.done >= 5:
            clients_below()[0].kill()

    with serving(answer(tokens=1, ttft_s=0.01)) as server, pytest.raises(LoadError, match="the load client failed"):
        drive(server.endpoint, "/completions", bodies(5), plan(cohort_min=10**6), tmp_path, kill)
    ends = [record for record in spool.read(tmp_path / spool.NAME) if record[0] == spool.END]
    assert len(ends) >= 5


def test_nothing_to_send_and_a_name_that_does_not_resolve(tmp_path):
    from profiler.records import Endpoint

    with pytest.raises(LoadError, match="no requests"):
        drive(Endpoint("127.0.0.1", 9, "m"), "/x", [], plan(), tmp_path)
    with pytest.raises(LoadError, match="cannot resolve"):
        drive(Endpoint("host.invalid", 9, "m"), "/x", bodies(1), plan(), tmp_path)
    with pytest.raises(LoadError, match="circle"):
        drive(Endpoint("127.0.0.1", 9, "m"), "/x", bodies(2), plan(parents=((1,), (0,))), tmp_path)

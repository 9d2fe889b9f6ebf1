"""The hot path: send when it is time, stamp what arrives, keep the bytes. One poll loop, one thread, nothing decoded.

Standard library only. Two loads: a closed loop (each slot sends its next request when its answer ended) and an open loop (request i is
sent at its scheduled time whatever the server does). docs/faults.md says what each fault does to the load.
"""

from __future__ import annotations

import resource
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiler.records import Endpoint, LoadPlan
from profiler.run import poller, spool
from profiler.run.clocks import clock_offset_ns
from profiler.run.connection import Connection, ConnectionLost
from profiler.run.poller import READ, WRITE
from profiler.run.schedule import NEVER, Chain, Schedule
from profiler.run.window import BUDGET_SPENT, Window
from profiler.units import NS_PER_S

TICK_NS = 100_000_000  # time-outs, progress and clock samples; everything else is event-driven
BACKOFF_NS = 100_000_000  # before a slot tries again after a failure
GONE_AFTER = 20  # failed connections in a row, with nothing in flight: the server is gone
HOPELESS_AFTER = 50  # ended requests without one answer: nothing is to be measured here
BUSY = (429, 503)  # the statuses whose Retry-After a slot obeys


@dataclass(slots=True)
class Flight:
    """A request that was due and has not ended."""

    body: int  # index of its request bytes
    to: int  # index of its peer
    intended_ns: int
    deadline_ns: int
    chain: Chain | None
    connection: Connection | None = None
    tried_again: bool = False


@dataclass(frozen=True)
class Usage:
    """What the process has used so far."""

    cpu_s: float
    voluntary: int  # context switches
    involuntary: int

    @classmethod
    def now(cls) -> Usage:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.process_time(), used.ru_nvcsw, used.ru_nivcsw)


@dataclass(frozen=True)
class Peer:
    """One server, the address to connect to, and the bytes before each request (b"" where the requests are whole)."""

    endpoint: Endpoint
    family: int
    address: tuple[object, ...]
    head: bytes = b""


class Loop:
    """Offers one load. `requests` are complete HTTP requests; they are used in order, and again from the start when they run out.

    With several `peers` the k-th root, and all that waits for it, goes to peer k mod N. What differs between peers (request line and
    host) is then in their `head` and left out of the requests.

    `command` is a descriptor and what to call when it is readable: the parent's word. `share` and `led` are for several clients that
    offer one load together (see Schedule and Window); `start_ns` is then their common start.
    """

    def __init__(
        self,
        peers: Sequence[Peer],
        requests: Sequence[bytes],
        plan: LoadPlan,
        writer: spool.Writer,
        command: tuple[int, Callable[[Loop], None]] | None,
        on_tick: Callable[[Loop], None],
        *,
        share: tuple[int, int] = (0, 1),
        led: bool = False,
        told: bool = False,
        start_ns: int | None = None,
    ) -> None:
        self.plan = plan
        self.errors = 0
        self.ended = 0
        self.answered = 0
        self.kernel_stamps = True
        self.stop_reason: str | None = None
        self.clock_samples: list[tuple[int, int]] = []
        self.usage_open: Usage | None = None
        self.usage_close: Usage | None = None
        self.started_ns = start_ns if start_ns is not None else time.monotonic_ns()
        self.window = Window(plan, self.started_ns, led, told)
        self.schedule = Schedule(plan, len(requests), self.started_ns, share)
        self._peers = peers
        self._tls = ssl.create_default_context() if any(peer.endpoint.tls for peer in peers) else None
        self._requests = requests
        self._spool = writer
        self._command = command
        self._led = led
        self._on_tick = on_tick
        self._poller = poller.make()
        self._by_fd: dict[int, Connection] = {}
        self._idle: list[list[Connection]] = [[] for _ in peers]
        self._in_flight: dict[int, Flight] = {}  # in the order of their deadlines
        self._timeout_ns = int(plan.request_timeout_s * NS_PER_S)
        # A schedule that ends before the window does (a trace whose slice ends quietly) leaves the window its length.
        self._least_ns = self.started_ns + int((plan.warmup_s + plan.window_min_s) * NS_PER_S) if plan.kind == "rate" else 0
        self._last_ns = self.started_ns + int(plan.cell_timeout_s * NS_PER_S) + 2 * TICK_NS
        self._seq = 0
        self._lost_in_row = [0] * len(peers)
        self._noted: tuple[int | None, int | None] = (None, None)  # what the spool knows of the window

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def run(self) -> Window:
        """Until the cohort is complete, the server is gone, or `stop_reason` is set from outside. Returns the window."""
        command_fd, obey = self._command or (-1, lambda loop: None)
        if self._command is not None:
            self._poller.watch(command_fd, READ)
        schedule, window, by_fd = self.schedule, self.window, self._by_fd
        poll, monotonic_ns = self._poller.poll, time.monotonic_ns
        next_tick = 0
        while True:
            now = monotonic_ns()
            while schedule.next_ns <= now:
                self._send_next()
            if now >= next_tick:
                next_tick = now + TICK_NS
                self._tick(now)
            if now >= window.look_ns:
                self._mark_window(now)
            if self.stop_reason is not None:
                break
            for fd, mask in poll(min(schedule.next_ns, next_tick, window.look_ns)):
                connection = by_fd.get(fd)
                if connection is not None:
                    self._on_event(connection, mask)
                elif fd == command_fd:
                    obey(self)
        self._finish()
        return window

    def _mark_window(self, now: int) -> None:
        window = self.window
        window.tick(now)
        if self._noted != (now_known := (window.open_ns, window.close_ns)):
            self._noted = now_known
            self._spool.add(spool.WINDOW, 0, window.open_ns or 0, window.close_ns or 0)
        if self.usage_open is None and window.open_ns is not None and now >= window.open_ns:
            self.usage_open = Usage.now()
        if self.usage_close is None and window.close_ns is not None:
            self.usage_close = Usage.now()
        if window.over and self.stop_reason is None:
            self.stop_reason = window.close_reason or BUDGET_SPENT

    def _send_next(self) -> None:
        seq, self._seq = self._seq, self._seq + 1
        intended, body, chain = self.schedule.take()
        self.window.sent_one(seq, intended)
        to = self.schedule.root % len(self._peers)
        self._in_flight[seq] = Flight(body, to, intended, time.monotonic_ns() + self._timeout_ns, chain)
        self._give(seq)

    def _give(self, seq: int, fresh: bool = False) -> None:
        """Send over an idle connection, else (or if it is to be `fresh`) over a new one as soon as it is connected."""
        to = self._in_flight[seq].to
        idle = self._idle[to]
        if idle and not fresh:
            self._send(idle.pop(), seq)
            return
        peer = self._peers[to]
        try:
            connection = Connection(peer.address, peer.family, self._tls if peer.endpoint.tls else None, peer.endpoint.host, to)
        except ConnectionLost as error:
            self._fail(seq, error.kind, str(error), sent=False)
            return
        self.kernel_stamps &= connection.kernel_stamps
        self._by_fd[connection.fileno()] = connection
        self._poller.watch(connection.fileno(), READ | WRITE)
        connection.seq = seq
        self._in_flight[seq].connection = connection

    def _send(self, connection: Connection, seq: int) -> None:
        flight = self._in_flight[seq]
        flight.connection = connection
        to = flight.to
        head, request = self._peers[to].head, self._requests[flight.body]
        sent = connection.send(seq, head + request if head else request)
        self._spool.add(spool.SENT, seq, flight.intended_ns, sent, spool.SENT_PAYLOAD.pack(flight.body, connection.used | to << 1))
        if not connection.flush():
            self._poller.change(connection.fileno(), READ | WRITE)

    def _on_event(self, connection: Connection, mask: int) -> None:
        try:
            if not connection.connected:
                connection.finish_connect()
                self._lost_in_row[connection.to] = 0
            if mask & WRITE and connection.flush():
                self._poller.change(connection.fileno(), READ)
            if mask & ~WRITE:  # hang-ups and errors are learnt by reading
                self._read(connection)
            if not connection.sent and connection.seq is not None and connection.ready:
                self._send(connection, connection.seq)
        except ConnectionLost as error:
            self._lost(connection, error.kind, str(error))

    def _read(self, connection: Connection) -> None:
        got = connection.read()
        if got is None:
            return
        data, stamp, closed = got
        now = time.monotonic_ns()
        seq = connection.seq
        if seq is None:
            if closed or data:  # the server ends an idle connection, or says what nobody asked for
                self._drop(connection)
        elif data:
            self._spool.add(spool.READ, seq, stamp, now, data)
            if connection.framing.feed(data):
                self._complete(connection, seq, now)
        elif closed:
            self._spool.add(spool.EOF, seq, 0, now)
            if connection.framing.until_eof:
                self._complete(connection, seq, now)
            else:
                self._lost(connection, "reset", "the server closed the connection")

    def _complete(self, connection: Connection, seq: int, now: int) -> None:
        self._spool.add(spool.END, seq, 0, now)
        framing = connection.framing
        connection.seq = None
        connection.used = True
        if connection.reusable:
            self._idle[connection.to].append(connection)
        else:
            self._drop(connection)
        if framing.status == 200:
            self.answered += 1
            self._ended(seq, now, answered=True)
        else:
            self.errors += 1
            pause_ns = BACKOFF_NS
            if framing.status in BUSY and framing.retry_after_s is not None:
                pause_ns = min(int(framing.retry_after_s * NS_PER_S), self._timeout_ns)
            self._ended(seq, now, answered=False, pause_ns=pause_ns)

    def _ended(self, seq: int, now: int, answered: bool, pause_ns: int = 0) -> None:
        flight = self._in_flight.pop(seq)
        self.ended += 1
        self.window.ended_one(seq)
        self.schedule.ended(flight.body, flight.chain, now, answered, pause_ns)

    def _lost(self, connection: Connection, kind: str, message: str) -> None:
        seq = connection.seq
        self._drop(connection)
        if seq is None:
            return  # an idle keep-alive connection that the server closed
        flight = self._in_flight[seq]
        if connection.used and not connection.framing.started and not flight.tried_again:
            # The server closed a kept-alive connection while our request was under way: no answer to the request (RFC 9112, 9.3.1).
            flight.tried_again = True
            self._give(seq, fresh=True)
        elif connection.send_error and not connection.framing.started:
            self._fail(seq, "send", connection.send_error, connection.sent)
        else:
            self._fail(seq, kind, message, connection.sent)

    def _fail(self, seq: int, kind: str, message: str, sent: bool) -> None:
        now = time.monotonic_ns()
        self._note_end(seq, f"{kind}: {message}", now, sent)
        self.errors += 1
        self._lost_in_row[self._in_flight[seq].to] += kind == "connect"
        self._ended(seq, now, answered=False, pause_ns=BACKOFF_NS)

    def _note_end(self, seq: int, what: str, now: int, sent: bool) -> None:
        if not sent:  # a request that never got out is a request all the same
            flight = self._in_flight[seq]
            self._spool.add(spool.SENT, seq, flight.intended_ns, 0, spool.SENT_PAYLOAD.pack(flight.body, flight.to << 1))
        self._spool.add(spool.ERROR, seq, 0, now, what.encode())

    def _drop(self, connection: Connection) -> None:
        fd = connection.fileno()
        self._by_fd.pop(fd, None)
        idle = self._idle[connection.to]
        if connection in idle:
            idle.remove(connection)
        self._poller.forget(fd)
        connection.close()
        connection.seq = None  # connected and closed in one event: nothing may be sent on it any more

    def _tick(self, now: int) -> None:
        self._compare_clocks()
        self._spool.flush()
        self._time_out(now)
        if self._gone():
            self.stop_reason = "server gone"
        elif self.errors >= HOPELESS_AFTER and self.answered == 0:
            self.stop_reason = "no request was answered"
        elif self.schedule.next_ns == NEVER and not self._in_flight and now >= self._least_ns and not self._led:
            # With a leader others of the clients may still send.
            self.stop_reason = "schedule ended"
        elif now >= self._last_ns:
            self.stop_reason = "cell time spent"
        self._on_tick(self)

    def _gone(self) -> bool:
        """Whether one of the servers refuses every connection and answers nothing any more."""
        most = max(GONE_AFTER, int(self.plan.load) // len(self._peers))
        return any(
            lost >= most and not any(c.connected and c.seq is not None and c.to == to for c in self._by_fd.values())
            for to, lost in enumerate(self._lost_in_row)
        )

    def _compare_clocks(self) -> None:
        at_ns, offset_ns = clock_offset_ns()
        self.clock_samples.append((at_ns, offset_ns))
        self._spool.add(spool.CLOCK, 0, offset_ns, at_ns)

    def _time_out(self, now: int) -> None:
        late = []
        for seq, flight in self._in_flight.items():
            if flight.deadline_ns > now:
                break
            late.append((seq, flight.connection))
        for seq, connection in late:
            assert connection is not None
            kind = "stalled" if connection.framing.started else "timeout" if connection.connected else "connect"
            self._drop(connection)
            self._fail(seq, kind, f"not complete after {self.plan.request_timeout_s:g} s", connection.sent)

    def _finish(self) -> None:
        """What is in flight is cancelled; only requests outside the cohort are, unless the run was stopped from outside."""
        now = time.monotonic_ns()
        if self.window.open_ns is not None and self.window.close_ns is None:
            self.window.close_ns = now
        self.usage_close = self.usage_close or Usage.now()
        for connection in self._by_fd.values():
            if connection.seq is not None:
                self._note_end(connection.seq, "cancelled: the run was over", now, connection.sent)
            connection.close()
        self._compare_clocks()
        self._spool.close()
        self.ended_ns = now

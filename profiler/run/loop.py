"""The hot path: send when it is time, stamp what arrives, keep the bytes. One epoll loop, one thread, nothing decoded.

Standard library only. Two loads: a closed loop (each slot sends its next request when its answer ended) and an open loop (request i is
sent at its scheduled time whatever the server does).
"""

from __future__ import annotations

import heapq
import os
import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiler.records import Endpoint, LoadPlan
from profiler.run import spool
from profiler.run.clocks import Timer, clock_offset_ns
from profiler.run.connection import Connection, ConnectionLost
from profiler.run.window import Window
from profiler.units import NS_PER_S

TICK_NS = 100_000_000  # time-outs, progress and clock samples; everything else is event-driven
BACKOFF_NS = 100_000_000  # before a slot tries again after a failed connection
GONE_AFTER = 20  # failed connections in a row, with nothing in flight: the server is gone
HOPELESS_AFTER = 50  # ended requests without one answer: nothing is to be measured here

IN = select.EPOLLIN | select.EPOLLRDHUP
IN_OUT = IN | select.EPOLLOUT


@dataclass(slots=True)
class Flight:
    """A request that was due and has not ended."""

    body: int  # index of its request bytes
    intended_ns: int
    deadline_ns: int
    tried_again: bool = False


class Loop:
    """Offers one load. `requests` are complete HTTP requests; they are used in order, and again from the start when they run out."""

    def __init__(
        self,
        endpoint: Endpoint,
        address: tuple[object, ...],
        family: int,
        requests: Sequence[bytes],
        plan: LoadPlan,
        writer: spool.Writer,
        lifeline: int | None,
        on_tick: Callable[[Loop], None],
    ) -> None:
        self.plan = plan
        self.errors = 0
        self.ended = 0
        self.answered = 0
        self.repeated = 0
        self.kernel_stamps = True
        self.stop_reason: str | None = None
        self.clock_samples: list[tuple[int, int]] = []
        self.cpu_open_s: float | None = None
        self.cpu_close_s: float | None = None
        self._endpoint, self._address, self._family = endpoint, address, family
        self._tls = ssl.create_default_context() if endpoint.tls else None
        self._requests = requests
        self._spool = writer
        self._lifeline = lifeline
        self._on_tick = on_tick
        self._epoll = select.epoll()
        self._timer = Timer()
        self._by_fd: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._in_flight: dict[int, Flight] = {}
        self._due: list[int] | deque[int] = []  # intended times: a heap (closed loop) or the schedule (open loop)
        self._seq = 0
        self._lost_in_row = 0

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def run(self) -> Window:
        """Until the cohort is complete, the server is gone, or `stop_reason` is set from outside. Returns the window."""
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        if self._lifeline is not None:
            self._epoll.register(self._lifeline, select.EPOLLIN | select.EPOLLHUP)
        start = time.monotonic_ns()
        self.started_ns = start
        self.window = window = Window(self.plan, start)
        if self.plan.kind == "concurrency":
            self._due = [start] * int(self.plan.load)
        else:
            self._due = deque(start + offset for offset in self.plan.offsets_ns)
        next_tick = start
        while self.stop_reason is None:
            now = time.monotonic_ns()
            while self._due and self._due[0] <= now:
                self._send_next(heapq.heappop(self._due) if isinstance(self._due, list) else self._due.popleft())
            if now >= next_tick:
                next_tick = now + TICK_NS
                self._tick(now)
            self._mark_window(now)
            if window.over:
                self.stop_reason = "cohort complete" if window.cohort_sent >= self.plan.cohort_min else "window budget spent"
                break
            wake = min(self._due[0], next_tick) if self._due else next_tick
            self._timer.set(wake)
            for fd, mask in self._epoll.poll():
                if fd == self._timer.fd:
                    self._timer.clear()
                elif fd == self._lifeline:
                    if not os.read(fd, 64):
                        self.stop_reason = "parent gone"
                elif fd in self._by_fd:
                    self._on_event(self._by_fd[fd], mask)
        self._finish()
        return window

    def _mark_window(self, now: int) -> None:
        window = self.window
        window.tick(now)
        if self.cpu_open_s is None and window.open_ns is not None and now >= window.open_ns:
            self.cpu_open_s = time.process_time()
        if self.cpu_close_s is None and window.close_ns is not None:
            self.cpu_close_s = time.process_time()

    def _send_next(self, intended: int) -> None:
        seq, self._seq = self._seq, self._seq + 1
        index = seq % len(self._requests)
        self.repeated += seq >= len(self._requests)
        self.window.sent_one(seq, intended)
        self._in_flight[seq] = Flight(index, intended, time.monotonic_ns() + int(self.plan.request_timeout_s * NS_PER_S))
        self._give(seq)

    def _give(self, seq: int) -> None:
        """Send over an idle connection, else over a new one as soon as it is connected."""
        if self._idle:
            self._send(self._idle.pop(), seq)
            return
        try:
            connection = Connection(self._address, self._family, self._tls, self._endpoint.host)
        except ConnectionLost as error:
            self._fail(seq, error.kind, str(error), sent=False)
            return
        self.kernel_stamps &= connection.kernel_stamps
        self._by_fd[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), IN_OUT)
        connection.seq = seq

    def _send(self, connection: Connection, seq: int) -> None:
        flight = self._in_flight[seq]
        try:
            sent = connection.send(seq, self._requests[flight.body])
            self._spool.add(spool.SENT, seq, flight.intended_ns, sent, spool.SENT_PAYLOAD.pack(flight.body, connection.used))
            if not connection.flush():
                self._epoll.modify(connection.fileno(), IN_OUT)
        except ConnectionLost as error:
            self._lost(connection, error.kind, str(error))

    def _on_event(self, connection: Connection, mask: int) -> None:
        fd = connection.fileno()
        try:
            if not connection.connected:
                connection.finish_connect()
                self._lost_in_row = 0
            if mask & select.EPOLLOUT and connection.flush():
                self._epoll.modify(fd, IN)
            if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLERR):
                self._read(connection)
            if connection.ready and not connection.sent and connection.seq is not None:
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
        if data and seq is not None:
            self._spool.add(spool.READ, seq, stamp, now, data)
            if connection.framing.feed(data):
                self._complete(connection, seq, now)
        elif closed:
            if seq is not None:
                self._spool.add(spool.EOF, seq, 0, now)
            if seq is not None and connection.framing.started and connection.framing.close:
                self._complete(connection, seq, now)
            else:
                self._lost(connection, "reset", "the server closed the connection")

    def _complete(self, connection: Connection, seq: int, now: int) -> None:
        self._spool.add(spool.END, seq, 0, now)
        self.answered += 1
        connection.seq = None
        connection.used = True
        if connection.framing.close:
            self._drop(connection)
        else:
            self._idle.append(connection)
        self._ended(seq, now + int(self.plan.think_s * NS_PER_S))

    def _ended(self, seq: int, next_intended: int) -> None:
        self._in_flight.pop(seq, None)
        self.ended += 1
        self.window.ended_one(seq)
        if isinstance(self._due, list):
            heapq.heappush(self._due, next_intended)

    def _lost(self, connection: Connection, kind: str, message: str) -> None:
        seq = connection.seq
        self._drop(connection)
        if seq is None or seq not in self._in_flight:
            return  # an idle keep-alive connection that the server closed
        flight = self._in_flight[seq]
        if connection.used and not connection.framing.started and not flight.tried_again:
            # The server closed a kept-alive connection while our request was under way: no answer to the request (RFC 9112, 9.3.1).
            flight.tried_again = True
            self._give(seq)
        else:
            self._fail(seq, kind, message, connection.sent)

    def _fail(self, seq: int, kind: str, message: str, sent: bool) -> None:
        now = time.monotonic_ns()
        self._note_end(seq, f"{kind}: {message}", now, sent)
        self.errors += 1
        self._lost_in_row += kind == "connect"
        self._ended(seq, now + BACKOFF_NS)

    def _note_end(self, seq: int, what: str, now: int, sent: bool) -> None:
        if not sent:  # a request that never got out is a request all the same
            flight = self._in_flight[seq]
            self._spool.add(spool.SENT, seq, flight.intended_ns, 0, spool.SENT_PAYLOAD.pack(flight.body, 0))
        self._spool.add(spool.ERROR, seq, 0, now, what.encode())

    def _drop(self, connection: Connection) -> None:
        fd = connection.fileno()
        self._by_fd.pop(fd, None)
        if connection in self._idle:
            self._idle.remove(connection)
        self._epoll.unregister(fd)
        connection.close()

    def _tick(self, now: int) -> None:
        self.clock_samples.append(clock_offset_ns())
        for connection in list(self._by_fd.values()):
            seq = connection.seq
            if seq is not None and seq in self._in_flight and self._in_flight[seq].deadline_ns <= now:
                self._drop(connection)
                kind = "stalled" if connection.framing.started else "timeout"
                self._fail(seq, kind, f"not complete after {self.plan.request_timeout_s:g} s", connection.sent)
        if self._lost_in_row >= max(GONE_AFTER, int(self.plan.load)) and not any(
            c.connected and c.seq is not None for c in self._by_fd.values()
        ):
            self.stop_reason = "server gone"
        elif self.errors >= HOPELESS_AFTER and self.answered == 0:
            self.stop_reason = "no request was answered"
        elif self.plan.kind == "rate" and not self._due and not self._in_flight:
            self.stop_reason = "schedule ended"
        self._on_tick(self)

    def _finish(self) -> None:
        """What is in flight is cancelled; only requests outside the cohort are, unless the run was stopped from outside."""
        now = time.monotonic_ns()
        if self.window.open_ns is not None and self.window.close_ns is None:
            self.window.close_ns = now
            self.cpu_close_s = time.process_time()
        for connection in self._by_fd.values():
            if connection.seq in self._in_flight:
                self._note_end(connection.seq, "cancelled: the run was over", now, connection.sent)
            connection.close()
        self.clock_samples.append(clock_offset_ns())
        self._spool.close()
        self.ended_ns = now

"""Waiting for sockets and for a point in time, whichever comes first: epoll with a timerfd, or what the platform has.

Standard library only. The masks are epoll's: READ, WRITE; anything else in a mask (hang-up, error) wants a read too.
"""

from __future__ import annotations

import select
import selectors
import time
from typing import Protocol

from profiler.run.clocks import Timer, portable

READ, WRITE = 1, 4


class Poller(Protocol):
    def watch(self, fd: int, mask: int) -> None: ...
    def change(self, fd: int, mask: int) -> None: ...
    def forget(self, fd: int) -> None: ...
    def poll(self, until_ns: int) -> list[tuple[int, int]]:
        """(fd, mask) of what is ready; may be empty, at the latest at CLOCK_MONOTONIC `until_ns`. Unknown descriptors are to be ignored."""
        ...


class EpollPoller:
    """Late by tens of microseconds, where epoll's own time-outs are whole milliseconds."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._timer = Timer()
        self._armed_ns = 0
        # Edge-triggered: an expiry wakes once and need not be read away; setting it anew makes the next edge.
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)

    def watch(self, fd: int, mask: int) -> None:
        self._epoll.register(fd, mask | select.EPOLLRDHUP)

    def change(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask | select.EPOLLRDHUP)

    def forget(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def poll(self, until_ns: int) -> list[tuple[int, int]]:
        if until_ns != self._armed_ns:
            self._armed_ns = until_ns
            self._timer.set(until_ns)
        return self._epoll.poll()


class SelectorPoller:
    """kqueue on macOS; as exact as the platform's time-outs are."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, fd: int, mask: int) -> None:
        self._selector.register(fd, _events(mask))

    def change(self, fd: int, mask: int) -> None:
        self._selector.modify(fd, _events(mask))

    def forget(self, fd: int) -> None:
        self._selector.unregister(fd)

    def poll(self, until_ns: int) -> list[tuple[int, int]]:
        timeout_s = max(0, until_ns - time.monotonic_ns()) / 1e9
        return [
            (key.fd, READ * bool(events & selectors.EVENT_READ) | WRITE * bool(events & selectors.EVENT_WRITE))
            for key, events in self._selector.select(timeout_s)
        ]


def make() -> Poller:
    return SelectorPoller() if portable() else EpollPoller()


def _events(mask: int) -> int:
    return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)

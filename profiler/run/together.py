"""One measuring window for several loads that are offered at the same time, each by a `drive` of its own in a thread of its own.

The window opens once all loads are warm, closes once each has its cohort, and every load goes on until the last request of all cohorts
has ended: what is measured together is measured beside the others from its first request to its last.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.errors import LoadError
from profiler.records import LoadPlan
from profiler.run.clients import DriveProgress
from profiler.run.window import BUDGET_SPENT, COHORT_COMPLETE
from profiler.units import NS_PER_S

LEAD_NS = 500_000_000  # how far ahead a window is opened or closed: five of the clients' ticks, each hears of it at its next one
PREPARE_S = 600.0  # for the prompts of the slowest


class Together:
    """What `members` loads share. Any of them may `stop` all."""

    def __init__(self, members: int) -> None:
        self.members = members
        self.lock = threading.Lock()
        self.barrier = threading.Barrier(members, timeout=PREPARE_S)
        self.warm: set[int] = set()
        self.full: set[int] = set()
        self.drained: set[int] = set()
        self.open_ns: int | None = None
        self.close_ns: int | None = None
        self.reason: str | None = None
        self.stopped: str | None = None

    def stop(self, reason: str) -> None:
        """End all of them at their next word."""
        with self.lock:
            self.stopped = self.stopped or reason
        self.barrier.abort()


@dataclass(frozen=True)
class Beside:
    """One member's view: its number, and the server processes of the others."""

    shared: Together
    number: int
    pids: Sequence[int] = ()

    def ready(self) -> None:
        """Wait until all have their requests prepared. Raises LoadError when one of them failed."""
        try:
            self.shared.barrier.wait()
        except threading.BrokenBarrierError:
            raise LoadError(f"not measured: {self.shared.stopped or 'what should run beside it was not ready'}") from None

    def lead(self, plan: LoadPlan, started_ns: int) -> SharedLeader:
        return SharedLeader(self.shared, self.number, plan, started_ns)


class SharedLeader:
    """A `Leading` for one member, by the rules of LoadPlan; what decides is that the rule holds for all members."""

    def __init__(self, shared: Together, number: int, plan: LoadPlan, started_ns: int) -> None:
        self.reason: str | None = None
        self._shared, self._number, self._plan = shared, number, plan
        self._warm_ns = started_ns + int(plan.warmup_s * NS_PER_S)
        self._patience_ns = self._warm_ns + int(plan.request_timeout_s * NS_PER_S)
        self._said = 0  # commands: open, close, stop

    def ask_to_close(self) -> None:
        """Nobody closes a shared window for itself."""

    def decide(self, now_ns: int, told: DriveProgress, drained: bool) -> str | None:
        """The command that is due for this member, if any."""
        shared = self._shared
        with shared.lock:
            if shared.stopped is not None:
                self.reason = shared.stopped
                return f"stop {shared.stopped}"
            self._report(now_ns, told, drained)
            if self._said == 0 and shared.open_ns is not None:
                self._said = 1
                return f"open {shared.open_ns}"
            if self._said == 1 and shared.close_ns is not None:
                self._said, self.reason = 2, shared.reason
                return f"close {shared.close_ns} {shared.reason}"
            if self._said == 2 and len(shared.drained) == shared.members:
                self._said = 3
                return f"stop {shared.reason}"
        return None

    def _report(self, now_ns: int, told: DriveProgress, drained: bool) -> None:
        shared, plan, me = self._shared, self._plan, self._number
        if (now_ns >= self._warm_ns and told.done >= plan.warmup_requests) or now_ns >= self._patience_ns:
            shared.warm.add(me)
        if self._said == 1 and told.cohort_sent >= plan.cohort_min:
            shared.full.add(me)
        if self._said == 2 and drained:
            shared.drained.add(me)
        ahead = now_ns + LEAD_NS
        if shared.open_ns is None:
            if len(shared.warm) == shared.members:
                shared.open_ns = ahead
        elif shared.close_ns is None:
            least, most = (shared.open_ns + int(length_s * NS_PER_S) for length_s in (plan.window_min_s, plan.window_max_s))
            if len(shared.full) == shared.members:
                shared.close_ns, shared.reason = max(ahead, least), COHORT_COMPLETE
            elif ahead >= most:
                shared.close_ns, shared.reason = ahead, BUDGET_SPENT

"""When the window opens and closes, and who is in the cohort. Pure bookkeeping; the rules are those of LoadPlan and docs/measuring.md."""

from __future__ import annotations

from profiler.records import LoadPlan
from profiler.units import NS_PER_S


class Window:
    """Told of sends and ends in the order they happen; times are CLOCK_MONOTONIC ns."""

    def __init__(self, plan: LoadPlan, started_ns: int) -> None:
        self._plan = plan
        self._warm_ns = started_ns + int(plan.warmup_s * NS_PER_S)
        # A warm-up whose requests hang must not wait for ever.
        self._patience_ns = self._warm_ns + int(plan.request_timeout_s * NS_PER_S)
        self._warm_done = 0
        self._cohort: set[int] = set()
        self.open_ns: int | None = None
        self.close_ns: int | None = None
        self.sent = 0
        self.cohort_sent = 0
        self.cohort_done = 0
        if plan.kind == "rate":
            self.open_ns = self._warm_ns  # an open loop knows its times beforehand

    @property
    def phase(self) -> str:
        return "warm-up" if self.open_ns is None or not self.cohort_sent else "window" if self.close_ns is None else "drain"

    @property
    def over(self) -> bool:
        """The window is closed and every request of its cohort has ended."""
        return self.close_ns is not None and self.cohort_done == self.cohort_sent

    def sent_one(self, seq: int, intended_ns: int) -> None:
        self.sent += 1
        if self.open_ns is not None and intended_ns >= self.open_ns and (self.close_ns is None or intended_ns < self.close_ns):
            self._cohort.add(seq)
            self.cohort_sent += 1

    def ended_one(self, seq: int) -> None:
        self._warm_done += 1
        if seq in self._cohort:
            self._cohort.discard(seq)
            self.cohort_done += 1

    def tick(self, now_ns: int) -> None:
        """Open or close if it is time. Every request intended before `now_ns` must have been announced."""
        plan = self._plan
        if self.open_ns is None:
            warm = now_ns >= self._warm_ns and self._warm_done >= plan.warmup_requests
            if warm or now_ns >= self._patience_ns:
                self.open_ns = now_ns
            return
        if self.close_ns is None:
            length_s = (now_ns - self.open_ns) / NS_PER_S
            enough = length_s >= plan.window_min_s and self.cohort_sent >= plan.cohort_min
            if enough or length_s >= plan.window_max_s:
                self.close_ns = now_ns

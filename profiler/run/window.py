"""When the window opens and closes, and who is in the cohort. Pure bookkeeping; the rules are those of LoadPlan and docs/measuring.md."""

from __future__ import annotations

from profiler.records import LoadPlan
from profiler.run.schedule import NEVER
from profiler.units import NS_PER_S

COHORT_COMPLETE, BUDGET_SPENT, PRECISE_ENOUGH = "cohort complete", "window budget spent", "precise enough"


class Window:
    """Told of sends and ends in the order they happen; times are CLOCK_MONOTONIC ns.

    `look_ns`: no rule can fire before it, so that the loop need not ask. `led`: another process opens and closes this window, by
    `open_at` and `close_at`, because several clients share it. `told`: an open loop's as well, which else opens by its own clock.
    """

    def __init__(self, plan: LoadPlan, started_ns: int, led: bool = False, told: bool = False) -> None:
        self._plan = plan
        self._led = led
        self._warm_ns = started_ns + int(plan.warmup_s * NS_PER_S)
        # A warm-up whose requests hang must not wait for ever.
        self._patience_ns = self._warm_ns + int(plan.request_timeout_s * NS_PER_S)
        self._warm_done = 0
        self._cohort: dict[int, int] = {}  # seq -> intended
        self._asked = False  # somebody has seen enough
        self._close_at = NEVER
        self.open_ns: int | None = None
        self.close_ns: int | None = None
        self.close_reason: str | None = None
        self.sent = 0
        self.cohort_sent = 0
        self.cohort_done = 0
        self.look_ns = 0
        if plan.kind == "rate" and not told:
            self.open_ns = self._warm_ns  # an open loop knows its times beforehand

    @property
    def phase(self) -> str:
        if self.close_ns is not None:
            return "drain"
        return "window" if self.open_ns is not None and self.cohort_sent else "warm-up"

    @property
    def over(self) -> bool:
        """The window is closed and every request of its cohort has ended. A led window is over when its leader says so."""
        return not self._led and self.close_ns is not None and self.cohort_done == self.cohort_sent

    def sent_one(self, seq: int, intended_ns: int) -> None:
        self.sent += 1
        self.look_ns = 0
        if self.open_ns is not None and intended_ns >= self.open_ns and (self.close_ns is None or intended_ns < self.close_ns):
            self._cohort[seq] = intended_ns
            self.cohort_sent += 1

    def ended_one(self, seq: int) -> None:
        self._warm_done += 1
        self.look_ns = 0
        if self._cohort.pop(seq, None) is not None:
            self.cohort_done += 1

    def ask_to_close(self) -> None:
        """What was measured is precise enough: close as soon as the window has its least length."""
        self._asked = True
        self.look_ns = 0

    def open_at(self, at_ns: int) -> None:
        """The leader's word: open at `at_ns`, which should lie ahead."""
        self.open_ns = at_ns
        self.look_ns = 0

    def close_at(self, at_ns: int, reason: str) -> None:
        """The leader's word: close at `at_ns`, which should lie ahead."""
        self._close_at, self.close_reason = at_ns, reason
        self.look_ns = 0

    def tick(self, now_ns: int) -> None:
        """Open or close if it is time. Every request intended before `now_ns` must have been announced."""
        if self.open_ns is None and not self._led:
            self._open_if_warm(now_ns)
        elif self.open_ns is not None and self.close_ns is None:
            self._close_if_due(now_ns)
        self.look_ns = self._next_look(now_ns)

    def _open_if_warm(self, now_ns: int) -> None:
        warm = now_ns >= self._warm_ns and self._warm_done >= self._plan.warmup_requests
        if warm or now_ns >= self._patience_ns:
            self.open_ns = now_ns

    def _close_if_due(self, now_ns: int) -> None:
        if self._led:
            if now_ns >= self._close_at:
                self._close(self._close_at)
            return
        assert self.open_ns is not None
        plan = self._plan
        length_s = (now_ns - self.open_ns) / NS_PER_S
        if length_s >= plan.window_min_s and self.cohort_sent >= plan.cohort_min:
            self.close_reason = COHORT_COMPLETE
        elif length_s >= plan.window_min_s and self._asked:
            self.close_reason = PRECISE_ENOUGH
        elif length_s >= plan.window_max_s:
            self.close_reason = BUDGET_SPENT
        else:
            return
        self._close(self.open_ns + int(plan.window_max_s * NS_PER_S) if self.close_reason == BUDGET_SPENT else now_ns)

    def _close(self, at_ns: int) -> None:
        """Close at a time that may lie a little back: what was intended after it and counted already is not of the cohort."""
        self.close_ns = at_ns
        late = [seq for seq, intended_ns in self._cohort.items() if intended_ns >= at_ns]
        for seq in late:
            del self._cohort[seq]
        self.cohort_sent -= len(late)

    def _next_look(self, now_ns: int) -> int:
        if self.close_ns is not None:
            return NEVER
        if self.open_ns is not None and now_ns < self.open_ns:
            return self.open_ns
        if self._led:
            return self._close_at
        if self.open_ns is None:
            return self._warm_ns if self._warm_done >= self._plan.warmup_requests else self._patience_ns
        if self._asked or self.cohort_sent >= self._plan.cohort_min:
            return self.open_ns + int(self._plan.window_min_s * NS_PER_S)
        return self.open_ns + int(self._plan.window_max_s * NS_PER_S)

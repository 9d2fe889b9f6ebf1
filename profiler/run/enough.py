"""When has a run seen enough? A fixed number of looks at the cohort so far, at sizes that double, and what the caller's rule says of it.

A look decodes the first n requests of the cohort once all of them have ended, in a thread of the parent at nice +10. Where the kernel
groups sessions (sched_autogroup) that weighs only within the parent's own, so a look must be cheap as well: about 10 µs of one core for
each token, and looks double, so that all of them together decode a run less than twice. What is decided, and at which level, is the caller's: every look spends an equal share of the error
(profiler.analyse.bounds), and the run's own end is the last of the LOOKS.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.records import RequestRecord
from profiler.run.answer import CountTokens
from profiler.run.decode import RequestMeta, decode_so_far
from profiler.run.drive import DriveProgress

LOOKS = 5
NICE = 10
RETRY_SHARE = 0.1  # of a look's size more must have ended before stragglers are looked for again


@dataclass(frozen=True)
class Rule:
    """`first` requests at the first look; `decide` is given the cohort so far and says why it is enough, or None."""

    first: int
    decide: Callable[[Sequence[RequestRecord]], str | None]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the looks before the last one."""
        return tuple(self.first << k for k in range(LOOKS - 1))

    @property
    def most(self) -> int:
        """The cohort at which a run ends undecided."""
        return self.first << (LOOKS - 1)


class Looks:
    """The `enough` of `drive`: called at each progress line of the window, answers at once."""

    def __init__(self, rule: Rule, folder: Path, meta: Sequence[RequestMeta], count_tokens: CountTokens | None) -> None:
        self.reason: str | None = None
        self.taken = 0  # looks that could be judged
        self._rule, self._folder, self._meta, self._count = rule, folder, meta, count_tokens
        self._wanted = rule.sizes[0]
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def __call__(self, progress: DriveProgress) -> bool:
        if self._thread is not None and self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        if self.reason is None and self.taken < len(self._rule.sizes) and progress.cohort_done >= self._wanted:
            before = progress.sent - progress.cohort_sent
            self._thread = threading.Thread(target=self._look, args=(before, progress.cohort_done), name="look", daemon=True)
            self._thread.start()
        return self.reason is not None

    def finish(self) -> None:
        """Wait for a look that is under way: it reads files that the caller is about to use up."""
        if self._thread is not None:
            self._thread.join()

    def _look(self, before: int, done: int) -> None:
        try:
            with contextlib.suppress(OSError):  # a thread of its own may be niced alone on Linux
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
            size = self._rule.sizes[self.taken]
            cohort = decode_so_far(self._folder, self._meta, self._count, before)[:size]
            if len(cohort) < size:  # one of the first is still under way, or the client has not written it down yet
                self._wanted = done + max(1, int(RETRY_SHARE * size))
                return
            self.taken += 1
            self._wanted = self._rule.sizes[self.taken] if self.taken < len(self._rule.sizes) else self._wanted
            self.reason = self._rule.decide(cohort)
        except Exception as error:
            self._error = error

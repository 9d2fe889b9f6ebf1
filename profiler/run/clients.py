"""The processes of the load client, seen from their parent: how many, on which cores, what they say, and who leads their window.

One process is the rule. Several offer one load together when one core would not do: each has its own loop and its share of the schedule,
they start at one CLOCK_MONOTONIC time, and the parent opens and closes the window for all of them at times that lie ahead.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Protocol

from profiler.errors import LoadError
from profiler.records import LoadPlan
from profiler.run.window import BUDGET_SPENT, COHORT_COMPLETE, PRECISE_ENOUGH
from profiler.units import NS_PER_S

STOP_S = 10.0  # to finish the spool after being asked to stop
START_S = 60.0  # to load the bodies
LEAD_NS = 300_000_000  # how far ahead the leader speaks: three of the clients' ticks

# At high rates a token costs a client 7 to 10 µs (docs/client.md): 80 % of a core, where its own queue begins to show, is about 80,000 to
# 110,000 tokens/s. Derived from that, not measured: no machine with four cores was at hand.
TOKENS_PER_S = 80_000
# With fewer cores the second client would take from the engine what it gives to the clock.
CORES_FOR_MORE = 4


@dataclass(frozen=True)
class DriveProgress:
    """Where a run stands. `cohort_done` of `cohort_sent` requests of the window have ended."""

    elapsed_s: float
    phase: str  # "warm-up" | "window" | "drain"
    sent: int
    done: int
    cohort_sent: int
    cohort_done: int
    errors: int
    in_flight: int


def processes_for(tokens_per_s: float, cores: int | None = None) -> int:
    """How many client processes an expected token rate needs: one, unless it would fill a core and there are cores to spare."""
    cores = cores or len(_allowed())
    if cores < CORES_FOR_MORE:
        return 1
    return max(1, min(cores // 4, -int(-tokens_per_s // TOKENS_PER_S)))


def _allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


class Client:
    """One client process; its folder holds its job and, afterwards, its spool and result."""

    def __init__(self, folder: Path, log: IO[bytes]) -> None:
        self.folder = folder
        self.progress: DriveProgress | None = None
        self.rest = b""  # of a line that has not ended
        # -I: neither the user's PYTHON* variables nor the current folder may bring other code into the process that holds the clock.
        # A session of its own: Ctrl-C is for the parent, which stops the client in order.
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", "profiler.run.client", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died already; its log says why
            os.write(self.stdin.fileno(), line.encode() + b"\n")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def lines(clients: Sequence[Client], limit_s: float) -> Iterator[tuple[Client, dict[str, Any] | None]]:
    """What the clients say, as it comes; None when one has ended. Raises LoadError when they are not done after `limit_s`."""
    deadline = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.stdout, selectors.EVENT_READ, client)
        while selector.get_map():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise LoadError(f"the load client was not done after {limit_s:.0f} s, the longest that its load can take")
            for key, _ in selector.select(left_s):
                client = key.data
                data = os.read(client.stdout.fileno(), 1 << 16)
                if not data:
                    selector.unregister(client.stdout)
                    yield client, None
                    continue
                *whole, client.rest = (client.rest + data).split(b"\n")
                for line in whole:
                    yield client, json.loads(line)


def together(clients: Sequence[Client]) -> DriveProgress | None:
    """The progress of all clients as one; None before each has spoken."""
    told = [client.progress for client in clients if client.progress is not None]
    if len(told) < len(clients):
        return None
    phases = [progress.phase for progress in told]
    sums = {f.name: sum(getattr(p, f.name) for p in told) for f in fields(DriveProgress) if f.name not in ("elapsed_s", "phase")}
    phase = next((phase for phase in ("window", "drain", "warm-up") if phase in phases), "warm-up")
    return DriveProgress(elapsed_s=max(p.elapsed_s for p in told), phase=phase, **sums)


class Leading(Protocol):
    """Who opens and closes a window; `reason` is why it closed, once it is known."""

    reason: str | None

    def ask_to_close(self) -> None: ...

    def decide(self, now_ns: int, told: DriveProgress, drained: bool) -> str | None: ...


class Leader:
    """Opens and closes the window that several clients share, by the rules of LoadPlan, from what they report."""

    def __init__(self, plan: LoadPlan, started_ns: int) -> None:
        self._plan = plan
        self._warm_ns = started_ns + int(plan.warmup_s * NS_PER_S)
        self._open_ns = self._warm_ns if plan.kind == "rate" else None
        self._close_ns: int | None = None
        self._asked = False
        self.reason: str | None = None

    def ask_to_close(self) -> None:
        self._asked = True

    def decide(self, now_ns: int, told: DriveProgress, drained: bool) -> str | None:
        """The command that is due, if any. `drained`: every client has closed its window and its cohort has ended."""
        plan, ahead = self._plan, now_ns + LEAD_NS
        if self._open_ns is None:
            warm = now_ns >= self._warm_ns and told.done >= plan.warmup_requests
            if not warm and now_ns < self._warm_ns + plan.request_timeout_s * NS_PER_S:
                return None
            self._open_ns = ahead
            return f"open {ahead}"
        if self._close_ns is None:
            least, most = (self._open_ns + int(length_s * NS_PER_S) for length_s in (plan.window_min_s, plan.window_max_s))
            if told.cohort_sent >= plan.cohort_min:
                self.reason = COHORT_COMPLETE
            elif self._asked:
                self.reason = PRECISE_ENOUGH
            elif ahead >= most:
                self.reason = BUDGET_SPENT
            else:
                return None
            self._close_ns = max(now_ns, most) if self.reason == BUDGET_SPENT else min(max(ahead, least), max(ahead, most))
            return f"close {self._close_ns} {self.reason}"
        return f"stop {self.reason}" if drained else None


def write_jobs(folders: Sequence[Path], job: dict[str, Any], plan: LoadPlan, cpus: Sequence[int], told: bool) -> None:
    """job.json for each client; `bodies.bin` lies in the run's folder and is read by all of them."""
    for j, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        own = {
            "share": [j, len(folders)],
            "told": told,
            "cpus": list(cpus),
            "bodies": "bodies.bin" if len(folders) == 1 else "../bodies.bin",
        }
        (folder / "job.json").write_text(json.dumps(job | own | {"plan": asdict(plan)}), encoding="utf-8")


def merge(results: Sequence[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    """One result of several clients' results."""
    if len(results) == 1:
        return results[0]
    first = min(results, key=lambda result: result["started_ns"])
    opened = max(result["window_open_ns"] for result in results)
    broken = next((r["stop_reason"] for r in results if r["stop_reason"] != reason), reason)
    return first | {
        "window_open_ns": opened,
        "window_close_ns": max(opened, min(result["window_close_ns"] for result in results)),
        "ended_ns": max(result["ended_ns"] for result in results),
        "stop_reason": broken,
        "client_cpu_s": sum(result["client_cpu_s"] for result in results),
        "context_switches": [sum(pair) for pair in zip(*(result["context_switches"] for result in results), strict=True)],
        "stamps": "kernel" if all(result["stamps"] == "kernel" for result in results) else "user",
        "clock_step_s": max(result["clock_step_s"] for result in results),
        "repeated_prompts": sum(result["repeated_prompts"] for result in results),
        "abandoned": sum(result["abandoned"] for result in results),
    }

"""Several requests at once, results in order. Threads of its own, which nobody waits for at the end: Ctrl-C must not wait for an answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def each(jobs: Sequence[Job], ask: Callable[[Job], Result], at_once: int) -> Iterator[Result]:
    """`ask(job)` of each job, at most `at_once` at a time, in the order of the jobs.

    What `ask` raises is raised where its result would have come; no further job begins then. With 1 there are no threads.
    """
    if at_once <= 1 or len(jobs) <= 1:
        yield from map(ask, jobs)
        return
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(len(jobs)):
        waiting.put(place)
    done: queue.SimpleQueue[tuple[int, Result | None, BaseException | None]] = queue.SimpleQueue()
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                place = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((place, ask(jobs[place]), None))
            except BaseException as error:  # told to the one who waits for this place; all before it have begun
                over.set()
                done.put((place, None, error))

    for _ in range(min(at_once, len(jobs))):
        threading.Thread(target=work, daemon=True, name="asking").start()
    arrived: dict[int, tuple[Result | None, BaseException | None]] = {}
    try:
        for place in range(len(jobs)):
            while place not in arrived:
                which, result, error = done.get()
                arrived[which] = result, error
            result, error = arrived.pop(place)
            if error is not None:
                raise error
            yield result  # type: ignore[misc]  # without an error there is a result, which may be None itself
    finally:
        over.set()


def together(jobs: Sequence[Job], ask: Callable[[Job], Result]) -> list[Result]:
    """All at once, released by one barrier, so that they are in the server together."""
    gate = threading.Barrier(len(jobs))

    def released(job: Job) -> Result:
        gate.wait()
        return ask(job)

    return list(each(jobs, released, len(jobs)))

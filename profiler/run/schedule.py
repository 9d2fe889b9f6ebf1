"""Which request is due when: roots by the clock or by free slots, all others after what they wait for. Pure bookkeeping.

Standard library only. Bodies are numbered; `LoadPlan.parents` says which must be answered before which. A root and all that waits for it
are a chain. The rules are those of LoadPlan.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from profiler.records import LoadPlan
from profiler.units import NS_PER_S

NEVER = 1 << 62  # later than any CLOCK_MONOTONIC time
_FREE = -1  # in place of a body: a slot that takes the next root


class Chain:
    """One root under way with everything that waits for it. `left` counts what has neither ended nor been abandoned."""

    __slots__ = ("again", "left", "root", "waits")

    def __init__(self, left: int, again: bool, root: int) -> None:
        self.left = left
        self.root = root
        self.again = again
        self.waits: dict[int, int] = {}  # body -> parents that are still to end; -1: abandoned


class Schedule:
    """`next_ns` is when `take` has something (NEVER: not before a request ends). Times are CLOCK_MONOTONIC ns.

    `share` (j, k): the j-th of k clients takes every k-th root and every k-th slot.
    """

    def __init__(self, plan: LoadPlan, bodies: int, start_ns: int, share: tuple[int, int] = (0, 1)) -> None:
        self.repeated = 0
        self.abandoned = 0
        self.root = 0  # number of the root that the last `take` belongs to: over all clients, and it goes on when bodies are used again
        self._plan = plan
        self._start_ns = start_ns
        self._thinks_ns = plan.thinks_ns or (int(plan.think_s * NS_PER_S),)
        self._thought = share[0]  # number of the next pause
        self._root, self._step = share  # number of the next root; bodies are used again when they run out
        self._roots: Sequence[int] = range(bodies)
        self._sizes: Sequence[int] = ()
        self._children: dict[int, list[int]] = {}
        if plan.parents:
            first = roots_of(plan.parents, bodies)
            self._roots = [body for body, above in enumerate(plan.parents) if not above]
            self._sizes = _counts(first)
            for body, above in enumerate(plan.parents):
                for parent in above:
                    self._children.setdefault(parent, []).append(body)
        self._order = 0  # ties go by the order in which they became due
        self._due: list[tuple[int, int, int, Chain | None]] = []
        if plan.kind == "concurrency":
            slots = len(range(self._root, int(plan.load), self._step))
            self._due = [(start_ns, order, _FREE, None) for order in range(slots)]
            self._order = slots
        self._set_next()

    def take(self) -> tuple[int, int, Chain | None]:
        """The request that is due first: intended time, body, chain (None: nothing waits for it). Only when `next_ns` is not NEVER."""
        if self._due and self._due[0][0] <= self._root_ns():
            intended, _, body, chain = heapq.heappop(self._due)
            if body == _FREE:
                body, chain = self._take_root()
            elif chain is not None:
                self.repeated += chain.again
                self.root = chain.root
        else:
            intended = self._root_ns()
            body, chain = self._take_root()
        self._set_next()
        return intended, body, chain

    def ended(self, body: int, chain: Chain | None, now_ns: int, answered: bool, pause_ns: int = 0) -> None:
        """A request ended. What waited only for it becomes due, or is abandoned; a slot whose chain is over becomes free.

        After a failure the slot pauses for `pause_ns`, after an answer for the plan's think time.
        """
        if chain is not None:
            chain.left -= 1
            for child in self._children.get(body, ()):
                if not answered:
                    self._abandon(child, chain)
                    continue
                waits = chain.waits.get(child, len(self._plan.parents[child]))
                if waits > 0:
                    chain.waits[child] = waits - 1
                if waits == 1:
                    self._push(now_ns + self._plan.delays_ns[child] if self._plan.delays_ns else now_ns, child, chain)
        if self._plan.kind == "concurrency" and (chain is None or chain.left == 0):
            if answered:
                pause_ns = self._thinks_ns[self._thought % len(self._thinks_ns)]
                self._thought += self._step
            self._push(now_ns + pause_ns, _FREE, None)
        self._set_next()

    def _abandon(self, body: int, chain: Chain) -> None:
        below = [body]
        while below:
            body = below.pop()
            if chain.waits.get(body) != -1:
                chain.waits[body] = -1
                chain.left -= 1
                self.abandoned += 1
                below += self._children.get(body, ())

    def _push(self, at_ns: int, body: int, chain: Chain | None) -> None:
        self._order += 1
        heapq.heappush(self._due, (at_ns, self._order, body, chain))

    def _take_root(self) -> tuple[int, Chain | None]:
        number, self._root = self._root, self._root + self._step
        self.root = number
        again = number >= len(self._roots)
        self.repeated += again
        body = self._roots[number % len(self._roots)]
        size = self._sizes[body] if self._sizes else 1
        return body, Chain(size, again, number) if size > 1 else None

    def _root_ns(self) -> int:
        """When the next root is due by the clock; in a closed loop only slots take roots."""
        if self._plan.kind == "rate" and self._root < len(self._plan.offsets_ns):
            return self._start_ns + self._plan.offsets_ns[self._root]
        return NEVER

    def _set_next(self) -> None:
        root_ns = self._root_ns()
        self.next_ns = min(root_ns, self._due[0][0]) if self._due else root_ns


def roots_of(parents: Sequence[Sequence[int]], bodies: int) -> list[int]:
    """The root of each body. Raises ValueError when `parents` is not a forest of chains with one root each."""
    if len(parents) != bodies:
        raise ValueError(f"parents are given for {len(parents)} of {bodies} requests")
    roots = [-1] * bodies
    children: dict[int, list[int]] = {}
    waits = [len(set(above)) for above in parents]
    for body, above in enumerate(parents):
        if len(set(above)) != len(above) or any(not 0 <= parent < bodies for parent in above):
            raise ValueError(f"request {body} waits for {list(above)}: twice for one, or for one that does not exist")
        for parent in above:
            children.setdefault(parent, []).append(body)
    ready = [body for body, count in enumerate(waits) if count == 0]
    for body in ready:
        roots[body] = body
    while ready:
        body = ready.pop()
        for child in children.get(body, ()):
            if roots[child] not in (-1, roots[body]):
                raise ValueError(f"request {child} waits for requests of two chains ({roots[child]} and {roots[body]})")
            roots[child] = roots[body]
            waits[child] -= 1
            if waits[child] == 0:
                ready.append(child)
    if any(waits):
        raise ValueError(f"requests wait for one another in a circle: {[body for body, count in enumerate(waits) if count][:5]}")
    return roots


def _counts(roots: Sequence[int]) -> list[int]:
    counts = [0] * len(roots)
    for root in roots:
        counts[root] += 1
    return counts

"""What a source of readings is: opened once, sampled at each tick, closed. Standard library only.

Metrics carry their unit in the name. `energy_j` is a running total that only grows; `power_w` is a reading. A device that has `energy_j`
or `power_w` belongs to one scope by its source and name: SCOPES.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

Reading = tuple[str, str, float]  # device, metric, value


class Source(Protocol):
    """`missing`: metric or device -> why it has no readings. It may grow while the source is sampled."""

    name: str
    missing: dict[str, str]

    def sample(self, t_ns: int) -> Iterable[Reading]:
        """The readings of now. What fails once is left out with its reason from then on; nothing is raised for a sensor that fails."""
        ...

    def close(self) -> None: ...


class Absent(Exception):
    """A source is not there, or forbidden: one line that says what was tried and, where there is one, the way out."""


@dataclass(frozen=True)
class Watched:
    """The processes a run is about: the sampler looks for them, sources read it."""

    engine: frozenset[int] = frozenset()
    ours: frozenset[int] = frozenset()

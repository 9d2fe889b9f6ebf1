"""Pauses of users and tools: fixed, or exponential with a mean. `parse` reads `"2s"` and `"exponential:2s"`."""

from __future__ import annotations

import random
from dataclasses import dataclass

from profiler.errors import SpecError
from profiler.units import NS_PER_S, parse_duration_s


@dataclass(frozen=True)
class Pause:
    mean_s: float
    exponential: bool = False

    def __str__(self) -> str:
        return f"exponential {self.mean_s:g}s" if self.exponential else f"{self.mean_s:g}s"

    def draw_ns(self, source: random.Random) -> int:
        """One pause in ns. An exponential pause forgets how long it has lasted: the classic model of interactive users (think time Z)."""
        return int((source.expovariate(1 / self.mean_s) if self.exponential and self.mean_s else self.mean_s) * NS_PER_S)


def parse(text: str, where: str = "think") -> Pause:
    """Raises SpecError naming `where` and the wrong part."""
    kind, colon, rest = text.strip().partition(":")
    if colon and kind not in ("fixed", "exponential"):
        raise SpecError(f"{where}: {text!r}: {kind!r} is neither fixed nor exponential", hint="such as 2s or exponential:2s")
    try:
        mean_s = parse_duration_s(rest if colon else kind)
    except ValueError as error:
        raise SpecError(f"{where}: {text!r}: {error}", hint="such as 2s or exponential:2s") from None
    return Pause(mean_s, kind == "exponential")

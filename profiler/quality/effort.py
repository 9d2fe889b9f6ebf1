"""How much an evaluation asks, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.quality import determinism

if TYPE_CHECKING:
    from profiler.quality.tasks import Tasks


def effort(windows: Sequence[Sequence[int]], tasks: Tasks, at_once: int | None = None) -> dict[str, int]:
    """Tokens that are read from the text and written at most, the questions about the load included."""
    numbers = (1, 1, *(determinism.AT_ONCE if at_once is None else [at_once] if at_once > 1 else []))
    rounds = sum(max(number, determinism.PROMPTS) for number in numbers)
    length = len(windows[0]) if windows else 0
    answered = [one.max_tokens for one in tasks.examples if one.scorer != "choice"]
    return {
        "read_tokens": length * (len(windows) + (rounds if windows else 0)),
        "written_tokens_at_most": sum(answered) + (rounds * determinism.MAX_TOKENS if answered else 0),
    }

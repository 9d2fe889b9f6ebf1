"""What an evaluation would ask, what is there of it already, about how long it takes. Starts nothing, reads the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.engines import registry
from profiler.machine.needs import unmet
from profiler.plan import START_S
from profiler.quality import documents
from profiler.quality.effort import effort
from profiler.quality.running import Asked, key_like
from profiler.units import format_duration

if TYPE_CHECKING:
    from profiler.quality.tasks import Tasks
    from profiler.spec import BackendSpec

# Tokens/s written one by one, seen from a 7B model on few cores to a 135M one (docs/engines.md). Only where nothing was evaluated before.
WRITTEN_PER_S = (5.0, 100.0)
READ_AS_WRITTEN = 1 / 10  # a token that is read costs about so much of one that is written


@dataclass(frozen=True)
class Ahead:
    """Of one backend. `windows` is None where the text cannot be cut yet: the model's tokenizer is not on this disk."""

    backend: str
    is_reference: bool
    problems: tuple[str, ...]  # why it cannot run here
    stored: str | None  # when it was evaluated under the same conditions; then nothing is asked
    windows: int | None
    examples: int
    seconds_min: float  # 0 where nothing is asked
    seconds_max: float
    because: str  # of the seconds

    def told(self) -> dict[str, Any]:
        return {**asdict(self), "problems": list(self.problems)}

    @property
    def sentence(self) -> str:
        role = " (reference)" if self.is_reference else ""
        if self.problems:
            return f"{self.backend}{role}: cannot run here: {'; '.join(self.problems)}"
        if self.stored:
            return f"{self.backend}{role}: evaluated already, {self.stored}"
        windows = "the text" if self.windows is None else f"{self.windows} windows"
        lo, hi = format_duration(round(self.seconds_min)), format_duration(round(self.seconds_max))
        return f"{self.backend}{role}: {windows} and {self.examples} examples, {lo if lo == hi else f'{lo} to {hi}'} ({self.because})"


def look(
    backends: Sequence[BackendSpec], what: Asked | None, tasks: Tasks, results: Path, at_once: int | None = None, *, again: bool = False
) -> list[Ahead]:
    """Of each backend, the reference first; each as `running.uncached` gives it. `what`: None while there is no tokenizer."""
    kept = documents.load_sound(results)
    return [_one(backend, k == 0, what, tasks, kept, at_once, again) for k, backend in enumerate(backends)]


def _one(
    backend: BackendSpec,
    is_reference: bool,
    what: Asked | None,
    tasks: Tasks,
    kept: Sequence[Mapping[str, Any]],
    at_once: int | None,
    again: bool,
) -> Ahead:
    problems = (*unmet(backend), *registry.get(backend.engine).problems(backend))
    same = None if what is None or again else next((one for one in kept if one.get("key") == key_like(one, backend, what)), None)
    needed = effort(what.text.tokens if what else (), tasks, at_once)
    lo, hi, because = (0.0, 0.0, "nothing is asked") if same or problems else _seconds(needed, backend, what, kept)
    windows = len(what.text.tokens) if what else None
    made_at = str(same["made_at"]) if same else None
    return Ahead(backend.name, is_reference, problems, made_at, windows, len(tasks.examples), lo, hi, because)


def _seconds(
    needed: Mapping[str, int], backend: BackendSpec, what: Asked | None, kept: Sequence[Mapping[str, Any]]
) -> tuple[float, float, str]:
    """From the latest evaluation of the same backend, model and machine; else from figures seen elsewhere."""
    wanted = _work(needed)
    before = [
        one
        for one in kept
        if what is not None
        and _asked_s(one)
        and one["backend"]["name"] == backend.name
        and one["machine"]["machine_id"] == what.machine["machine_id"]
        and one["model"]["name"] == what.model_name
    ]
    if before:
        last = max(before, key=lambda one: str(one["made_at"]))
        asking_s = _asked_s(last) * wanted / max(_work(last["effort"]), 1.0)
        return asking_s + START_S[0], asking_s + START_S[1], f"as on {last['made_at'][:10]}, with an engine start"
    slow, fast = WRITTEN_PER_S
    return wanted / fast + START_S[0], wanted / slow + START_S[1], f"a guess: {slow:g} to {fast:g} tokens/s, with an engine start"


def _asked_s(document: Mapping[str, Any]) -> float:
    """How long its text and examples took; 0 where that is not known: before `harness_s` was kept, the harness's time was in it."""
    effort = document.get("effort") or {}
    mixed = (document.get("harness") or document.get("harness_log")) and effort.get("harness_s") is None
    return 0.0 if mixed else float(effort.get("asked_s") or 0.0)


def _work(of: Mapping[str, int]) -> float:
    return of["written_tokens_at_most"] + of["read_tokens"] * READ_AS_WRITTEN

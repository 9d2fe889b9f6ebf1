"""Does the load change the answers? The same prompts alone, alone again, and among others, counted by how many were asked at once.

Greedy decoding is deterministic in theory; a batch of another size sums in another order, which can turn a near tie. An evaluation is
asked at the largest number at which nothing changed, or one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from profiler.quality import parallel
from profiler.quality.asking import NotGiven

if TYPE_CHECKING:
    from profiler.quality.asking import Asker
    from profiler.quality.tasks import Example, Tasks
    from profiler.quality.windows import Windows

Job = TypeVar("Job")
Result = TypeVar("Result")

PROMPTS = 4  # examples that are answered, and as many windows of the text
AT_ONCE = (2, 4, 8)
MAX_TOKENS = 32  # of an answer: enough for a near tie to come, and the check costs less than what it checks
# Two log-probabilities are the same up to this, nats: f32 near 10 resolves 1e-6, and a server that prints fewer digits rounds.
SAME_NATS = 1e-5
NOTHING = "nothing could be asked twice: no answers are generated, and the server gives no log-probabilities of a prompt"


@dataclass(frozen=True)
class _Counted:
    """Of one number at once: answers and windows that came as they had come the first time alone."""

    at_once: int
    answers: tuple[int, int]  # same, of
    windows: tuple[int, int]
    largest_nats: float | None  # by which a log-probability differed

    @property
    def all_same(self) -> bool:
        return self.answers[0] == self.answers[1] and self.windows[0] == self.windows[1]

    @property
    def words(self) -> str:
        """`7 of 8 answers and 4 of 8 windows`."""
        found = [f"{same} of {of} {what}" for (same, of), what in ((self.answers, "answers"), (self.windows, "windows")) if of]
        return " and ".join(found)

    def told(self) -> dict[str, Any]:
        answers, windows = self.answers, self.windows
        shares = {"same": answers[0], "of": answers[1], "windows_same": windows[0], "windows_of": windows[1]}
        return {"batch": self.at_once, **shares, "largest_nats": self.largest_nats}


def measure(asker: Asker, windows: Windows, tasks: Tasks, wanted: int | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """The keys `determinism` and `determinism_reason` of a document; one of them is None. Raises EngineError.

    `wanted`: the user's own number at once; then that one alone is compared, and used whatever comes of it.
    """
    progress("does the load change the answers: alone")
    answers = _Repeated(spread([one for one in tasks.examples if one.scorer != "choice"], PROMPTS), lambda one: _answer(asker, one))
    scores = _Repeated(spread(windows.tokens, PROMPTS), lambda tokens: asker.score(tokens).log_probs)
    if not answers.jobs and not scores.jobs:
        return {"determinism": None, "determinism_reason": NOTHING}
    counted = []
    for at_once in (1, *(AT_ONCE if wanted is None else [wanted] if wanted > 1 else [])):
        progress(f"does the load change the answers: {at_once} at once")
        same = [first == got for first, got in answers.again(at_once)]
        nats = [_largest(first, got) for first, got in scores.again(at_once)]
        alike = sum(x is not None and x <= SAME_NATS for x in nats)
        largest = max((x for x in nats if x is not None), default=None)
        counted.append(_Counted(at_once, (sum(same), len(same)), (alike, len(nats)), largest))
    chosen = wanted or _most_that_changes_nothing(counted)
    told = [one.told() for one in counted]
    found = {"prompts": len(answers.jobs) + len(scores.jobs), "by_batch": told, "parallel": chosen, "note": _note(counted, chosen, wanted)}
    return {"determinism": found, "determinism_reason": None}


def spread(of: Sequence[Job], count: int) -> list[Job]:
    """`count` of them, evenly from the first to the last; all where there are no more."""
    if len(of) <= count:
        return list(of)
    return [of[k * (len(of) - 1) // (count - 1)] for k in range(count)]


class _Repeated(Generic[Job, Result]):
    """Jobs, and what each gave the first time, alone. A job that the server refuses is left out."""

    def __init__(self, jobs: Sequence[Job], ask: Callable[[Job], Result]) -> None:
        self._ask = ask
        found = [(job, self._given(job)) for job in jobs]
        self.jobs = [job for job, first in found if first is not None]
        self._first = [first for _, first in found if first is not None]

    def again(self, at_once: int) -> list[tuple[Result, Result | None]]:
        """Each job once more (more than that where there are fewer of them than `at_once`), beside what it gave first.

        None where the server refused it this time.
        """
        count = -(-len(self.jobs) // at_once) * at_once
        order = [k % len(self.jobs) for k in range(count)]
        pairs = []
        for begin in range(0, count, at_once):
            group = order[begin : begin + at_once]
            got = parallel.together([self.jobs[k] for k in group], self._given)
            pairs += [(self._first[k], one) for k, one in zip(group, got, strict=True)]
        return pairs

    def _given(self, job: Job) -> Result | None:
        try:
            return self._ask(job)
        except NotGiven:
            return None


def _answer(asker: Asker, example: Example) -> str:
    return asker.answer(example.prompt, min(example.max_tokens, MAX_TOKENS), chat=example.chat)


def _largest(first: Sequence[float], got: Sequence[float] | None) -> float | None:
    return None if got is None else max((abs(a - b) for a, b in zip(first, got, strict=True)), default=0.0)


def _most_that_changes_nothing(counted: Sequence[_Counted]) -> int:
    """The largest number up to which all were the same: what changes at 2 and not at 4 was luck."""
    chosen = 1
    for one in counted:
        if not one.all_same:
            break
        chosen = one.at_once
    return chosen


def _note(counted: Sequence[_Counted], chosen: int, wanted: int | None) -> str:
    """In one line: what changed at which number at once, and what was done about it."""
    alone, most = counted[0], counted[-1]
    if not alone.all_same:
        found = f"not deterministic: asked alone a second time, {alone.words} were the same"
    elif (first := next((one for one in counted if not one.all_same), None)) is not None:
        found = f"deterministic alone; at {first.at_once} at once {first.words} were the same"
    else:
        found = (
            f"{most.words} were the same at {most.at_once} at once"
            if len(counted) > 1
            else f"asked alone twice: {alone.words} were the same"
        )
    used = f"{chosen} at once" if chosen > 1 else "one by one"
    return f"{found}; asked {used}" + (", as you said" if wanted is not None else "")

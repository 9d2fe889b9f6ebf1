"""Finding λ*: which load to probe next, from what the probes so far said. Pure: measures nothing, knows no clock.

λ* is the highest load such that it and all lower probes fit. The first engine start screens: short probes that end as soon as it is plain which
way they go bracket λ*, first by doubling or halving, then towards the crossing of a monotone fit (pool adjacent violators) through the
probes' scores, halving the bracket in between. What is left is a pair of loads a rung apart. Whole cohorts at that pair, the same in each of
three or more starts, decide: the lower one must FIT, the upper one FAIL, each at half of the error, so that both hold together at 95 %.
Where the pair was wrong it moves a rung; loads are then tested in a fixed order, and the first wrong step costs the error once (fixed-sequence
testing; Maurer, Hothorn and Lehmacher 1995).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from profiler.analyse.percentiles import ALPHA
from profiler.analyse.together import Together, judge_together
from profiler.records import Result

Purpose = Literal["screen", "decide"]
Document = Mapping[str, Any]
MOST_SCREENS = 16  # of one search; doubling from 1/1000 of λ* and halving to a rung of 5 % takes fewer
REACH = 1e4  # how far from the first load the bracket may go, either way


@dataclass(frozen=True)
class Ask:
    """One probe to measure."""

    load: float
    purpose: Purpose


@dataclass(frozen=True)
class Probe:
    """What one load's probes said. `score` is log(observed / limit) of the worst constraint, None where nothing was observed."""

    load: float
    result: Result
    starts: int
    n: int
    screened: bool
    score: float | None
    reason: str


@dataclass(frozen=True)
class Found:
    """λ* lies in [`lower`, `upper`): `lower` None where no load was proven to fit, `upper` None where none was proven to fail."""

    lower: float | None
    upper: float | None
    confidence: float
    starts: int
    reason: str
    probes: tuple[Probe, ...]
    not_monotone: tuple[float, ...] = ()  # loads that were proven to fit above one that fails


@dataclass
class Search:
    """The search of one backend under one workload. Per start: `ask` until it returns None, telling each answer."""

    first: float
    rung: float = 0.05
    most_starts: int = 8
    starts: int = 0  # that are over
    screens: dict[float, Document] = field(default_factory=dict)
    cohorts: dict[float, list[Document]] = field(default_factory=dict)
    lost: str | None = None  # why the search cannot go on
    _asked: set[float] = field(default_factory=set)  # deciding probes of the present start

    def ask(self) -> Ask | None:
        """The next probe of this start; None when the start has nothing more to do."""
        if self.done():
            return None
        if (load := self._next_screen()) is not None:
            return Ask(load, "screen")
        for load in self._pair():
            if load not in self._asked and self.verdict(load).result == "UNDECIDED":
                return Ask(load, "decide")
        return None

    def tell(self, ask: Ask, document: Document) -> None:
        """The run of a probe. A run that failed ends the search: its reason is the engine's."""
        run = document["run"]
        if run["status"] != "done" or not document.get("verdicts"):
            self.lost = f"at {ask.load:g}/s: {run.get('status_reason') or 'not judged'}"
        elif ask.purpose == "screen":
            self.screens[ask.load] = document
        else:
            self.cohorts.setdefault(ask.load, []).append(document)
            self._asked.add(ask.load)

    def start_over(self) -> None:
        """The engine start has ended."""
        self.starts += 1
        self._asked = set()

    def done(self) -> bool:
        if self.lost is not None or self.starts >= self.most_starts:
            return True
        if self._next_screen() is not None:
            return False
        pair = self._pair()
        return not pair or all(self.verdict(load).result != "UNDECIDED" for load in pair)

    def verdict(self, load: float) -> Together:
        """Over the starts so far; one or two decide nothing."""
        found = judge_together(self.cohorts.get(load, ()), sequential=True, alpha=ALPHA / 2)
        return found if not found.screening else Together("UNDECIDED", found.reason, found.starts, found.runs, found.set_aside, True)

    def found(self) -> Found:
        decided = {load: self.verdict(load).result for load in sorted(self.cohorts)}
        failing = [load for load, result in decided.items() if result == "FAILS"]
        upper = min(failing, default=None)
        fitting = [load for load, result in decided.items() if result == "FITS"]
        lower = max((load for load in fitting if upper is None or load < upper), default=None)
        odd = tuple(load for load in fitting if upper is not None and load > upper)
        return Found(lower, upper, 1 - ALPHA, self.starts, self._reason(lower, upper), self.probes(), odd)

    def probes(self) -> tuple[Probe, ...]:
        """Each load that was probed, lowest first; what decides stands before what screened."""
        found = []
        for load in sorted({*self.screens, *self.cohorts}):
            documents = self.cohorts.get(load) or [self.screens[load]]
            screened = load not in self.cohorts
            judged = self.verdict(load)
            result: Result = documents[0]["verdicts"][0]["result"] if screened else judged.result
            n = sum(document["verdicts"][0]["constraints"][0]["n"] for document in documents)
            reason = str(documents[0]["verdicts"][0]["reason"]) if screened else judged.reason
            scores = [value for document in documents if (value := score(document)) is not None]
            mean = sum(scores) / len(scores) if scores else None
            found.append(Probe(load, result, 1 if screened else judged.starts, n, screened, mean, reason))
        return tuple(found)

    def _passes(self) -> dict[float, bool]:
        return {load: passes(document) for load, document in self.screens.items()}

    def _bracket(self) -> tuple[float | None, float | None]:
        """The lowest load that does not pass, and the highest below it that does."""
        passing = self._passes()
        high = min((load for load, ok in passing.items() if not ok), default=None)
        low = max((load for load, ok in passing.items() if ok and (high is None or load < high)), default=None)
        return low, high

    def _next_screen(self) -> float | None:
        """The next load to screen; None when the bracket is a rung wide, or when screening has to end."""
        low, high = self._bracket()
        if not self.screens:
            return self.first
        if len(self.screens) >= MOST_SCREENS or self.starts:
            return None
        if low is None:
            assert high is not None
            return high / 2 if high > self.first / REACH else None
        if high is None:
            return low * 2 if low < self.first * REACH else None
        if high / low <= (1 + self.rung) * 1.0001:
            return None
        middle = math.sqrt(low * high)
        if len(self.screens) % 2:
            return _rounded(middle)
        aim = crossing([(load, score(document)) for load, document in self.screens.items()], low, high)
        if aim is None:
            return _rounded(middle)
        # A load half a rung to the side on which less is known: two of them make a bracket of one rung.
        half = math.sqrt(1 + self.rung)
        wanted = aim / half if aim / low > high / aim else aim * half
        edge = 1 + self.rung / 2
        return _rounded(min(max(wanted, low * edge), high / edge))

    def _pair(self) -> tuple[float, ...]:
        """The loads to decide: highest that may fit, lowest that may fail; moved by a rung where whole cohorts said otherwise."""
        low, high = self._bracket()
        decided = {load: self.verdict(load).result for load in self.cohorts}
        step = 1 + self.rung
        while low is not None and decided.get(low) == "FAILS":
            low, high = _rounded(low / step), low
        while high is not None and decided.get(high) == "FITS":
            low, high = high, _rounded(high * step)
        return tuple(load for load in (low, high) if load is not None)

    def _reason(self, lower: float | None, upper: float | None) -> str:
        if self.lost is not None:
            return self.lost
        if lower is not None and upper is not None:
            return f"fits at {lower:.4g}/s, fails at {upper:.4g}/s, over {self.starts} engine starts"
        low, high = self._bracket()
        if low is None:
            return f"no load down to {min(self.screens, default=self.first):.3g}/s passed even a short probe"
        if high is None:
            return f"every load up to {max(self.screens):.3g}/s passed: the limit lies beyond what was tried"
        return (
            f"between {low:.4g} and {high:.4g}/s by short probes; {self.starts} engine starts did not decide: more starts, or more requests"
        )


def passes(document: Document) -> bool:
    """Which way a screened run points: its verdict, or, undecided, whether what was observed keeps every limit."""
    verdict = document["verdicts"][0]
    if verdict["result"] != "UNDECIDED":
        return bool(verdict["result"] == "FITS")
    backlog = verdict.get("backlog")
    if backlog and backlog["grows"]:
        return False
    return all((c["miss_share"] or 0.0) <= c["allowed_share"] for c in verdict["constraints"])


def score(document: Document) -> float | None:
    """log(observed / limit) of the worst percentile constraint; None where none was observed (all failed, or only other kinds)."""
    found = [
        math.log(c["observed_s"] / c["limit_s"]) for c in document["verdicts"][0]["constraints"] if c.get("observed_s") and c.get("limit_s")
    ]
    return max(found, default=None)


def crossing(points: Sequence[tuple[float, float | None]], low: float, high: float) -> float | None:
    """Where a monotone fit through (load, score) passes 0 between `low` and `high`, on a logarithmic scale of the load; None if it does not."""
    known = sorted((math.log(load), value) for load, value in points if value is not None)
    fitted = monotone([value for _, value in known])
    for (a, fa), (b, fb) in pairwise(zip((x for x, _ in known), fitted, strict=True)):
        if fa <= 0 < fb:
            found = math.exp(a + (b - a) * (0 - fa) / (fb - fa))
            return found if low < found < high else None
    return None


def monotone(values: Sequence[float]) -> list[float]:
    """The closest sequence that never falls, by least squares: pool adjacent violators (Ayer et al., Ann. Math. Stat. 26, 1955)."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    return [value for value, count in blocks for _ in range(count)]


def _rounded(load: float) -> float:
    """To four figures, so that the same search names the same cells again."""
    return float(f"{load:.4g}")

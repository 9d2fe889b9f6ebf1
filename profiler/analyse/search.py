"""Finding λ*: which load to probe next, from what the probes so far said. Pure: measures nothing, knows no clock.

λ* is the highest load such that it and all lower probes fit. The first engine start screens: short probes that end as soon as it is plain which
way they go bracket λ* roughly, by doubling or halving and then by the middle. Short probes are kind (a queue takes long to build), so from
there on only whole cohorts steer: after each one a curve is fitted through all of them (profiler.analyse.crossing) and the next goes where that
says: in the first start a load a rung below the crossing and one a rung above it, in the next two one as near to it as can be and one of those,
and from the fourth on the near one alone. Where the interval then lacks an end, as it would lie further out than was measured, there is one cohort
more for it: at the crossing, where the first one has moved it, else two rungs further out. (To go further out at once was tried: the intervals of short
runs became wider.)

After 3, 5, 8, ... starts the interval is looked at, each end at half of the error, each look at a level of its own, so that all looks together
are wrong no more often than stated. The search ends when λ* is known to a rung either side, or when the starts are used up: then the interval is as
wide as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from profiler.analyse.crossing import NEAR, Crossing, Interval, allowed, first_crossing, grows, limit, seen
from profiler.analyse.percentiles import ALPHA
from profiler.analyse.starts import DECIDING, LOOKS, boundary
from profiler.analyse.together import counts
from profiler.records import Result

Purpose = Literal["screen", "decide"]
Document = Mapping[str, Any]
MOST_SCREENS = 16  # of one search; doubling from 1/1000 of λ* takes fewer
REACH = 1e4  # how far from the first load the bracket may go, either way
COARSE = 1.3  # a bracket by short probes no narrower than this: they are too kind for more
SCREEN_WEIGHT = 0.25  # of a short probe in the fit
STRIDE = 1.15  # least step of whole cohorts that all passed, or all failed
FIRST_COHORTS = 4  # of the first start, which has to find the place
ODD = 1.1  # how far above a load that fails one that fits must lie to be called odd


@dataclass(frozen=True)
class Ask:
    """One probe to measure."""

    load: float
    purpose: Purpose


@dataclass(frozen=True)
class Probe:
    """What one load's probes said. `share`: of misses under the worst constraint, over what it allows. `result` by the interval for whole
    cohorts, and by the short run itself for what only screened."""

    load: float
    result: Result
    starts: int
    n: int
    screened: bool
    share: float


@dataclass(frozen=True)
class Found:
    """λ* lies in [`lower`, `upper`): `lower` None where no load was proven to fit, `upper` None where none was proven to fail."""

    lower: float | None
    upper: float | None
    estimate: float | None  # where the fitted curve crosses
    confidence: float
    starts: int
    reason: str
    probes: tuple[Probe, ...]
    not_monotone: tuple[float, ...] = ()  # loads whose runs keep the target above one whose runs do not


@dataclass
class Search:
    """The search of one backend under one workload. Per start: `ask` until it returns None, telling each answer."""

    first: float
    rung: float = 0.05
    most_starts: int = 8
    starts: int = 0  # that are over
    screens: dict[float, Document] = field(default_factory=dict)
    cohorts: dict[str, dict[float, Document]] = field(default_factory=dict)  # of each engine start, by load
    lost: str | None = None  # why the search cannot go on
    _asked: list[float] = field(default_factory=list)  # deciding probes of the present start
    _interval: Interval | None = None  # what the last answer left to say
    _crossing: Crossing | None = None

    def ask(self) -> Ask | None:
        """The next probe of this start; None when the start has nothing more to do."""
        if self.done():
            return None
        if (load := self._next_screen()) is not None:
            return Ask(load, "screen")
        if len(self._asked) < self._most():
            for load in self._wanted():
                if not any(abs(math.log(load / own)) < math.log1p(self.rung / 4) for own in self._asked):
                    self._asked.append(load)
                    return Ask(load, "decide")
        return None

    def _most(self) -> int:
        """Whole cohorts of this start."""
        if self.starts >= DECIDING:
            return 1 + len(self._further())
        return 2 if self.starts else FIRST_COHORTS

    def tell(self, ask: Ask, document: Document) -> None:
        """The run of a probe. A run that failed ends the search: its reason is the engine's."""
        run = document["run"]
        if run["status"] != "done" or not document.get("verdicts"):
            self.lost = f"at {ask.load:g}/s: {run.get('status_reason') or 'not judged'}"
        elif ask.purpose == "screen":
            self.screens[ask.load] = document
            self._interval = self._crossing = None
        else:
            self.remember(ask.load, document)

    def remember(self, load: float, document: Document) -> None:
        """A whole cohort, of this search or of an earlier one of the same cells."""
        self.cohorts.setdefault(str(document["run"]["start_id"]), {})[load] = document
        self._interval = self._crossing = None

    def take_up(self) -> None:
        """Goes on where an earlier search ended: its starts count as far as they say something of the crossing."""
        fit = self._fit()
        if fit is not None:
            near = (any(abs(math.log(load / fit.load)) < NEAR for load in rows) for rows in self._sound().values())
            self.starts = min(sum(near), self.most_starts)

    def start_over(self) -> None:
        """The engine start has ended."""
        self.starts += 1
        self._asked = []
        if self.starts >= DECIDING and self.cohorts and not self._sound():
            self.lost = f"all {sum(map(len, self.cohorts.values()))} runs were disturbed or never settled: measure on an idle machine"

    def done(self) -> bool:
        if self.lost is not None or self.starts >= self.most_starts:
            return True
        if self._next_screen() is not None:
            return False
        return not self._wanted() or (not self._asked and self._close(self.interval()))

    def interval(self) -> Interval:
        """At the first look that knows λ* to a rung either side, else at the latest."""
        if self._interval is None:
            self._interval = self._looked_at()
        return self._interval

    def _looked_at(self) -> Interval:
        latest = Interval(None, None)
        starts = list(self._sound().values())
        for number, level in looks(self.most_starts, ALPHA / 2).items():
            if len(starts) < number:
                break
            runs = [seen(row, load) for rows in starts[:number] for load, row in rows.items()]
            latest = limit(runs, allowed(self._any()), level, self.rung)
            if self._close(latest):
                break
        return latest

    def found(self) -> Found:
        lies = self.interval()
        fit = self._fit()
        estimate = lies.middle or (fit.load if fit is not None and self.cohorts else None)
        probes = self.probes()
        lowest = min((p.load for p in probes if p.share > 1 and not p.screened), default=math.inf)
        odd = tuple(p.load for p in probes if p.load > lowest * ODD and p.share <= 1 and not p.screened)
        return Found(lies.lower, lies.upper, estimate, 1 - ALPHA, len(self._sound()), self._reason(lies, estimate), probes, odd)

    def probes(self) -> tuple[Probe, ...]:
        """Each load that was probed, lowest first; what decides stands before what screened."""
        lies = self.interval()
        found = []
        for load in sorted({*self.screens, *self._loads()}):
            documents = [rows[load] for rows in self.cohorts.values() if load in rows]
            screened = not documents
            documents = documents or [self.screens[load]]
            n = sum(document["verdicts"][0]["constraints"][0]["n"] for document in documents)
            share = sum(map(_worst, documents)) / len(documents)
            result: Result = documents[0]["verdicts"][0]["result"] if screened else "UNDECIDED"
            if not screened and lies.lower is not None and load <= lies.lower:
                result = "FITS"
            elif not screened and lies.upper is not None and load >= lies.upper:
                result = "FAILS"
            found.append(Probe(load, result, len(documents), n, screened, share))
        return tuple(found)

    def _sound(self) -> dict[str, dict[float, Document]]:
        kept = {start: {load: row for load, row in rows.items() if counts(row)} for start, rows in self.cohorts.items()}
        return {start: rows for start, rows in kept.items() if rows}

    def _loads(self) -> list[float]:
        return sorted({load for rows in self.cohorts.values() for load in rows})

    def _close(self, lies: Interval) -> bool:
        return lies.lower is not None and lies.upper is not None and lies.upper <= lies.lower * (1 + self.rung) ** 2

    def _bracket(self) -> tuple[float | None, float | None]:
        """The lowest load that does not pass, and the highest below it that does."""
        passing = {load: passes(document, load) for load, document in self.screens.items()}
        for load in self._loads():  # as most of its starts have it
            votes = [passes(rows[load], load) for rows in self.cohorts.values() if load in rows]
            passing[load] = 2 * sum(votes) > len(votes)
        high = min((load for load, ok in passing.items() if not ok), default=None)
        low = max((load for load, ok in passing.items() if ok and (high is None or load < high)), default=None)
        return low, high

    def _next_screen(self) -> float | None:
        """The next load to screen; None when the bracket is narrow enough, or when screening has to end."""
        low, high = self._bracket()
        if low is None and high is None:
            return self.first
        if len(self.screens) >= MOST_SCREENS or self.starts or self._asked:
            return None
        if low is None:
            assert high is not None
            return high / 2 if high > self.first / REACH else None
        if high is None:
            return low * 2 if low < self.first * REACH else None
        return _rounded(math.sqrt(low * high)) if high / low > COARSE else None

    def _any(self) -> Document:
        return next(self._every())

    def _every(self) -> Iterator[Document]:
        yield from self.screens.values()
        for rows in self.cohorts.values():
            yield from rows.values()

    def _fit(self) -> Crossing | None:
        """Of the constraint that is crossed first."""
        if self._crossing is None:
            self._crossing = self._fitted()
        return self._crossing

    def _fitted(self) -> Crossing | None:
        rows = [seen(document, load) for own in self.cohorts.values() for load, document in own.items()]
        if len({passes(document, load) for own in self.cohorts.values() for load, document in own.items()}) < 2:
            rows += [seen(document, load, SCREEN_WEIGHT) for load, document in self.screens.items()]
        if not rows:
            return None
        return first_crossing(rows, allowed(self._any()))

    def _wanted(self) -> list[float]:
        """The loads to measure in this start, the more telling first; none where λ* was not bracketed."""
        fit = self._fit()
        if fit is None or (not self.cohorts and None in self._bracket()):
            return []
        rung = 1 + self.rung
        if self.starts >= DECIDING:
            return [self._scaled(fit.load), *self._further()]
        known = self._loads()
        passing = [load for rows in self.cohorts.values() for load, row in rows.items() if passes(row, load)]
        failing = [load for rows in self.cohorts.values() for load, row in rows.items() if not passes(row, load)]
        if passing and not failing:
            return [self._scaled(max(fit.load * rung, max(passing) * STRIDE))]
        if failing and not passing:
            return [self._scaled(min(fit.load / rung, min(failing) / STRIDE))]
        # The side on which less is known goes first.
        pair = [fit.load / rung, fit.load * rung]
        pair.sort(key=lambda aim: sum(abs(math.log(load / aim)) < math.log(rung) / 2 for load in known))
        return [self._scaled(aim) for aim in ([fit.load, pair[0]] if self.starts else pair)]

    def _further(self) -> list[float]:
        """Two rungs beyond what was measured, where an end of the interval lies there: none is shown further out (profiler.analyse.crossing)."""
        lies, loads, step = self.interval(), self._loads(), (1 + self.rung) ** 2
        if lies.middle is None:
            return []
        ends = [(lies.lower, loads[0] / step), (lies.upper, loads[-1] * step)]
        return [self._scaled(load) for end, load in ends if end is None]

    def _scaled(self, load: float) -> float:
        """The nearest load of a fixed scale, so that searches meet in the same cells."""
        scale = math.log1p(self.rung / 2)
        return _rounded(math.exp(round(math.log(load) / scale) * scale))

    def _reason(self, lies: Interval, estimate: float | None) -> str:
        if self.lost is not None:
            return self.lost
        over = f"over {len(self._sound())} engine starts"
        whole = sum(map(len, self.cohorts.values()))
        if aside := whole - sum(map(len, self._sound().values())):
            over += f" ({aside} of {whole} runs were disturbed and count for nothing)"
        if self._close(lies):
            return f"fits at {lies.lower:.4g}/s, fails at {lies.upper:.4g}/s, {over}"
        low, high = self._bracket()
        if low is None and not self.cohorts:
            return f"no load down to {min(self.screens, default=self.first):.3g}/s passed even a short probe"
        if high is None and (not self.cohorts or lies.upper is None):
            return f"every load up to {max([*self.screens, *self._loads()]):.3g}/s passed: the limit lies beyond what was tried"
        about = f"near {estimate:.4g}/s" if estimate else f"between {low or 0.0:.4g} and {high or math.inf:.4g}/s by short probes"
        return f"{about}, not known to {self.rung:.0%} {over}: more starts (--most-starts), or more requests"


def passes(document: Document, load: float) -> bool:
    """Which way a run points: its verdict, or, undecided, whether what was observed keeps every limit."""
    verdict = document["verdicts"][0]
    if verdict["result"] != "UNDECIDED":
        return bool(verdict["result"] == "FITS")
    if grows(verdict, load):
        return False
    return all((c["miss_share"] or 0.0) <= c["allowed_share"] for c in verdict["constraints"])


def looks(most_starts: int, alpha: float) -> dict[int, float]:
    """After how many starts one looks, and the level of each look, which together err with probability `alpha` (starts.boundary)."""
    return boundary(tuple(sorted({*(number for number in LOOKS if number < most_starts), max(most_starts, DECIDING)})), alpha)


def _worst(document: Document) -> float:
    shares = [(c["miss_share"] or 0.0) / max(c["allowed_share"], 1e-9) for c in document["verdicts"][0]["constraints"]]
    return float(max(shares, default=0.0))


def _rounded(load: float) -> float:
    """To four figures, so that the same search names the same cells again."""
    return float(f"{load:.4g}")

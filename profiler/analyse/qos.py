"""QoS targets as text: `ttft_p95<=500ms, tpot_p95<=80ms, error_rate<=1%` or `99% of requests: ttft<=500ms, tpot<=50ms`.

    target     = preset | clause (";" clause)*
    clause     = condition ("," condition)*  |  NUMBER "% of requests:" limit ("," limit)*
    condition  = METRIC "_p" NUMBER ("<"|"<=") NUMBER UNIT  |  "error_rate" ("<"|"<=") NUMBER "%"
    limit      = METRIC ("<"|"<=") NUMBER UNIT

Every condition becomes one statement about shares: "at least `percent` % of the requests are answered and keep these limits". So
`ttft_p95<=500ms` asks 95 % of the requests to keep 500 ms, and `error_rate<=1%` asks 99 % to be answered at all. A failed, cancelled
or unfinished request keeps no limit. `ttft` and `e2e` count from the intended send, because that is what a user waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NoReturn, Protocol, TypeVar

from profiler.errors import QosError, did_you_mean

Op = Literal["<", "<="]
Item = TypeVar("Item")


class Measured(Protocol):
    """What a limit is checked against: a RequestRecord, or anything with its latency fields."""

    @property
    def error_kind(self) -> str | None: ...
    @property
    def done_ns(self) -> int | None: ...
    @property
    def ttft_sched_s(self) -> float | None: ...
    @property
    def tpot_s(self) -> float | None: ...
    @property
    def max_icl_s(self) -> float | None: ...
    @property
    def e2e_sched_s(self) -> float | None: ...


# What each metric of a target reads, and whether a request without it (an answer of a single token) keeps the limit vacuously.
METRICS: dict[str, tuple[str, Callable[[Measured], float | None], bool]] = {
    "ttft": ("ttft_sched_s", lambda r: r.ttft_sched_s, False),
    "tpot": ("tpot_s", lambda r: r.tpot_s, True),
    "icl": ("max_icl_s", lambda r: r.max_icl_s, True),
    "e2e": ("e2e_sched_s", lambda r: r.e2e_sched_s, False),
}
UNITS = {"us": Decimal("1e-6"), "µs": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "min": Decimal(60)}


@dataclass(frozen=True)
class Preset:
    """A named target and where its figures come from."""

    text: str
    source: str


PRESETS: dict[str, Preset] = {
    "chat": Preset(
        "ttft_p95<=1s, tpot_p95<=100ms, error_rate<=1%",
        "1 s keeps the flow of thought (Nielsen, Usability Engineering, 1993, ch. 5); 100 ms per token is about twice the speed of silent "
        "reading, 238 words/min at 1.3 tokens a word (Brysbaert, J. of Memory and Language 109, 2019)",
    ),
    "mlperf-server-8b": Preset(
        "ttft_p99<=2s, tpot_p99<=100ms", "MLPerf Inference 5.1, Llama-3.1-8B, server scenario: p99 TTFT 2 s, p99 TPOT 100 ms"
    ),
}


@dataclass(frozen=True)
class Limit:
    metric: str
    op: Op
    limit_s: float

    def kept_by(self, request: Measured) -> bool:
        """Whether an answered request keeps the limit."""
        _, read, vacuous = METRICS[self.metric]
        value = read(request)
        if value is None:
            return vacuous
        return value < self.limit_s if self.op == "<" else value <= self.limit_s

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{_duration(self.limit_s)}"


@dataclass(frozen=True)
class Constraint:
    """At least (`strict`: more than) `percent` % of the requests are answered and keep all `limits`."""

    kind: Literal["percentile", "joint", "error_rate"]
    percent: float
    limits: tuple[Limit, ...] = ()
    strict: bool = False  # only an error rate can be: "<" of a percentile is in its limit

    @property
    def share(self) -> float:
        """`percent` as a fraction: 0.95 for p95."""
        return float(_decimal(self.percent) / 100)

    @property
    def allowed_misses(self) -> float:
        """The share of requests that may miss, e.g. 0.05 for p95; computed in decimals so that 100 − 99.9 is 0.1."""
        return float((100 - _decimal(self.percent)) / 100)

    def met_by(self, request: Measured) -> bool:
        return answered(request) and all(limit.kept_by(request) for limit in self.limits)

    def __str__(self) -> str:
        if self.kind == "error_rate":
            return f"error_rate{'<' if self.strict else '<='}{_plain(100 - _decimal(self.percent))}%"
        if self.kind == "percentile":
            limit = self.limits[0]
            return f"{limit.metric}_p{_plain(_decimal(self.percent))}{limit.op}{_duration(limit.limit_s)}"
        return f"{_plain(_decimal(self.percent))}% of requests: {', '.join(str(limit) for limit in self.limits)}"


@dataclass(frozen=True)
class QosTarget:
    """All constraints together. `text` is what the user wrote; `str()` is the canonical form, which parses to an equal target."""

    constraints: tuple[Constraint, ...]
    text: str = field(default="", compare=False)

    def met_by(self, request: Measured) -> bool:
        """Whether the request keeps every threshold of the target: what goodput counts."""
        return all(constraint.met_by(request) for constraint in self.constraints)

    def __str__(self) -> str:
        parts = [str(constraint) for constraint in self.constraints]
        joint = any(constraint.kind == "joint" for constraint in self.constraints)
        return ("; " if joint else ", ").join(parts)


def answered(request: Measured) -> bool:
    """Answered in full: no error, and the last byte arrived."""
    return request.error_kind is None and request.done_ns is not None


def parse(text: str) -> QosTarget:
    """Read a target or the name of a preset. Raises QosError that points at the character and says what would be right."""
    name = text.strip().lower()
    if name in PRESETS:
        return QosTarget(parse(PRESETS[name].text).constraints, text.strip())
    reader = Reader(text)
    if re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) and name not in METRICS and name not in AMBIGUOUS:
        near = did_you_mean(name, [*PRESETS, *METRICS]) or f"presets: {', '.join(PRESETS)}; or write e.g. ttft_p95<=500ms"
        reader.fail(reader.skip_space(), f"no preset called {name!r}", near)
    return reader.target()


class Reader:
    """Reads left to right; `at` is the character it looks at. The rules of a comparison are read by it as well."""

    what = "QoS target"

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def target(self) -> QosTarget:
        if self.ends():
            self.fail(0, "it is empty", "write e.g. ttft_p95<=500ms, tpot_p95<=80ms")
        constraints: list[Constraint] = []
        while True:
            constraints += self._clause()
            if self.ends():
                return QosTarget(tuple(constraints), self.text.strip())
            self.take(r";", "expected ',' or ';' or the end", "separate conditions with commas")

    def _clause(self) -> list[Constraint]:
        if re.match(r"\s*[0-9.]", self.text[self.at :]):
            percent = self._percent("99% of requests: ttft<=500ms")
            self.take(r"of\s+requests\s*:", "expected 'of requests:'", "write 99% of requests: ttft<=500ms, tpot<=50ms")
            return [Constraint("joint", percent, tuple(self._list(self._limit)))]
        return self._list(self._condition)

    def _list(self, item: Callable[[], Item]) -> list[Item]:
        items = [item()]
        while self._found(r","):
            items.append(item())
        return items

    def _condition(self) -> Constraint:
        start, metric = self.word()
        if metric == "error_rate":
            op = self._op()
            start = self.skip_space()
            rate = _decimal(self._percent("error_rate<=1%", whole=True))
            if rate <= 0 or rate >= 100:
                self.fail(
                    start, f"an error rate of {_plain(rate)}% cannot be proven by any number of requests", "write e.g. error_rate<=1%"
                )
            return Constraint("error_rate", float(100 - rate), strict=op == "<")
        name, _, statistic = metric.partition("_")
        if name not in METRICS:
            self.fail_metric(start, name if name in AMBIGUOUS else metric)
        percent = self.percentile(start, name, statistic, f"write e.g. {name}_p95<=…, or: 95% of requests: {name}<=…")
        op, limit_s = self._op(), self._duration()
        return Constraint("percentile", percent, (Limit(name, op, limit_s),))

    def percentile(self, start: int, name: str, statistic: str, hint: str) -> float:
        """`p99.9` as 99.9; fails at `start`."""
        if not re.fullmatch(r"p[0-9]+(\.[0-9]+)?", statistic):
            what = f"{statistic!r} is not a percentile" if statistic else f"which share of requests must keep the limit on {name}?"
            self.fail(start, what, hint)
        if not 0 < Decimal(statistic[1:]) < 100:
            self.fail(start, f"{statistic} is not between 0 and 100", f"write e.g. {name}_p95 or {name}_p99.9")
        return float(statistic[1:])

    def _limit(self) -> Limit:
        start, metric = self.word()
        if metric not in METRICS:
            if metric == "error_rate" or metric.partition("_p")[0] in METRICS:
                hint = f"the share is said once, in front: {', '.join(METRICS)}; other conditions follow after ';'"
                self.fail(start, f"{metric} cannot stand after 'of requests:'", hint)
            self.fail_metric(start, metric)
        return Limit(metric, self._op(), self._duration())

    def word(self) -> tuple[int, str]:
        start = self.skip_space()
        return start, self.take(r"[a-z][a-z0-9_]*(?:\.[0-9]+)?", "expected a metric", f"one of {_METRIC_NAMES}").lower()

    def _op(self) -> Op:
        found = self.take(r"<=|<|≤", "expected < or <=", "a limit is an upper bound: write <=")
        return "<" if found == "<" else "<="

    def _duration(self) -> float:
        start = self.skip_space()
        number = self.take(r"[0-9]+(?:\.[0-9]+)?", "expected a number", "write e.g. 500ms or 1.5s")
        at = self.skip_space()
        unit = self.take(r"[a-zµ]*", "", "").lower()
        if unit not in UNITS:
            what = f"{unit!r} is not a unit of time" if unit else "a unit of time is missing"
            self.fail(at, what, f"write {number}ms or {number}s ({', '.join(UNITS)})")
        if Decimal(number) == 0:
            self.fail(start, "a limit of 0 can never be kept", "write e.g. 500ms")
        return float(Decimal(number) * UNITS[unit])

    def _percent(self, example: str, whole: bool = False) -> float:
        start = self.skip_space()
        number = self.take(r"[0-9]+(?:\.[0-9]+)?", "expected a percentage", f"write e.g. {example}")
        self.take(r"%", "expected %", f"write e.g. {example}")
        if not whole and not 0 < Decimal(number) < 100:
            self.fail(start, f"{number}% of requests cannot be proven by any number of requests", f"write e.g. {example}")
        return float(number)

    def take(self, pattern: str, problem: str, hint: str) -> str:
        start = self.skip_space()
        match = re.compile(pattern, re.IGNORECASE).match(self.text, start)
        if match is None:
            seen = "the target ends" if self.ends() else f"found {self.text[start]!r}"
            self.fail(start, f"{problem}, {seen}", hint)
        self.at = match.end()
        return match.group()

    def _found(self, pattern: str) -> bool:
        match = re.compile(pattern).match(self.text, self.skip_space())
        self.at = match.end() if match else self.at
        return match is not None

    def skip_space(self) -> int:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at

    def ends(self) -> bool:
        return self.skip_space() == len(self.text)

    def fail_metric(self, at: int, name: str) -> NoReturn:
        if name in AMBIGUOUS:
            self.fail(at, f"{name} means different things in different tools", "write tpot (mean per token) or icl (longest gap)")
        self.fail(at, f"no metric called {name!r}", did_you_mean(name, [*METRICS, "error_rate"]) or f"one of {_METRIC_NAMES}")

    def fail(self, at: int, what: str, hint: str) -> NoReturn:
        line = self.text.replace("\n", " ")
        raise QosError(f"{self.what}, character {at + 1}: {what}", hint=hint, detail=f"{line}\n{' ' * at}^")


AMBIGUOUS = ("itl", "tbt")
_METRIC_NAMES = ", ".join(f"{name}_p95" for name in METRICS) + ", error_rate"


def _decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _duration(seconds: float) -> str:
    """In ms below one second, exact: the decimals of the float itself."""
    value = _decimal(seconds)
    return f"{_plain(value * 1000)}ms" if value < 1 else f"{_plain(value)}s"

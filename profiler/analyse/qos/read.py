"""QoS targets as text: `ttft_p95<=500ms, tpot_p95<=80ms, error_rate<=1%` or `99% of requests have ttft<=500ms and tpot<=50ms`.

target     = preset | clause (";" clause)*
clause     = condition (sep condition)*  |  NUMBER "% of requests" (":" | "have") limit (sep limit)*        sep = "," | "and"
condition  = METRIC "_p" NUMBER bound  |  "error_rate" ("<"|"<=") NUMBER "%"  |  FLOOR ">=" NUMBER
           | "makespan" "<=" DURATION ["for" NUMBER "requests"]
limit      = METRIC bound
bound      = ("<"|"<=") DURATION ["+" DURATION "*isl"]                                                       of ttft and e2e
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import NoReturn, TypeVar

from profiler.analyse.qos.presets import PRESETS
from profiler.analyse.qos.target import FLOORS, METRICS, UNITS, Constraint, Floor, Limit, Op, QosTarget, decimal, plain
from profiler.errors import QosError, did_you_mean

Item = TypeVar("Item")


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
            hint = "write 99% of requests: ttft<=500ms, tpot<=50ms"
            self.take(r"of\s+requests(\s*:|\s+(have|keep)\b)", "expected 'of requests:'", hint)
            return [Constraint("joint", percent, tuple(self._list(self._limit)))]
        return self._list(self._condition)

    def _list(self, item: Callable[[], Item]) -> list[Item]:
        items = [item()]
        while self._found(r",|and\b"):
            items.append(item())
        return items

    def _condition(self) -> Constraint:
        start, metric = self.word()
        if metric == "error_rate":
            op = self._op()
            start = self.skip_space()
            rate = decimal(self._percent("error_rate<=1%", whole=True))
            if rate <= 0 or rate >= 100:
                self.fail(start, f"an error rate of {plain(rate)}% cannot be proven by any number of requests", "write e.g. error_rate<=1%")
            return Constraint("error_rate", float(100 - rate), strict=op == "<")
        if metric in FLOORS:
            return self._floor(metric)
        if metric == "makespan":
            return self._makespan()
        name, _, statistic = metric.partition("_")
        if name not in METRICS:
            self.fail_metric(start, name if name in AMBIGUOUS else metric)
        percent = self.percentile(start, name, statistic, f"write e.g. {name}_p95<=…, or: 95% of requests: {name}<=…")
        return Constraint("percentile", percent, (self._bound(name),))

    def percentile(self, start: int, name: str, statistic: str, hint: str) -> float:
        """`p99.9` as 99.9; fails at `start`."""
        if not re.fullmatch(r"p[0-9]+(\.[0-9]+)?", statistic):
            what = f"{statistic!r} is not a percentile" if statistic else f"which share of requests must keep the limit on {name}?"
            self.fail(start, what, hint)
        if not 0 < Decimal(statistic[1:]) < 100:
            self.fail(start, f"{statistic} is not between 0 and 100", f"write e.g. {name}_p95 or {name}_p99.9")
        return float(statistic[1:])

    def _bound(self, metric: str) -> Limit:
        """What follows a metric: `<=500ms`, `<=200ms+0.5ms*isl`."""
        op, limit_s = self._op(), self._duration()
        if not self._found(r"\+"):
            return Limit(metric, op, limit_s)
        start, per_token_s = self.skip_space(), self._duration()
        self.take(r"\*\s*isl\b", "expected '*isl'", f"a limit grows with the prompt only: write {metric}<=200ms+0.5ms*isl")
        if metric in ("tpot", "icl"):
            self.fail(start, f"a limit on {metric} does not grow with the prompt", f"write it of ttft or e2e, or {metric}<=80ms")
        return Limit(metric, op, limit_s, per_token_s)

    def _floor(self, metric: str) -> Constraint:
        example = f"{metric}>=100"
        self.take(r">=|≥", "expected >=", f"{metric} is a floor: write {example}")
        start = self.skip_space()
        number = self.take(r"[0-9]+(?:\.[0-9]+)?", "expected a number", f"write {example} ({FLOORS[metric]})")
        self._found(re.escape(FLOORS[metric]))
        if Decimal(number) == 0:
            self.fail(start, "a floor of 0 is always kept", f"write {example}")
        return Constraint("floor", 0.0, floor=Floor(metric, least=float(number)))

    def _makespan(self) -> Constraint:
        self.take(r"<=|≤", "expected <=", "write makespan<=4h, or makespan<=4h for 10000 requests")
        within_s, requests = self._duration(), None
        if self._found(r"for\b"):
            start = self.skip_space()
            requests = int(self.take(r"[0-9]+", "expected a number of requests", "write makespan<=4h for 10000 requests"))
            self.take(r"requests\b", "expected 'requests'", "write makespan<=4h for 10000 requests")
            if requests == 0:
                self.fail(start, "0 requests take no time", "write makespan<=4h for 10000 requests")
        return Constraint("makespan", 0.0, floor=Floor("makespan", within_s=within_s, requests=requests))

    def _limit(self) -> Limit:
        start, metric = self.word()
        if metric not in METRICS:
            if metric in ("error_rate", "makespan", *FLOORS) or metric.partition("_p")[0] in METRICS:
                hint = f"the share is said once, in front: {', '.join(METRICS)}; other conditions follow after ';'"
                self.fail(start, f"{metric} cannot stand after 'of requests:'", hint)
            self.fail_metric(start, metric)
        return self._bound(metric)

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
        match = re.compile(pattern, re.IGNORECASE).match(self.text, self.skip_space())
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
        self.fail(
            at, f"no metric called {name!r}", did_you_mean(name, [*METRICS, "error_rate", "makespan", *FLOORS]) or f"one of {_METRIC_NAMES}"
        )

    def fail(self, at: int, what: str, hint: str) -> NoReturn:
        line = self.text.replace("\n", " ")
        raise QosError(f"{self.what}, character {at + 1}: {what}", hint=hint, detail=f"{line}\n{' ' * at}^")


AMBIGUOUS = ("itl", "tbt")
_METRIC_NAMES = ", ".join(f"{name}_p95" for name in METRICS) + ", error_rate, output_tps, total_tps, request_rate, makespan"

"""Rules of a comparison as text: `ttft_p99 > +5%`, `output_tps < -3%`, `error_rate > +0.5pp`; what breaks one is a regression.

    rule   = NAME (">" | "<") ["+" | "-"] NUMBER UNIT
    NAME   = METRIC "_p" NUMBER | METRIC "_mean" | RUN_METRIC | "error_rate"
    UNIT   = "%" of the base, or "pp" (percentage points) of an error rate; a limit of 0 needs none

METRIC, its percentiles and what they mean are those of QoS targets (profiler.analyse.qos), read by the same reader. The sign says in which
direction it is worse, so a rule on the other side of a metric is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from profiler.analyse.qos import AMBIGUOUS, METRICS, Reader
from profiler.errors import did_you_mean

Kind = Literal["latency", "run", "error_rate"]


@dataclass(frozen=True)
class RunMetric:
    """A column of `runs` that can be compared; `worse` is the side a regression lies on."""

    column: str
    unit: str
    worse: Literal[">", "<"]


RUN_METRICS = {
    "output_tps": RunMetric("output_tps", "tokens/s", "<"),
    "total_tps": RunMetric("total_tps", "tokens/s", "<"),
    "request_rate": RunMetric("request_rate", "1/s", "<"),
    "goodput": RunMetric("goodput", "1/s", "<"),
    "energy_per_output_token": RunMetric("energy_per_output_token_j", "J", ">"),
    "energy_per_request": RunMetric("energy_per_request_j", "J", ">"),
    "peak_memory": RunMetric("peak_memory_bytes", "bytes", ">"),
    "ready": RunMetric("ready_s", "s", ">"),
}
DEFAULT_RULES = ("ttft_p95 > +5%", "tpot_p95 > +5%", "output_tps < -5%")  # of a comparison that was given none
NAMES = (*(f"{name}_p95" for name in METRICS), *(f"{name}_mean" for name in METRICS), "error_rate", *RUN_METRICS)


@dataclass(frozen=True)
class Rule:
    """`limit`: the ratio new / base that is still allowed (1.05 for +5 %), of an error rate the difference of shares (0.005 for +0.5pp)."""

    text: str
    kind: Kind
    metric: str
    statistic: float | None  # percentile, 99.0 for p99; None: the mean, or not a latency
    op: Literal[">", "<"]
    limit: float

    @property
    def name(self) -> str:
        """`ttft_p99`, `tpot_mean`, `output_tps`."""
        if self.kind != "latency":
            return self.metric
        return f"{self.metric}_{'mean' if self.statistic is None else f'p{self.statistic:g}'}"

    @property
    def unit(self) -> str:
        return "s" if self.kind == "latency" else "" if self.kind == "error_rate" else RUN_METRICS[self.metric].unit

    @property
    def limit_words(self) -> str:
        """`+5%`, `-3%`, `+0.5pp`."""
        points = self.limit if self.kind == "error_rate" else self.limit - 1
        return f"{round(points * 100, 6) + 0.0:+g}{'pp' if self.kind == 'error_rate' else '%'}"

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.limit_words}"


def parse(text: str) -> Rule:
    """One rule. Raises QosError that points at the character and says what would be right."""
    return _RuleReader(text).rule()


def percent(ratio: float) -> str:
    """A ratio as a change: `+5%`, `-3.2%`; of a rise beyond ten times the factor."""
    if not math.isfinite(ratio):
        return "∞"
    return f"×{ratio:.3g}" if ratio >= 10 else f"{round((ratio - 1) * 100, 6) + 0.0:+.3g}%"


class _RuleReader(Reader):
    what = "rule"

    def rule(self) -> Rule:
        if self.ends():
            self.fail(0, "it is empty", "write e.g. ttft_p99 > +5%")
        start, name = self.word()
        kind, metric, statistic, worse = self._name(start, name)
        at = self.skip_space()
        op = self.take(r"<=|>=|<|>|≤|≥", "expected > or <", f"write e.g. {name} {worse} {'+' if worse == '>' else '-'}5%")[0]
        op = {"≤": "<", "≥": ">"}.get(op, op)
        if op != worse:
            side, sign = ("rise", "+") if worse == ">" else ("fall", "-")
            self.fail(at, f"a {side} of {name} is what is worse", f"write {name} {worse} {sign}5%")
        limit = self._change(kind, name)
        if not self.ends():
            self.fail(self.skip_space(), "expected the end", "one rule at a time: repeat --fail-if for another")
        return Rule(self.text.strip(), kind, metric, statistic, ">" if op == ">" else "<", limit)

    def _name(self, start: int, name: str) -> tuple[Kind, str, float | None, str]:
        if name == "error_rate":
            return "error_rate", name, None, ">"
        if name in RUN_METRICS:
            return "run", name, None, RUN_METRICS[name].worse
        metric, _, statistic = name.partition("_")
        if metric in AMBIGUOUS:
            self.fail_metric(start, metric)
        if metric not in METRICS:
            self.fail(start, f"no metric called {name!r}", did_you_mean(name, NAMES) or f"one of {', '.join(NAMES)}")
        if statistic == "mean":
            return "latency", metric, None, ">"
        return "latency", metric, self.percentile(start, metric, statistic, f"write e.g. {metric}_p95 or {metric}_mean"), ">"

    def _change(self, kind: Kind, name: str) -> float:
        start = self.skip_space()
        sign = -1 if self.take(r"[+-]?", "", "") == "-" else 1
        number = sign * float(self.take(r"[0-9]+(?:\.[0-9]+)?", "expected a change", f"write e.g. {name} > +5%"))
        at = self.skip_space()
        unit = self.take(r"%|pp|[a-zµ]*", "", "").lower()
        right = "pp" if kind == "error_rate" else "%"
        if number and unit != right:
            points = (
                "an error rate is compared in percentage points, as it may be 0" if kind == "error_rate" else "a change is in % of the base"
            )
            self.fail(at, points, f"write {number:+g}{right}")
        if unit not in ("", "%", "pp"):
            self.fail(at, f"{unit!r} is not a unit of change", f"write {number:+g}{right}")
        if kind == "error_rate":
            if not -100 < number < 100:
                self.fail(start, "no error rate can change so far", "write e.g. +0.5pp")
            return number / 100
        if number <= -100:
            self.fail(start, "nothing can fall by 100% or more", "write e.g. -5%")
        return 1 + number / 100

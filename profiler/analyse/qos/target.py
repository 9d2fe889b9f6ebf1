"""What a QoS target is: statements about shares of requests, and about a run as a whole.

Every condition on a request becomes one statement about shares: "at least `percent` % of the requests are answered and keep these limits". So
`ttft_p95<=500ms` asks 95 % of the requests to keep 500 ms, and `error_rate<=1%` asks 99 % to be answered at all. A failed, cancelled
or unfinished request keeps no limit. `ttft` and `e2e` count from the intended send, because that is what a user waits.

A floor (`output_tps>=100`) or a makespan is about the run as a whole: no request keeps or misses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, Protocol

Op = Literal["<", "<="]
Kind = Literal["percentile", "joint", "error_rate", "floor", "makespan"]


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
    @property
    def prompt_tokens(self) -> int | None: ...


# What each metric of a target reads, and whether a request without it (an answer of a single token) keeps the limit vacuously.
METRICS: dict[str, tuple[str, Callable[[Measured], float | None], bool]] = {
    "ttft": ("ttft_sched_s", lambda r: r.ttft_sched_s, False),
    "tpot": ("tpot_s", lambda r: r.tpot_s, True),
    "icl": ("max_icl_s", lambda r: r.max_icl_s, True),
    "e2e": ("e2e_sched_s", lambda r: r.e2e_sched_s, False),
}
UNITS = {"us": Decimal("1e-6"), "µs": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600)}
FLOORS = {"output_tps": "tokens/s", "total_tps": "tokens/s", "request_rate": "requests/s"}  # columns of `runs`, per whole endpoint


@dataclass(frozen=True)
class Limit:
    """`metric` at most `limit_s`, and `per_token_s` more for each token of the request's prompt."""

    metric: str
    op: Op
    limit_s: float
    per_token_s: float = 0.0

    def value(self, request: Measured) -> float | None:
        """What `limit_s` is held against, s: the metric, without what the prompt's length allows; None where the request has none."""
        value = METRICS[self.metric][1](request)
        if value is None or not self.per_token_s:
            return value
        return None if request.prompt_tokens is None else value - self.per_token_s * request.prompt_tokens

    def kept_by(self, request: Measured) -> bool:
        """Whether an answered request keeps the limit. One whose prompt nobody counted does not keep a limit that grows with it."""
        value = self.value(request)
        if value is None:
            _, read, vacuous = METRICS[self.metric]
            return vacuous and read(request) is None
        return value < self.limit_s if self.op == "<" else value <= self.limit_s

    def at(self, isl: float) -> float:
        """The limit of a prompt of `isl` tokens, s."""
        return self.limit_s + self.per_token_s * isl

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{limit_words(self.limit_s, self.per_token_s)}"


@dataclass(frozen=True)
class Floor:
    """The whole run: at least `least` (a rate of FLOORS), or `requests` answered within `within_s` (None: the run's own requests)."""

    metric: str
    least: float | None = None
    within_s: float | None = None
    requests: int | None = None

    def __str__(self) -> str:
        if self.within_s is None:
            return f"{self.metric}>={plain(decimal(self.least or 0.0))}"
        count = f" for {self.requests} requests" if self.requests is not None else ""
        return f"makespan<={duration(self.within_s)}{count}"


@dataclass(frozen=True)
class Constraint:
    """At least (`strict`: more than) `percent` % of the requests are answered and keep all `limits`; of a floor or makespan see `Floor`."""

    kind: Kind
    percent: float
    limits: tuple[Limit, ...] = ()
    strict: bool = False  # only an error rate can be: "<" of a percentile is in its limit
    floor: Floor | None = None  # of kind floor and makespan, whose `percent` is 0: any request may miss

    @property
    def share(self) -> float:
        """`percent` as a fraction: 0.95 for p95."""
        return float(decimal(self.percent) / 100)

    @property
    def allowed_misses(self) -> float:
        """The share of requests that may miss, e.g. 0.05 for p95; computed in decimals so that 100 − 99.9 is 0.1."""
        return float((100 - decimal(self.percent)) / 100)

    def met_by(self, request: Measured) -> bool:
        """A floor is met by every request, since it is about none of them."""
        if self.floor is not None:
            return True
        if not answered(request):
            return False
        for limit in self.limits:  # noqa: SIM110 - all() takes 1.7 times as long, and each simulated request is asked
            if not limit.kept_by(request):
                return False
        return True

    def __str__(self) -> str:
        if self.floor is not None:
            return str(self.floor)
        if self.kind == "error_rate":
            return f"error_rate{'<' if self.strict else '<='}{plain(100 - decimal(self.percent))}%"
        if self.kind == "percentile":
            limit = self.limits[0]
            return f"{limit.metric}_p{plain(decimal(self.percent))}{limit.op}{limit_words(limit.limit_s, limit.per_token_s)}"
        return f"{plain(decimal(self.percent))}% of requests: {', '.join(str(limit) for limit in self.limits)}"


@dataclass(frozen=True)
class QosTarget:
    """All constraints together. `text` is what the user wrote; `str()` is the canonical form, which parses to an equal target."""

    constraints: tuple[Constraint, ...]
    text: str = field(default="", compare=False)

    @property
    def of_requests(self) -> QosTarget:
        """Without floors and makespans: what a limit over loads, a replay or a fleet is held against."""
        return QosTarget(tuple(c for c in self.constraints if c.floor is None), self.text)

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


def decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """In ms below one second, exact: the decimals of the float itself."""
    value = decimal(seconds)
    return f"{plain(value * 1000)}ms" if value < 1 else f"{plain(value)}s"


def limit_words(limit_s: float, per_token_s: float) -> str:
    """`500ms`, `200ms+0.5ms*isl`."""
    return duration(limit_s) + (f"+{duration(per_token_s)}*isl" if per_token_s else "")

"""When requests are sent in an open loop: pure functions of a process, a rate, a length and a seed.

`parse` reads what users write: `poisson`, `constant`, `gamma:cv=2`, `ramp:from=1,to=4,over=60s`, `step:1x30s,3x30s`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from profiler.errors import SpecError, did_you_mean
from profiler.units import NS_PER_S, parse_duration_s

Segment = tuple[float, float, float]  # rate at its start and at its end, 1/s, linear between them; length, s
EXAMPLES = {
    "poisson": "poisson",
    "constant": "constant",
    "gamma": "gamma:cv=2",
    "ramp": "ramp:from=1,to=4,over=60s",
    "step": "step:1x30s,3x30s",
}


@dataclass(frozen=True)
class Renewal:
    """Independent gaps with mean 1/rate. `cv`: their coefficient of variation; 1 for Poisson, 0 for constant."""

    kind: Literal["poisson", "constant", "gamma"]
    cv: float

    def __str__(self) -> str:
        return f"gamma cv={self.cv:g}" if self.kind == "gamma" else self.kind


@dataclass(frozen=True)
class Ramp:
    """Poisson arrivals whose rate goes linearly from `start` to `end`, 1/s. `over_s` None: over the sweep's shortest window."""

    start: float
    end: float
    over_s: float | None = None

    def __str__(self) -> str:
        return f"ramp {self.start:g} to {self.end:g}/s" + (f" over {self.over_s:g}s" if self.over_s is not None else "")


@dataclass(frozen=True)
class Step:
    """Poisson arrivals whose rate is constant within each of `steps`: (rate in 1/s, length in s)."""

    steps: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        return "step " + ", ".join(f"{rate:g}/s for {length:g}s" for rate, length in self.steps)


Process = Renewal | Ramp | Step


def parse(text: str, where: str = "arrivals") -> Process:
    """Read a process. Raises SpecError that names the wrong part and its position in `text`."""
    kind, _, settings = text.strip().partition(":")
    parts = _Parts(text, where)
    if kind not in EXAMPLES:
        known = f"the processes are {', '.join(EXAMPLES)}"
        parts.fail(kind, "not an arrival process", did_you_mean(kind, EXAMPLES) or known)
    if kind in ("poisson", "constant"):
        if settings:
            parts.fail(settings, f"{kind} takes no settings; its rate comes from rates")
        return Renewal("poisson", 1.0) if kind == "poisson" else Renewal("constant", 0.0)
    if kind == "step":
        return Step(tuple(parts.step(part) for part in settings.split(",")))
    return _gamma(parts, settings) if kind == "gamma" else _ramp(parts, settings)


def _gamma(parts: _Parts, settings: str) -> Renewal:
    given = parts.settings(settings, ("cv", "shape"))
    if len(given) != 1:
        parts.fail(settings, "gamma takes one of cv and shape (cv = 1 / sqrt(shape))")
    name, text = next(iter(given.items()))
    value = parts.number(text)
    if value <= 0:
        parts.fail(text, f"{name} must be above 0")
    return Renewal("gamma", value if name == "cv" else 1 / math.sqrt(value))


def _ramp(parts: _Parts, settings: str) -> Ramp:
    given = parts.settings(settings, ("from", "to", "over"))
    for name in ("from", "to"):
        if name not in given:
            parts.fail(settings, f"ramp needs {name}=RATE")
    start, end = parts.number(given["from"]), parts.number(given["to"])
    if start == end == 0:
        parts.fail(settings, "a ramp from 0 to 0 sends nothing")
    return Ramp(start, end, parts.duration(given["over"]) if "over" in given else None)


class _Parts:
    """Reads pieces of one text and says where a wrong one stands."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where

    def fail(self, part: str, why: str, hint: str | None = None) -> NoReturn:
        place = f" at character {self._text.index(part) + 1}" if part and part in self._text else ""
        kind = self._text.strip().partition(":")[0]
        example = f"such as {EXAMPLES[kind]}" if kind in EXAMPLES else None
        raise SpecError(f"{self._where}: {self._text!r}: {part!r}{place}: {why}", hint=hint or example)

    def settings(self, text: str, known: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for part in text.split(",") if text else ():
            name, equals, value = (x.strip() for x in part.partition("="))
            if not equals:
                self.fail(part, f"not a setting NAME=VALUE with one of {', '.join(known)}")
            if name not in known:
                self.fail(
                    part, f"no such setting; there {'is' if len(known) == 1 else 'are'} {', '.join(known)}", did_you_mean(name, known)
                )
            if name in found:
                self.fail(part, "given twice")
            found[name] = value
        return found

    def number(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            self.fail(text, "not a number")
        if not (value >= 0 and math.isfinite(value)):
            self.fail(text, "must be 0 or more and finite")
        return value

    def duration(self, text: str) -> float:
        try:
            value = parse_duration_s(text)
        except ValueError as error:
            self.fail(text, str(error))
        if value <= 0:
            self.fail(text, "must be longer than 0")
        return value

    def step(self, part: str) -> tuple[float, float]:
        rate, times, length = part.strip().partition("x")
        if not times:
            self.fail(part, "not RATExDURATION")
        return self.number(rate.strip()), self.duration(length.strip())


def segments(process: Ramp | Step, default_s: float) -> tuple[Segment, ...]:
    """The rate over the window. `default_s`: length of a ramp that names none. Raises SpecError when nothing would be sent."""
    if isinstance(process, Ramp):
        return ((process.start, process.end, process.over_s if process.over_s is not None else default_s),)
    if not any(rate > 0 for rate, _ in process.steps):
        raise SpecError("arrivals: all steps have rate 0: nothing would be sent", hint=f"such as {EXAMPLES['step']}")
    return tuple((rate, rate, length) for rate, length in process.steps)


def mean_rate(parts: Sequence[Segment]) -> float:
    """Expected arrivals / total length, 1/s."""
    return sum((a + b) / 2 * length for a, b, length in parts) / sum(length for _, _, length in parts)


def renewal_offsets_ns(process: Renewal, rate: float, duration_s: float, seed: int) -> tuple[int, ...]:
    """Send times in [0, `duration_s`), ns from the start, of a renewal process. Raises ValueError unless `rate` is above 0 and finite."""
    if process.kind == "constant":
        return constant_offsets_ns(rate, duration_s)
    if process.kind == "poisson":
        return poisson_offsets_ns(rate, duration_s, seed)
    return gamma_offsets_ns(rate, process.cv, duration_s, seed)


def poisson_offsets_ns(rate: float, duration_s: float, seed: int) -> tuple[int, ...]:
    """Send times of a Poisson process in [0, `duration_s`), ns from the start.

    Gaps are independent and exponential with mean 1/`rate` s: users who know nothing of one another. Raises ValueError unless
    `rate` is above 0 and finite.
    """
    _check(rate)
    draw = random.Random(seed)
    offsets = []
    t_s = draw.expovariate(rate)
    while t_s < duration_s:
        offsets.append(int(t_s * NS_PER_S))
        t_s += draw.expovariate(rate)
    return tuple(offsets)


def constant_offsets_ns(rate: float, duration_s: float) -> tuple[int, ...]:
    """Equally spaced send times in [0, `duration_s`), ns from the start; the first at 0. Raises ValueError as above."""
    _check(rate)
    count = math.ceil(duration_s * rate)
    return tuple(t for i in range(count) if (t := int(i * NS_PER_S / rate)) < duration_s * NS_PER_S)


def gamma_offsets_ns(rate: float, cv: float, duration_s: float, seed: int) -> tuple[int, ...]:
    """Send times of a renewal process with gamma gaps: mean 1/`rate` s, coefficient of variation `cv`.

    Shape 1/cv², scale cv²/rate. Over long times the variance of the count over its mean (index of dispersion) tends to cv² (Cox,
    Renewal Theory, 1962, 4.5): cv > 1 is burstier than Poisson, cv < 1 smoother. The first gap is a whole one. Raises ValueError as
    above.
    """
    _check(rate)
    draw = random.Random(seed)
    shape, scale = 1 / cv**2, cv**2 / rate
    offsets = []
    t_s = draw.gammavariate(shape, scale)
    while t_s < duration_s:
        offsets.append(int(t_s * NS_PER_S))
        t_s += draw.gammavariate(shape, scale)
    return tuple(offsets)


def profile_offsets_ns(parts: Sequence[Segment], seed: int) -> tuple[int, ...]:
    """Send times of a Poisson process whose rate follows `parts` one after the other, ns from the start.

    By time change: a unit-rate Poisson process mapped through the inverse of the cumulative rate is a Poisson process of that rate
    (Çınlar, Introduction to Stochastic Processes, 1975, 4.7). The cumulative rate is piecewise quadratic; its inverse is closed.
    """
    draw = random.Random(seed)
    offsets = []
    start_s = passed = 0.0
    target = draw.expovariate(1)
    for a, b, length in parts:
        area = (a + b) / 2 * length
        while target < passed + area:
            rest = target - passed
            # a t + (b − a) t² / (2 length) = rest, in the form that neither cancels nor divides by b − a.
            t_s = 2 * rest / (a + math.sqrt(a * a + 2 * (b - a) / length * rest))
            offsets.append(int((start_s + min(t_s, length)) * NS_PER_S))
            target += draw.expovariate(1)
        passed += area
        start_s += length
    return tuple(offsets)


def _check(rate: float) -> None:
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"a request rate must be above 0 and finite, not {rate}")

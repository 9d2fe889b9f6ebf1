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
    whole = _Part(text, 0, text, where)
    kind, settings = whole.split_at(":")
    if kind.text not in EXAMPLES:
        known = f"the processes are {', '.join(EXAMPLES)}"
        kind.fail("not an arrival process", did_you_mean(kind.text, EXAMPLES) or known)
    if kind.text in ("poisson", "constant"):
        if settings.text:
            settings.fail(f"{kind.text} takes no settings; its rate comes from rates")
        return Renewal("poisson", 1.0) if kind.text == "poisson" else Renewal("constant", 0.0)
    if kind.text == "step":
        return Step(tuple(_step(part) for part in settings.split()))
    return _gamma(settings) if kind.text == "gamma" else _ramp(settings)


def _gamma(settings: _Part) -> Renewal:
    given = settings.named(("cv", "shape"))
    if len(given) != 1:
        settings.fail("gamma takes one of cv and shape (cv = 1 / sqrt(shape))")
    name, part = next(iter(given.items()))
    value = part.number()
    if value <= 0:
        part.fail(f"{name} must be above 0")
    return Renewal("gamma", value if name == "cv" else 1 / math.sqrt(value))


def _ramp(settings: _Part) -> Ramp:
    given = settings.named(("from", "to", "over"))
    for name in ("from", "to"):
        if name not in given:
            settings.fail(f"ramp needs {name}=RATE")
    start, end = given["from"].number(), given["to"].number()
    if start == end == 0:
        settings.fail("a ramp from 0 to 0 sends nothing")
    return Ramp(start, end, given["over"].duration() if "over" in given else None)


def _step(part: _Part) -> tuple[float, float]:
    rate, length = part.split_at("x")
    if not length.text:
        part.fail("not RATExDURATION")
    return rate.number(), length.duration()


class _Part:
    """A piece of what the user wrote, without spaces around it, that knows where it stands."""

    def __init__(self, text: str, at: int, whole: str, where: str) -> None:
        self.text = text.strip()
        self._at = at + len(text) - len(text.lstrip())
        self._whole, self._where = whole, where

    def _piece(self, start: int, end: int) -> _Part:
        return _Part(self.text[start:end], self._at + start, self._whole, self._where)

    def split_at(self, sign: str) -> tuple[_Part, _Part]:
        """What stands before and after the first `sign`; the second is empty where there is none."""
        place = self.text.find(sign)
        end = len(self.text)
        return (self._piece(0, place), self._piece(place + 1, end)) if place >= 0 else (self._piece(0, end), self._piece(end, end))

    def split(self) -> list[_Part]:
        """What stands between commas."""
        parts, start = [], 0
        for text in self.text.split(","):
            parts.append(self._piece(start, start + len(text)))
            start += len(text) + 1
        return parts

    def fail(self, why: str, hint: str | None = None) -> NoReturn:
        kind = self._whole.strip().partition(":")[0]
        example = f"such as {EXAMPLES[kind]}" if kind in EXAMPLES else None
        place = f"{self.text!r} at character {self._at + 1}: " if self.text else ""
        raise SpecError(f"{self._where}: {self._whole!r}: {place}{why}", hint=hint or example)

    def named(self, known: Sequence[str]) -> dict[str, _Part]:
        found: dict[str, _Part] = {}
        for part in self.split() if self.text else ():
            name, value = part.split_at("=")
            if not value.text:
                part.fail(f"not a setting NAME=VALUE with one of {', '.join(known)}")
            if name.text not in known:
                part.fail(f"no such setting; there are {', '.join(known)}", did_you_mean(name.text, known))
            if name.text in found:
                part.fail("given twice")
            found[name.text] = value
        return found

    def number(self) -> float:
        try:
            value = float(self.text)
        except ValueError:
            self.fail("not a number")
        if not (value >= 0 and math.isfinite(value)):
            self.fail("must be 0 or more and finite")
        return value

    def duration(self) -> float:
        try:
            value = parse_duration_s(self.text)
        except ValueError as error:
            self.fail(str(error).removeprefix(f"{self.text!r} is "))
        if value <= 0:
            self.fail("must be longer than 0")
        return value


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

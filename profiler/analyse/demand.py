"""What has to be served: requests/s, tokens/s, users with their behaviour, or a trace; and how that is spread over a day."""

from __future__ import annotations

import random
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiler.analyse import margins
from profiler.analyse.margins import NONE_STATED, Margins
from profiler.analyse.qos import of_table
from profiler.errors import SpecError, did_you_mean
from profiler.units import parse_duration_s

SECONDS_PER_MONTH = 8760 / 12 * 3600  # of a year of 365 days
HIGHEST_RPS = 1e6
HIGHEST = {"rps": HIGHEST_RPS, "tps": 1000 * HIGHEST_RPS, "users": 1000 * HIGHEST_RPS}  # beyond: a slip of the unit, or infinite
EXAMPLES = "0.5rps, 30tps, 200users:30s, trace:FILE"
OTHER = 0.2  # mean lengths that differ by more are other lengths


@dataclass(frozen=True)
class Demand:
    """`rate` is the mean over the month, 1/s; `users_think_s` where it follows from users, who also wait for their answers.

    `shape`: factors by hour of the day (their mean is 1); () is flat. `trace_s`: recorded arrival times, s. `tokens_per_s`: output tokens,
    which become requests by the workload's mean output length.
    """

    text: str
    rate: float | None = None
    tokens_per_s: float | None = None
    users: float | None = None
    users_think_s: float = 0.0
    cv: float = 1.0  # of the gaps between arrivals: 1 is Poisson, 0 constant
    shape: tuple[float, ...] = ()
    trace_s: tuple[float, ...] = ()
    trace_lengths: tuple[tuple[int, int], ...] = ()
    note: str = ""  # what of a trace is not in it

    def resolved(self, osl_mean: float | None, e2e_s: float | None) -> Demand:
        """With `rate` known: tokens by the mean output length, users by think time + `e2e_s` (of an answer that keeps the target)."""
        if self.rate is not None:
            return self
        if self.tokens_per_s is not None:
            if not osl_mean:
                raise SpecError(f"demand {self.text!r}: no output length was measured", hint="give the demand in requests/s, e.g. 0.5rps")
            return replace(self, rate=self.tokens_per_s / osl_mean)
        assert self.users is not None
        cycle_s = self.users_think_s + (e2e_s or 0.0)
        if cycle_s <= 0:
            raise SpecError(f"demand {self.text!r}: users without a pause and no measured answer time", hint="write e.g. 200users:30s")
        return replace(self, rate=self.users / cycle_s)

    def other_lengths(self, isl: float | None, osl: float | None) -> str | None:
        """Where a trace's lengths are not those, means in tokens, that λ* was found with; None where they are, or are not known."""
        if not self.trace_lengths or not isl or not osl:
            return None
        own = [sum(pair[i] for pair in self.trace_lengths) / len(self.trace_lengths) for i in (0, 1)]
        if all(abs(a / b - 1) <= OTHER for a, b in zip(own, (isl, osl), strict=True)):
            return None
        return (
            f"the trace's lengths ({own[0]:.0f} in, {own[1]:.0f} out) are not this workload's ({isl:.0f} in, {osl:.0f} out), of which λ* is: "
            f"extrapolated; `profile sweep --trace` measures it, --lengths {own[0]:.0f}:{own[1]:.0f} predicts it"
        )

    @property
    def peak(self) -> float:
        """Highest hour / mean; of a trace its busiest twentieth / mean."""
        if self.trace_s:
            parts = 20
            counts = [0] * parts
            length = self.trace_s[-1] or 1.0
            for t in self.trace_s:
                counts[min(parts - 1, int(t / length * parts))] += 1
            return max(counts) * parts / len(self.trace_s)
        return max(self.shape, default=1.0)

    def arrivals(self, n: int, seed: int) -> list[float]:
        """`n` arrival times at the busiest hour's rate (a shape's peak), s from 0; of a trace its own times, all of them."""
        if self.trace_s:
            return list(self.trace_s)
        assert self.rate is not None
        draw, mean_gap = random.Random(seed), 1 / (self.rate * self.peak)
        shape = 1 / self.cv**2 if self.cv else 0.0
        times, t = [], 0.0
        for _ in range(n):
            t += draw.gammavariate(shape, mean_gap / shape) if shape else mean_gap
            times.append(t)
        return times


def parse(text: str) -> Demand:
    """`0.5rps` (also `0.5/s`), `30tps` (output tokens/s), `200users:30s` (with their pause), `trace:FILE`. Raises SpecError."""
    if text.startswith("trace:"):
        return of_trace(Path(text.removeprefix("trace:")).expanduser(), text)
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(rps|/s|req/s|requests/s|tps|tokens/s|users)\s*(?::\s*(\S+))?\s*", text)
    if match is None:
        raise SpecError(f"demand {text!r}: not a demand", hint=f"write e.g. {EXAMPLES}")
    number, unit, think = float(match.group(1)), match.group(2), match.group(3)
    if number == 0:
        raise SpecError(f"demand {text!r}: a demand of zero needs no replica and has no cost per request", hint=f"write e.g. {EXAMPLES}")
    if think is not None and unit != "users":
        raise SpecError(f"demand {text!r}: only users have a pause", hint=f"write e.g. {EXAMPLES}")
    kind = "users" if unit == "users" else "tps" if unit.startswith("t") else "rps"
    if number > HIGHEST[kind]:
        most = "" if kind == "rps" else f"{HIGHEST[kind]:g} {unit}, "
        raise SpecError(f"demand {text!r}: beyond any fleet ({most}{HIGHEST_RPS:g} requests/s)", hint="is the unit right?")
    if unit == "users":
        try:
            pause_s = parse_duration_s(think) if think else 0.0
        except ValueError as error:
            raise SpecError(f"demand {text!r}: pause: {error}", hint="write e.g. 200users:30s") from None
        return Demand(text, users=number, users_think_s=pause_s)
    return Demand(text, tokens_per_s=number) if kind == "tps" else Demand(text, rate=number)


def of_trace(path: Path, text: str) -> Demand:
    """The arrivals of a recorded trace, with its lengths. Rows that wait for an answer before them (after_s) have no time and are left out."""
    from profiler.workload import trace

    every = trace.read(path).rows
    rows = sorted((row for row in every if row.t_s is not None), key=lambda row: float(row.t_s or 0))
    first = float(rows[0].t_s or 0.0) if rows else 0.0
    times = tuple(float(row.t_s or 0.0) - first for row in rows)
    if len(times) < 2 or times[-1] <= 0:
        raise SpecError(f"{path}: fewer than two requests with times of their own", hint="give a trace with t_s in its rows")
    note = ""
    if without := len(every) - len(rows):
        note = (
            f"{text}: {without} of {len(every)} requests wait for an answer before them (after_s) and have no time of their own: left out, "
            f"so the true demand is higher ({len(every) / len(rows):.2f} times as many requests)"
        )
    return Demand(text, rate=len(times) / times[-1], trace_s=times, trace_lengths=tuple((row.isl, row.osl) for row in rows), note=note)


@dataclass(frozen=True)
class Share:
    """One workload of a mix, with its peak rate (requests/s) and its target, where it has one of its own."""

    workload: str
    rate: float
    qos: str | None


@dataclass(frozen=True)
class Plan:
    """demand.toml: a demand with its target and how it is to be served."""

    demand: Demand
    qos: str | None
    workload: str | None
    routing: str
    spares: int
    autoscale: bool
    lengths: tuple[float, float] | None = None  # (input, output) tokens that no workload had
    mix: tuple[Share, ...] = ()  # several workloads at once, in place of one demand
    quality: Margins = NONE_STATED


ROUTINGS = ("round-robin", "random", "least-outstanding")
KEYS: dict[str, tuple[str, ...]] = {
    "demand": ("rate", "tokens_per_s", "users", "think", "trace", "cv", "daily", "qos", "workload", "isl", "osl"),
    "fleet": ("routing", "spares", "autoscale"),
    "mix": ("workload", "rate", "qos"),
    "quality": margins.KEYS,
}


def read_plan(path: Path) -> Plan:
    """Read demand.toml. Raises SpecError naming file and key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}", hint="docs/capacity.md has an example") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid TOML: {error}", hint="docs/capacity.md has an example") from error
    _known(path, "", raw, KEYS)
    asked, fleet = raw.get("demand", {}), raw.get("fleet", {})
    for name, table in (("demand", asked), ("fleet", fleet)):
        if not isinstance(table, dict):
            raise SpecError(f"{path}: {name}: must be a table", hint=f"write [{name}]")
        _known(path, f"{name}.", table, KEYS[name])
    mix = _mix(path, raw["mix"]) if "mix" in raw else ()
    if mix and (extra := [key for key in asked if key != "qos"]):
        raise SpecError(
            f"{path}: mix: stands in place of a demand (got demand.{extra[0]})",
            hint="leave all but qos out of [demand]; each [[mix]] has a workload and a rate",
        )
    if mix and fleet:
        raise SpecError(
            f"{path}: fleet.{next(iter(fleet))}: a mixed fleet has no spares, routing or autoscaling",
            hint="leave [fleet] out, or plan each workload by itself",
        )
    given = ["rate"] if mix else [key for key in ("rate", "tokens_per_s", "users", "trace") if key in asked]
    if len(given) != 1:
        what = "none" if not given else " and ".join(given)
        raise SpecError(f"{path}: demand: give one of rate, tokens_per_s, users, trace (got {what})")
    if given[0] == "trace":
        demand = of_trace(path.parent / str(asked["trace"]), f"trace {asked['trace']}")
    else:
        number = sum(share.rate for share in mix) if mix else _number(path, f"demand.{given[0]}", asked[given[0]])
        unit = {"rate": "rps", "tokens_per_s": "tps", "users": "users"}[given[0]]
        demand = parse(f"{number!r}{unit}" + (f":{asked['think']}" if "think" in asked else ""))
    if "cv" in asked:
        demand = replace(demand, cv=_number(path, "demand.cv", asked["cv"]))
    if "daily" in asked:
        demand = replace(demand, shape=_shape(path, asked["daily"]))
    routing = str(fleet.get("routing", ROUTINGS[0]))
    if routing not in ROUTINGS:
        raise SpecError(f"{path}: fleet.routing: {routing!r}", hint=did_you_mean(routing, ROUTINGS) or f"one of {', '.join(ROUTINGS)}")
    spares = fleet.get("spares", 0)
    if isinstance(spares, bool) or not isinstance(spares, int) or spares < 0:
        raise SpecError(f"{path}: fleet.spares: must be a whole number, 0 or more (got {spares!r})")
    autoscale = fleet.get("autoscale", False)
    if not isinstance(autoscale, bool):
        raise SpecError(f"{path}: fleet.autoscale: must be true or false (got {autoscale!r})")
    lengths = tuple(_number(path, f"demand.{key}", asked[key]) for key in ("isl", "osl") if key in asked)
    if len(lengths) == 1 or 0 in lengths:
        raise SpecError(f"{path}: demand: isl and osl go together, both above 0", hint="isl = 1024 and osl = 128, or neither")
    target, workload = _target(asked.get("qos"), f"{path}: demand.qos"), asked.get("workload")
    if workload is not None and not isinstance(workload, str):
        raise SpecError(f"{path}: demand.workload: must be a name (got {workload!r})")
    quality = margins.of_table(raw.get("quality", {}), str(path))
    return Plan(demand, target, workload, routing, spares, autoscale, (lengths[0], lengths[1]) if lengths else None, mix, quality)


def _mix(path: Path, rows: Any) -> tuple[Share, ...]:
    if not isinstance(rows, list) or len(rows) < 2 or not all(isinstance(row, dict) for row in rows):
        raise SpecError(
            f"{path}: mix: must be two tables or more", hint='write [[mix]] with workload = "chat" and rate = 1.0, for each workload'
        )
    made = []
    for n, row in enumerate(rows, 1):
        _known(path, f"mix {n}.", row, KEYS["mix"])
        if "workload" not in row or "rate" not in row:
            raise SpecError(f"{path}: mix {n}: needs workload and rate")
        rate = _number(path, f"mix {n}.rate", row["rate"])
        if not 0 < rate <= HIGHEST_RPS:
            raise SpecError(f"{path}: mix {n}.rate: must be above 0 and at most {HIGHEST_RPS:g} requests/s (got {rate:g})")
        if not isinstance(row["workload"], str):
            raise SpecError(f"{path}: mix {n}.workload: must be a name (got {row['workload']!r})")
        made.append(Share(row["workload"], rate, _target(row.get("qos"), f"{path}: mix {n}.qos")))
    return tuple(made)


def _target(value: Any, where: str) -> str | None:
    if isinstance(value, dict):
        return str(of_table(value, where))
    if value is not None and not isinstance(value, str):
        raise SpecError(f"{where}: must be a text or a table (got {value!r})", hint='write qos = "ttft_p95<=1s, tpot_p95<=100ms"')
    return value


def _known(path: Path, before: str, table: Mapping[str, Any], known: Sequence[str] | Mapping[str, Any]) -> None:
    for key in table:
        if key not in known:
            raise SpecError(f"{path}: {before}{key}: unknown key", hint=did_you_mean(key, known) or f"known keys: {', '.join(known)}")


def _number(path: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise SpecError(f"{path}: {key}: must be a number (got {value!r})")
    return float(value)


def _shape(path: Path, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != 24:
        raise SpecError(f"{path}: demand.daily: must be 24 numbers, one for each hour of the day")
    numbers = [_number(path, "demand.daily", value) for value in values]
    mean = sum(numbers) / 24
    if mean == 0:
        raise SpecError(f"{path}: demand.daily: all hours are zero")
    return tuple(number / mean for number in numbers)

"""Where the share of misses crosses what is allowed: a curve through all probes to steer by, and the interval that the starts prove.

The share is taken as Phi(z) with z = probit(allowed) + slope x (log load - log crossing): near the limit a queue's share of misses is close
to that (its tail is log-linear), and it is monotone by construction. A probe counts by what its requests are worth (bootstrap.memory).

The interval: starts differ and a start counts as one, so each start's curve lies higher or lower by an amount of its own, normal over starts,
with the slope in common (it is known well: within a start the loads share prompts and arrivals). The long-run share over starts at a load is
then Phi(mean z / sqrt(1 + tau^2)), and where that crosses is bounded by the generalised pivotal quantity, as for the mean of a lognormal
(Weerahandi, J. Am. Stat. Assoc. 88, 1993; Krishnamoorthy and Mathew, J. Stat. Planning and Inference 115, 2003), the uncertainty of the slope
drawn with it. Where the share leaps between two measured loads a curve between them would be fancy: there
the interval ends at the loads themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from profiler.analyse.series import Floats
from profiler.analyse.starts import DECIDING

# How fast the probit share rises with the log of the load: 4 for a queue before 4 places, 10 for one before 32, more for a TPOT limit that
# all requests cross together. Only where the probes say nothing does the prior.
SLOPE, SLOPE_SIGMA = 8.0, 0.8
PRIOR_FREEDOM = 4
PRIOR_WEIGHT = 1e-4  # of the slope in the interval, in squared log load: as of one pair of loads 1.4 % apart
SLOPES = np.geomspace(1.0, 100.0, 24)
BEYOND = math.log(1.6)  # how far outside the probes the crossing may be looked for
STEPS = 161
PROVABLE = 1e-4  # a constraint that allows nothing is taken as allowing this
NEAR = math.log(1.25)  # how far from the crossing a run may lie to count for the interval: the curve is straight only nearby
CLOSE = 0.6  # of a rung: runs further from the crossing than this count less in their start's level
LEAP = 1.5  # probits between neighbouring loads beyond which nothing is read between them
DRAWS, SEED = 40_000, 20261124  # any fixed seed would do: the same starts give the same interval
# A backlog that grows counts as one more constraint: so much it weighs, and half of the runs may show it.
BACKLOG_WORTH, BACKLOG_ALLOWED = 30.0, 0.5
BETWEEN_ENDS = 0.7  # of the window lies between the middles of its first and its last three tenths (profiler.analyse.backlog)
RISEN = 0.25  # of what a backlog that grows would add to the requests in flight: less is the arrivals' chance


@dataclass(frozen=True)
class Seen:
    """One run under one constraint: so many of so many independent requests missed."""

    load: float
    misses: float
    n: float
    start: str = ""
    came: float | None = None  # requests/s that came in the window: Poisson arrivals are some per cent more or fewer than asked for

    @property
    def x(self) -> float:
        """log load, as it came: what chance made of the arrivals is known, and need not count as noise (a control variate)."""
        return math.log(self.came or self.load)

    def probit(self, share: float) -> float:
        """As if two more had been seen that miss by `share`: none that missed is not never, and near `share` nothing is moved."""
        from scipy.special import ndtri

        return float(ndtri((self.misses + 2 * share) / (self.n + 2)))


@dataclass(frozen=True)
class Crossing:
    """`load` where the share is what is allowed; `sigma` of its logarithm; `slope` of the probit share against the log of the load."""

    load: float
    sigma: float
    slope: float


@dataclass(frozen=True)
class Interval:
    """The long-run share over starts is within what is allowed at `lower`, and beyond it at `upper`. None: not shown by these runs."""

    lower: float | None
    upper: float | None
    middle: float | None = None  # as likely above as below


def seen(document: Mapping[str, Any], load: float, weight: float = 1.0) -> list[Seen]:
    """Of run.json: one for each constraint, then one for the backlog. In the order of `allowed`."""
    verdict, start = document["verdicts"][0], str(document["run"].get("start_id"))
    came = _came(document["run"], load, max((int(c["n"]) for c in verdict["constraints"]), default=0))
    found = []
    for c in verdict["constraints"]:
        worth = weight * float(c.get("independent") or c["n"])
        found.append(Seen(load, worth * c["misses"] / max(1, c["n"]), worth, start, came))
    return [*found, Seen(load, BACKLOG_WORTH * weight * grows(verdict, load), BACKLOG_WORTH * weight, start, came)]


def _came(run: Mapping[str, Any], load: float, n: int) -> float | None:
    """None where it is unknown, or further from what was asked for than chance makes it."""
    opened, closed = run.get("window_open_ns"), run.get("window_close_ns")
    if opened is None or closed is None or closed <= opened or not n:
        return None
    came = n / (closed - opened) * 1e9
    return came if abs(math.log(came / load)) < 4 / math.sqrt(n) else None


def grows(verdict: Mapping[str, Any], load: float) -> bool:
    """Whether the backlog grows by more of the offered rate than the chance of so many arrivals makes it: few requests say little. Where fewer
    came than asked for fewer leave too, at every load of a start as they share their arrivals; then the requests in flight hardly become more."""
    queue = verdict.get("backlog")
    n = max((int(c["n"]) for c in verdict["constraints"]), default=0)
    if not queue or not queue["grows"] or float(queue["growth"]) <= 2 / math.sqrt(max(n, 1)) * load:
        return False
    expected = float(queue["growth"]) * n / load * BETWEEN_ENDS
    return float(queue["last"]) - float(queue["first"]) > expected * RISEN


def allowed(document: Mapping[str, Any]) -> list[float]:
    return [max(float(c["allowed_share"]), PROVABLE) for c in document["verdicts"][0]["constraints"]] + [BACKLOG_ALLOWED]


def crossing(runs: Sequence[Seen], share: float) -> Crossing:
    """Where `runs`, of which there must be one, cross `share`. Posterior means over a grid: no optimiser that fails where nothing missed yet."""
    from scipy.special import log_ndtr, ndtri

    at = np.array([one.x for one in runs])
    missed, n = np.array([one.misses for one in runs]), np.array([one.n for one in runs])
    where = np.linspace(at.min() - BEYOND, at.max() + BEYOND, STEPS)
    z = float(ndtri(share)) + SLOPES[:, None, None] * (at[None, None, :] - where[None, :, None])
    likelihood = (missed * log_ndtr(z) + (n - missed) * log_ndtr(-z)).sum(axis=2)
    posterior = likelihood - (np.log(SLOPES / SLOPE)[:, None] / SLOPE_SIGMA) ** 2 / 2
    weight = np.exp(posterior - posterior.max())
    weight /= weight.sum()
    of_where = weight.sum(axis=0)
    mean = float(of_where @ where)
    sigma = math.sqrt(max(float(of_where @ (where - mean) ** 2), ((where[1] - where[0]) / 2) ** 2))
    return Crossing(math.exp(mean), sigma, math.exp(float(weight.sum(axis=1) @ np.log(SLOPES))))


def first_crossing(runs: Sequence[Sequence[Seen]], shares: Sequence[float]) -> Crossing:
    """Of the constraint that is crossed first. `runs`: of each run its constraints, as of `seen`."""
    return min((crossing([run[number] for run in runs], share) for number, share in enumerate(shares)), key=lambda fit: fit.load)


def limit(runs: Sequence[Sequence[Seen]], shares: Sequence[float], alpha: float, rung: float) -> Interval:
    """Where the load lies from which on not all constraints are kept. All must fit, so each is held to `alpha`; any may fail: they share it."""
    near = first_crossing(runs, shares).load
    ends = []
    for number, share in enumerate(shares):
        of_it = [run[number] for run in runs]
        if _idle(crossing(of_it, share), of_it, near):
            continue
        ends.append(interval(of_it, share, near, alpha, alpha / len(shares), 1 + rung))
    lowers, uppers, middles = ([getattr(end, name) for end in ends] for name in ("lower", "upper", "middle"))
    return Interval(
        None if None in lowers else min(lowers),
        min((upper for upper in uppers if upper is not None), default=None),
        min((middle for middle in middles if middle is not None), default=None),
    )


def _idle(fit: Crossing, runs: Sequence[Seen], near: float) -> bool:
    """Whether a constraint plainly keeps its limit at all loads around `near`: it crosses beyond them, by three of its sigmas. It bounds nothing."""
    return fit.load > max(one.load for one in runs) and math.log(fit.load / near) > 3 * fit.sigma


def interval(runs: Sequence[Seen], share: float, near: float, alpha_lo: float, alpha_hi: float, reach: float) -> Interval:
    """Of one constraint, each end at its own level. `near`: a load close to the crossing; `reach`: the ratio of two loads a rung apart;
    an end may lie two of them outside what was measured. Fewer than three starts prove nothing."""
    from scipy.special import ndtri

    z_allowed = float(ndtri(share))
    close, against = _by_start(runs, share, near, min(NEAR, 3 * math.log(reach)))
    by_start = close + against
    if len(by_start) < DECIDING or not close:
        return Interval(None, None)
    n = len(by_start)
    # Of each start what lies nearest to the crossing counts most: the curve is straight there only, and its loads share their chance.
    width = CLOSE * math.log(reach)
    weights = [[math.exp(-(((one.x - math.log(near)) / width) ** 2) / 2) + 1e-9 for one in rows] for rows in by_start]
    middle = np.array([np.average([o.x for o in rows], weights=w) for rows, w in zip(by_start, weights, strict=True)])
    level = np.array([np.average([o.probit(share) for o in rows], weights=w) for rows, w in zip(by_start, weights, strict=True)])
    density = math.exp(-(z_allowed**2) / 2) / math.sqrt(2 * math.pi)
    worth = float(np.mean([np.mean([one.n for one in rows]) for rows in by_start]))
    counted = share * (1 - share) / worth / density**2  # what the number of requests alone makes of a start's probit
    slope, slope_error, freedom = _slope(close, share, middle[: len(close)], level[: len(close)], counted)
    normal, chi_square, student = _pivots(n, freedom)
    slopes = np.maximum(slope + slope_error * student, slope / 4)
    x0 = float(middle.mean())
    squares = ((level - level.mean())[:, None] - slopes[None, :] * (middle - x0)[:, None]) ** 2
    tau2 = np.maximum(squares.sum(axis=0) / chi_square, counted)
    crosses = x0 + (z_allowed * np.sqrt(1 + tau2) - float(level.mean()) + normal * np.sqrt(tau2 / n)) / slopes
    ends = float(np.quantile(crosses, alpha_lo)), float(np.quantile(crosses, 1 - alpha_hi))
    return replace(_measured(runs, share, math.exp(ends[0]), math.exp(ends[1]), reach**2), middle=math.exp(float(np.median(crosses))))


def _measured(runs: Sequence[Seen], share: float, lower: float, upper: float, reach: float) -> Interval:
    """No nearer than a leap allows, and no further out than was measured."""
    from scipy.special import ndtri

    by_load = sorted(_grouped(runs, lambda one: one.load), key=lambda rows: rows[0].load)
    loads = [rows[0].load for rows in by_load]
    z = [float(np.mean([one.probit(share) for one in rows])) for rows in by_load]
    for k in range(len(loads) - 1):
        if z[k] <= float(ndtri(share)) < z[k + 1] and z[k + 1] - z[k] > LEAP:
            lower, upper = min(lower, loads[k]), max(upper, loads[k + 1])
    return Interval(lower if lower >= loads[0] / reach else None, upper if upper <= loads[-1] * reach else None)


def _by_start(runs: Sequence[Seen], share: float, near: float, straight: float) -> tuple[list[list[Seen]], list[list[Seen]]]:
    """The runs of each start that lie where the curve is straight; and, of each start that has none there, the nearest run that says that its
    curve crosses elsewhere: to leave out the start that was slow would leave the good ones. What fits below or fails above says nothing."""
    from scipy.special import ndtri

    close, against = [], []
    for rows in _grouped(runs, lambda one: one.start):
        nearest = min(rows, key=lambda one: abs(math.log(one.load / near)))
        if own := [one for one in rows if abs(math.log(one.load / near)) <= straight]:
            close.append(own)
        elif (nearest.probit(share) > float(ndtri(share))) == (nearest.load < near):
            against.append([nearest])
    return close, against


def _slope(by_start: Sequence[Sequence[Seen]], share: float, middle: Floats, level: Floats, counted: float) -> tuple[float, float, int]:
    """Of the probit against the log load, its standard error and degrees of freedom: from the loads within each start, which share their chance,
    and from the starts, which lie at different loads; each weighs by its own variance. Few loads lean on the prior's middle."""
    along, squares, freedom = SLOPE * PRIOR_WEIGHT, PRIOR_WEIGHT, PRIOR_FREEDOM
    pairs = []
    for rows in by_start:
        x, z = np.array([one.x for one in rows]), np.array([one.probit(share) for one in rows])
        pairs.append((x - x.mean(), z - z.mean()))
        along, squares = along + float(pairs[-1][0] @ pairs[-1][1]), squares + float(pairs[-1][0] @ pairs[-1][0])
        freedom += len(rows) - 1
    within = along / squares
    # A few pairs may agree by chance: their scatter is held to what the counts make of it, as if PRIOR_FREEDOM more had shown that.
    residual = PRIOR_FREEDOM * counted + sum(float(((z - within * x) ** 2).sum()) for x, z in pairs)
    precision = squares / (residual / freedom)
    slope, x = within * precision, middle - middle.mean()
    if len(x) > DECIDING and (spread := float(x @ x)) > PRIOR_WEIGHT:
        between = float(x @ level) / spread
        off = level - level.mean() - between * x
        more = spread / max(float(off @ off) / (len(x) - 2), counted)
        slope, precision, freedom = slope + between * more, precision + more, freedom + len(x) - 2
    return max(slope / precision, float(SLOPES[0])), 1 / math.sqrt(precision), freedom


def _grouped(runs: Iterable[Seen], key: Any) -> list[list[Seen]]:
    groups: dict[Any, list[Seen]] = {}
    for one in runs:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


@lru_cache(maxsize=64)
def _pivots(starts: int, freedom: int) -> tuple[Floats, Floats, Floats]:
    draw = np.random.default_rng([SEED, starts, freedom])
    return draw.standard_normal(DRAWS), draw.chisquare(starts - 1, DRAWS), draw.standard_t(freedom, DRAWS)

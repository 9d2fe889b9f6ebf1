"""What lengths and loads that were not measured would show, from the means of those that were: a small stated model, never silently outside.

    tpot = base + running · R + context · R · (isl + osl / 2) + prefill · R · isl / osl
    ttft = start + read · isl + wait · R + queue · R · isl

R requests are in the system. A step makes one token for each of them (`base`, `running`), reads what each has said so far (`context`, the KV
cache: isl + osl / 2 tokens of it on average), and on average R / osl newcomers' prompts of isl tokens (`prefill`): continuous batching as in
Orca (OSDI'22), with the linear costs of Vidur (MLSys'24). A prompt is read (`read`) after those before it (`wait`, `queue`). No coefficient is negative.

R is the number of users of a closed loop; of an open loop it is requests/s x mean time of an answer (Little, 1961).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler.analyse.law import SLOTS, Law

Floats = npt.NDArray[np.float64]
FEWEST = 4  # cells behind a fit
TERMS = {"tpot": ("base", "running", "context", "prefill"), "ttft": ("start", "read", "wait", "queue")}
INSIDE = 1e-6  # residual of a convex combination, relative to the hull's size


@dataclass(frozen=True)
class Point:
    """Means of one cell. `running`: requests in the system. Lengths that nobody states, but are the same of all points, may be 1."""

    isl: float
    osl: float
    running: float
    ttft_s: float | None = None
    tpot_s: float | None = None

    @property
    def cell(self) -> tuple[float, float, float]:
        return self.isl, self.osl, self.running


@dataclass(frozen=True)
class Fit:
    """Of one metric. `errors_inside`, `errors_outside`: relative, of each cell predicted from all others, by whether it lies in their hull."""

    metric: str
    coefficients: tuple[float, ...]
    cells: int
    errors_inside: tuple[float, ...]
    errors_outside: tuple[float, ...]

    @property
    def inside(self) -> tuple[float, float] | None:
        """(median, 90 % quantile)."""
        return quantiles(self.errors_inside)

    @property
    def outside(self) -> tuple[float, float] | None:
        return quantiles(self.errors_outside)

    def at(self, isl: float, osl: float, running: float) -> float:
        return float(_features(self.metric, np.array([[isl, osl, running]]))[0] @ np.array(self.coefficients))


@dataclass(frozen=True)
class Prediction:
    """Means at lengths and a load. `extrapolated`: outside the convex hull of what was measured. Always of class `predicted`."""

    isl: float
    osl: float
    running: float
    rate: float | None  # requests/s
    ttft_s: float | None
    tpot_s: float | None
    extrapolated: bool

    @property
    def words(self) -> str:
        return "predicted, extrapolated" if self.extrapolated else "predicted"


@dataclass(frozen=True)
class Interpolation:
    """`points` as they were given: the hull is theirs."""

    points: tuple[Point, ...]
    tpot: Fit
    ttft: Fit | None

    def at_users(self, isl: float, osl: float, running: float) -> Prediction:
        tpot = self.tpot.at(isl, osl, running)
        ttft = self.ttft.at(isl, osl, running) if self.ttft is not None else None
        e2e = (ttft or 0.0) + tpot * max(osl - 1, 1.0)
        outside = not within(np.array([p.cell for p in self.points]), np.array([isl, osl, running]))
        return Prediction(isl, osl, running, running / e2e if e2e > 0 else None, ttft, tpot, outside)

    def at_rate(self, isl: float, osl: float, rate: float) -> Prediction | None:
        """At a mean rate; None above what the batch can carry (its answers grow faster than it does)."""
        one, two = (self.at_users(isl, osl, r) for r in (0.0, 1.0))

        def e2e(p: Prediction) -> float:
            return (p.ttft_s or 0.0) + (p.tpot_s or 0.0) * max(osl - 1, 1.0)

        slope = e2e(two) - e2e(one)  # e2e is a straight line of R, so R = rate · e2e(R) has one solution
        if rate * slope >= 1:
            return None
        return self.at_users(isl, osl, rate * e2e(one) / (1 - rate * slope))

    def law(self, isl: float, osl: float, slots: int = SLOTS) -> Law:
        """The same as step times, for a replay at these lengths. Its error is the 90 % quantile of the cells left out."""
        base, running, context, prefill = self.tpot.coefficients
        overhead = self.ttft.at(isl, osl, 1.0) - base - prefill * isl if self.ttft is not None else 0.0
        error = (self.tpot.inside or self.tpot.outside or (None, None))[1]
        highest = max(p.running for p in self.points)
        return Law(base, running + context * (isl + osl / 2), prefill, max(0.0, overhead), slots, error, self.tpot.cells, highest)


def interpolation(points: Sequence[Point]) -> Interpolation | str:
    """Fit both metrics; a text says why not. Points without a TPOT do not count; a TTFT may be missing from all of them."""
    own = tuple(p for p in points if p.tpot_s is not None and p.tpot_s > 0)
    cells = len({p.cell for p in own})
    if cells < FEWEST:
        return f"{cells} {'cell' if cells == 1 else 'cells'} with a mean TPOT: an interpolation needs {FEWEST}"
    known = [p for p in own if p.ttft_s is not None and p.ttft_s > 0]
    ttft = fit("ttft", known) if len({p.cell for p in known}) >= FEWEST else None
    return Interpolation(own, fit("tpot", own), ttft)


def fit(metric: str, points: Sequence[Point]) -> Fit:
    """Least squares of relative errors, no coefficient below 0; then each cell, with all its points, predicted from the others."""
    cells = np.array([p.cell for p in points])
    values = np.array([getattr(p, f"{metric}_s") for p in points], dtype=np.float64)
    coefficients = _solve(metric, cells, values)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for cell in dict.fromkeys(p.cell for p in points):
        own = np.all(cells == np.array(cell), axis=1)
        if len({p.cell for p in points}) <= 2:
            break
        predicted = float(_features(metric, np.array([cell]))[0] @ _solve(metric, cells[~own], values[~own]))
        errors[within(cells[~own], np.array(cell))].append(abs(predicted / float(values[own].mean()) - 1))
    n = len({p.cell for p in points})
    return Fit(metric, tuple(map(float, coefficients)), n, tuple(errors[True]), tuple(errors[False]))


def within(points: Floats, wanted: Floats) -> bool:
    """Whether `wanted` is a convex combination of `points` (a row each), to INSIDE of their spread; what does not vary must be met exactly."""
    from scipy.optimize import nnls  # here, and not above: half a second of every `profile fit`

    low, high = points.min(axis=0), points.max(axis=0)
    if np.any(wanted < low - INSIDE * (high - low + 1e-12)) or np.any(wanted > high + INSIDE * (high - low + 1e-12)):
        return False
    spread = np.where(high > low, high - low, 1.0)
    scaled, target = (points - low) / spread, (wanted - low) / spread
    _, residual = nnls(np.vstack([scaled.T, np.ones(len(points))]), np.append(target, 1.0), maxiter=200 * len(points))
    return bool(residual <= 1e-4)


def words(fitted: Fit) -> str:
    """`TPOT ± 5 % (median; 17 % for nine in ten), of 36 cells left out`."""
    best = fitted.inside or fitted.outside
    if best is None:
        return f"{fitted.metric.upper()}: error not known, too few cells to leave one out"
    n, where = (len(fitted.errors_inside), "inside") if fitted.inside else (len(fitted.errors_outside), "outside")
    return f"{fitted.metric.upper()} off by {best[0]:.0%} in the median, up to {best[1]:.0%} in nine of ten, when each of {n} cells {where} the hull is left out"


def plain(found: Interpolation) -> dict[str, Any]:
    """What is stored with a prediction: coefficients by name, errors, cells."""
    made = {}
    for one in (found.tpot, found.ttft):
        if one is not None:
            names = dict(zip(TERMS[one.metric], one.coefficients, strict=True))
            made[one.metric] = {
                "coefficients": names, "cells": one.cells, "left_out_inside": one.inside, "left_out_outside": one.outside,
                "n_inside": len(one.errors_inside), "n_outside": len(one.errors_outside), "provenance_class": "predicted",
            }  # fmt: skip
    return made


def _features(metric: str, cells: Floats) -> Floats:
    isl, osl, running = cells[:, 0], cells[:, 1], cells[:, 2]
    one = np.ones_like(isl)
    if metric == "tpot":
        return np.column_stack([one, running, running * (isl + osl / 2), running * isl / osl])
    return np.column_stack([one, isl, running, running * isl])


def _solve(metric: str, cells: Floats, values: Floats) -> Floats:
    from scipy.optimize import nnls

    left = _features(metric, cells) / values[:, None]
    size = np.linalg.norm(left, axis=0)
    size[size == 0] = 1.0
    solved, _ = nnls(left / size, np.ones(len(values)), maxiter=1000)
    return np.asarray(solved / size, dtype=np.float64)


def quantiles(errors: Sequence[float]) -> tuple[float, float] | None:
    """Median and 90 % quantile, order statistics."""
    if not errors:
        return None
    ordered = sorted(errors)
    return ordered[math.ceil(0.5 * len(ordered)) - 1], ordered[math.ceil(0.9 * len(ordered)) - 1]

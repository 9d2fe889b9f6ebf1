"""Was a run in its steady state while it was measured? Where its transient ends, whether it drifts, and what was cut for it.

1. Truncation: MSER-5 (White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69(6), 1997) over the
   run from the start of its load, in equal slices as batches: the transient ends where the mean of the rest has its smallest standard
   error. If that lies in the first third of the window and the part before differs from the rest, the window is cut there, when enough remains.
2. Drift: contrasts of batch means in the window, as Geweke (1992) compares the beginning with the end: last against first third, second
   against first half. Their variance is that of an AR(1) whose coefficient is found from the residuals, corrected for the bias that short
   series give it (its expectation under each coefficient is computed exactly, as in MacKinnon and Smith 1998, and inverted), and the
   degrees of freedom are Satterthwaite's. Plain Geweke and Heidelberger-Welch tests reject two to eight times as often as they say at the
   correlations of a batching queue (simulated); this one holds 5 % up to a correlation of 0.7 between neighbouring batches.

A drift is a finding only when it is large enough to matter as well (MATERIAL). "Never became steady" is a result, not an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np

from profiler.analyse import series
from profiler.analyse.backlog import CONFIDENCE, Backlog, backlog, is_constant
from profiler.analyse.series import Floats
from profiler.records import DriveResult, LoadKind, RequestRecord
from profiler.units import NS_PER_S

Stability = Literal["steady", "unsteady", "unstable", "not judged"]

BATCHES = 40  # of the window: enough to see their correlation, few enough that a batch is longer than an engine's step
SHORTEST_WINDOW_S = 2.0  # below it a batch holds a step or two of an engine, and everything looks like drift
MATERIAL = 0.10  # a change of the mean by a tenth: what a run a minute later may differ by on any machine that is not idle
# Stated is that two contrasts of two series together err in 5 %. On batches that correlate by 0.7 this level makes it 5 %, on independent
# ones 0.3 % (tests/analyse/test_steady.py).
P_DRIFT = 0.001
P_TRANSIENT = 0.001 / 2  # MSER chooses the border that differs most of some twenty
MIN_COHORT = 20  # requests that a run needs: below them the p95 is the maximum, whatever it is


@dataclass(frozen=True)
class Steadiness:
    """`transient_end_s` counts from the window's opening: at or below 0 the warm-up was long enough; None where it was not sought."""

    stability: Stability
    reason: str
    transient_end_s: float | None = None
    transient_matters: bool = False  # it reaches into the window, and what lies before its end differs from the rest
    drift_p: float | None = None  # smallest p value of the contrasts, uncorrected
    backlog: Backlog | None = None


def examine(requests: Sequence[RequestRecord], drive: DriveResult, kind: LoadKind, load: float, arrivals: str) -> Steadiness:
    """`arrivals` is LoadPlan's: a trace replay, a ramp or a step changes its load by design and is not judged by it."""
    if not is_constant(arrivals):
        return Steadiness("not judged", f"the load changes by design ({arrivals})")
    length_s = (drive.window_close_ns - drive.window_open_ns) / NS_PER_S
    if length_s < SHORTEST_WINDOW_S:
        return Steadiness("not judged", f"a window of {length_s:.2g} s is too short to tell (at least {SHORTEST_WINDOW_S:g} s)")
    at = series.edges(drive, BATCHES)
    values = {
        "output tokens/s": series.output_tps(requests, drive, at),
        "requests in flight": series.in_flight(requests, drive, at),
    }
    ends = {name: _transient(x) for name, x in values.items()}
    end_s = max(float(at[cut]) for cut, _ in ends.values())
    matters = [name for name, (_, matters) in ends.items() if matters]
    queue = backlog(requests, drive, load) if kind == "rate" else None
    drifts = {name: drift(x[-BATCHES:]) for name, x in values.items()}
    p = min(found.p for found in drifts.values())
    if queue is not None and queue.grows:
        first, last = f"{queue.first:.1f}", f"{queue.last:.1f}"
        stability: Stability = "unstable"
        reason = f"the backlog grows ({CONFIDENCE:.0%} confidence): {first} requests in flight early in the window, {last} late"
    elif matters:
        stability, reason = "unsteady", f"never became steady: {matters[0]} settled only {end_s:.1f} s into the window"
    elif moved := [name for name, found in drifts.items() if found.unsteady]:
        stability, reason = "unsteady", f"never became steady: {moved[0]} went {drifts[moved[0]].change:+.0%} within the window"
    else:
        stability, reason = "steady", ""
    return Steadiness(stability, reason, end_s, bool(matters), p, queue)


def cut(requests: Sequence[RequestRecord], drive: DriveResult, found: Steadiness) -> tuple[list[RequestRecord], DriveResult] | None:
    """The run with its window opened where the transient ended; None when there is nothing to cut, or too little would remain."""
    if not found.transient_matters or found.transient_end_s is None:
        return None
    open_ns = drive.window_open_ns + round(found.transient_end_s * NS_PER_S)
    if sum(1 for r in requests if r.in_window and r.intended_ns >= open_ns) < MIN_COHORT:
        return None
    early = [r.intended_ns < open_ns for r in requests]
    relabelled = [replace(r, in_window=False, warmup=True) if before else r for r, before in zip(requests, early, strict=True)]
    left = (drive.window_close_ns - open_ns) / (drive.window_close_ns - drive.window_open_ns)
    # The client's CPU time was read at the window's old edges; its use is taken as even.
    return relabelled, replace(drive, window_open_ns=open_ns, client_cpu_s=drive.client_cpu_s * left)


def mser(values: Floats, longest: int) -> int:
    """MSER: how many of the first batches to leave out, at most `longest`, so that the standard error of the mean of the rest is smallest."""
    n = len(values)
    rest = n - np.arange(n)
    sums, squares = np.cumsum(values[::-1])[::-1], np.cumsum(values[::-1] ** 2)[::-1]
    spread = np.maximum(squares - sums**2 / rest, 0.0)
    return int(np.argmin((spread / rest**2)[: longest + 1]))


def _transient(values: Floats) -> tuple[int, bool]:
    """Index of the first batch after the transient, and whether the part of the window before it differs from what follows.

    MSER may not drop more than half of the window, and where it wants more than a third there is no transient but a run that changes: drift.
    A series without a transient loses a few batches now and then for nothing, so the part that goes must be off by MATERIAL, and surely.
    """
    opened = len(values) - BATCHES
    at = mser(values, opened + BATCHES // 2)
    if at <= opened or at > opened + BATCHES // 3:
        return min(at, opened), False
    p, change = contrast(values[opened:], (at - opened,))
    matters = p < P_TRANSIENT and abs(change) > MATERIAL
    return at if matters else opened, matters


@dataclass(frozen=True)
class Drift:
    p: float  # smallest of the contrasts, two-sided
    change: float  # of that contrast, as a share of the mean
    unsteady: bool


def drift(values: Floats) -> Drift:
    """Whether the mean of a series moves, by both contrasts; `values` are batch means in order."""
    half, third = len(values) // 2, len(values) // 3
    best = Drift(1.0, 0.0, False)
    for borders in ((half,), (third, len(values) - third)):
        p, change = contrast(values, borders)
        if p < best.p:
            best = Drift(p, change, best.unsteady)
        if p < P_DRIFT and abs(change) > MATERIAL:
            best = Drift(best.p, change, True)
    return best


def contrast(values: Floats, borders: tuple[int, ...]) -> tuple[float, float]:
    """Two-sided p value that the last of the parts between `borders` has the mean of the first, and their difference over the mean."""
    from scipy.special import stdtr

    mean = float(np.abs(values).mean())
    if mean == 0:
        return 1.0, 0.0
    shape = _shape(len(values), borders)
    residuals = shape.residual @ values
    squares = float(residuals @ residuals)
    difference = float(shape.weights @ values)
    if squares <= 1e-12 * float(values @ values):  # no noise at all
        return (0.0 if abs(difference) > 1e-6 * mean else 1.0), difference / mean
    correlation = float(residuals[1:] @ residuals[:-1]) / squares
    row = shape.table[min(int(np.searchsorted(shape.expected, correlation)), len(shape.expected) - 1)]
    trace, freedom, variance = row
    return 2 * float(stdtr(freedom, -abs(difference) / np.sqrt(squares / trace * variance))), difference / mean


@dataclass(frozen=True)
class _Shape:
    """A contrast of `n` values that a piecewise constant mean explains. Rows of `table` and `expected` belong to AR(1) coefficients 0 … 0.97."""

    weights: Floats  # of the contrast
    residual: Floats  # the projection that leaves the residuals
    expected: Floats  # lag-1 correlation that the residuals have on average
    table: Floats  # trace of the residuals' covariance, Satterthwaite degrees of freedom, variance of the contrast; per unit variance


@cache
def _shape(n: int, borders: tuple[int, ...]) -> _Shape:
    design = np.zeros((n, len(borders) + 1))
    for part, (begin, end) in enumerate(pairwise((0, *borders, n))):
        design[begin:end, part] = 1
    fit = np.linalg.pinv(design)
    residual = np.eye(n) - design @ fit
    weights = fit[-1] - fit[0]
    lag = np.eye(n, k=1) / 2 + np.eye(n, k=-1) / 2
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    expected, table = [], []
    for coefficient in np.arange(98) / 100:
        covariance = coefficient**distance
        of_residuals = residual @ covariance
        trace = float(np.trace(of_residuals))
        expected.append(float(np.trace(residual @ lag @ of_residuals)) / trace)
        table.append((trace, trace**2 / float(np.trace(of_residuals @ of_residuals)), float(weights @ covariance @ weights)))
    return _Shape(weights, residual, np.array(expected), np.array(table))

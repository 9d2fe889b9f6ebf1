"""Conditions on a run as a whole: a floor under its throughput, or a time within which so many requests are answered.

Both are judged by a rate in ten equal parts of the window (batch means: neighbours in time are alike, parts of this length much less), with Student's t
over the parts. `score` is the rate / what is asked of it, so that 1 and more keeps the condition whatever its unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from profiler.analyse.qos import Floor, answered
from profiler.records import DriveResult, RequestRecord
from profiler.units import NS_PER_S

PARTS = 10


@dataclass(frozen=True)
class Score:
    """`observed` in the condition's own unit (tokens/s, requests/s, s of a makespan); `lo`, `hi`: one-sided bounds of the score; None: nothing was seen."""

    observed: float | None
    score: float | None
    lo: float | None
    hi: float | None
    reason: str = ""


def score(floor: Floor, requests: Sequence[RequestRecord], drive: DriveResult, alpha_fail: float, alpha_fit: float) -> Score:
    """How the run keeps the condition. `lo` is at 1 - alpha_fit (what FITS rests on), `hi` at 1 - alpha_fail."""
    rates = _rates("request_rate" if floor.metric == "makespan" else floor.metric, requests, drive)
    mean = fmean(rates) if len(rates) else 0.0
    if mean <= 0:
        return Score(None, None, None, None, "nothing was answered in the window")
    error = stdev(rates) / math.sqrt(len(rates))
    asked, observed = floor.least, mean
    if floor.within_s is not None:
        own = [r for r in requests if not r.warmup]
        n = floor.requests if floor.requests is not None else len(own)
        asked = n / floor.within_s
        observed = n / mean
        if floor.requests is None:
            if not all(answered(r) for r in own):
                return Score(None, 0.0, 0.0, 0.0, "a request was not answered: the job did not end")
            took_s = (max(r.done_ns or 0 for r in own) - min(r.intended_ns for r in own)) / NS_PER_S
            observed, error, mean = took_s, error * (n / took_s / mean), n / took_s  # the rate of the whole job, its ends included
    from scipy.special import stdtrit

    assert asked is not None
    t_fit, t_fail = (float(stdtrit(len(rates) - 1, 1 - alpha)) for alpha in (alpha_fit, alpha_fail))
    return Score(observed, mean / asked, max(0.0, mean - t_fit * error) / asked, (mean + t_fail * error) / asked)


def _rates(metric: str, requests: Sequence[RequestRecord], drive: DriveResult) -> npt.NDArray[np.float64]:
    """The rate in each part of the window, 1/s. A token counts where it arrives, a prompt at its request's first token, a request at its end."""
    times: list[npt.NDArray[np.float64]] = []
    counts: list[npt.NDArray[np.float64]] = []
    for r in requests:
        if metric == "request_rate":
            if answered(r):
                times.append(np.array([r.done_ns], dtype=np.float64))
                counts.append(np.ones(1))
            continue
        if r.sent_ns is not None and r.arrival_offsets_us and r.arrival_tokens:
            times.append(r.sent_ns + np.asarray(r.arrival_offsets_us, dtype=np.float64) * 1e3)
            counts.append(np.asarray(r.arrival_tokens, dtype=np.float64))
        if metric == "total_tps" and r.first_token_ns is not None:
            times.append(np.array([r.first_token_ns], dtype=np.float64))
            counts.append(np.array([float(r.prompt_tokens or 0)]))
    edges = np.linspace(drive.window_open_ns, drive.window_close_ns, PARTS + 1)
    if not times or edges[-1] <= edges[0]:
        return np.zeros(0)
    total, _ = np.histogram(np.concatenate(times), bins=edges, weights=np.concatenate(counts))
    return np.asarray(total / ((edges[-1] - edges[0]) / PARTS / NS_PER_S), dtype=np.float64)

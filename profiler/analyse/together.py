"""One verdict from the runs of one cell: over engine starts, because a start counts as one and starts differ more than requests do.

FITS when each constraint's upper bound (profiler.analyse.starts) is at most what it allows and the backlog does not grow, FAILS when a lower
bound is above it. One start only screens: its own verdict is repeated and called that. Three or more decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from profiler.analyse.percentiles import ALPHA
from profiler.analyse.starts import DECIDING, LOOKS, StartShare, level, share_bounds, starts_needed
from profiler.analyse.validity import CLIENT_ERROR_SHARE, is_client_error
from profiler.records import Result

MOST_STARTS = 200  # beyond, further starts are no way to decide (as starts.starts_needed)


@dataclass(frozen=True)
class TogetherConstraint:
    """One constraint over all starts. Shares are of requests; `independent` is what the n requests are worth."""

    text: str
    result: Result
    allowed_share: float
    miss_share: float  # mean of the starts' shares
    miss_lo: float
    miss_hi: float
    n: int
    independent: float
    shares: tuple[float, ...]  # of each start
    starts_needed: int | None = None  # in all, if further ones are like those seen; None when decided or out of reach


@dataclass(frozen=True)
class Together:
    """`starts` counted with at least one sound run, `set_aside` runs that count for nothing."""

    result: Result
    reason: str
    starts: int
    runs: int
    set_aside: int
    screening: bool
    constraints: tuple[TogetherConstraint, ...] = ()


def judge_together(
    documents: Iterable[Mapping[str, Any]], *, sequential: bool = False, alpha: float = ALPHA, looks: Sequence[int] = LOOKS
) -> Together:
    """The verdict of one cell. `documents` are run.json of its runs; `sequential`: starts are added until it is decided, looked at after
    each number of `looks`, which share the error `alpha` (starts.boundary).

    Failed and invalid runs count for nothing, nor do runs that are suspect for what ran beside them. Runs that are suspect only because they
    did not settle do count: to leave out the starts whose queue grew would leave the good ones.
    """
    by_start: dict[str, list[Mapping[str, Any]]] = {}
    aside = 0
    for document in documents:
        if counts(document):
            by_start.setdefault(str(document["run"]["start_id"]), []).append(document)
        else:
            aside += 1
    runs = sum(map(len, by_start.values()))
    if not by_start:
        return Together("UNDECIDED", "no sound run", 0, 0, aside, screening=True)
    if len(by_start) == 1:
        return _screened(next(iter(by_start.values())), aside)
    verdicts = [[document["verdicts"][0] for document in found] for found in by_start.values()]
    texts = [constraint["text"] for constraint in verdicts[0][0]["constraints"]]
    confidence = 1 - alpha
    # Each of m constraints may fail the target, so there they share the error; to fit, each must, at the whole of it.
    fit, fail = alpha, alpha / max(1, len(texts))
    if sequential:
        fit, fail = (level(len(by_start), looks, whole) for whole in (fit, fail))
    constraints = tuple(_constraint(verdicts, number, fail, fit) for number in range(len(texts)))
    growing = _backlog_grows([verdict for found in verdicts for verdict in found], alpha)
    result, reason = _overall(constraints, len(by_start), growing, confidence)
    return Together(result, reason, len(by_start), runs, aside, len(by_start) < DECIDING, constraints)


def counts(document: Mapping[str, Any]) -> bool:
    """Whether a run says something about its cell's long-run attainment: all but what was disturbed.

    To leave out the starts whose queue grew would leave the good ones; to leave out those where the client's error is large beside a short TTFT,
    but not beside the limit, would leave the bad ones.
    """
    run = document["run"]
    if run["status"] != "done" or run["validity"] == "invalid" or not document.get("verdicts"):
        return False
    harmless = (run.get("stability") in ("unsteady", "unstable")) + sum(
        _small_beside_the_limit(document, name) for name in ("ttft", "tpot")
    )
    return run["validity"] == "valid" or (harmless > 0 and len(run.get("validity_reasons") or ()) <= harmless)


def _small_beside_the_limit(document: Mapping[str, Any], metric: str) -> bool:
    """Whether the client's error in `metric` made the run suspect, and is small beside each limit that the verdict looks at."""
    run = document["run"]
    error, median = run.get(f"{metric}_error_bar_s"), run.get(f"{metric}_p50_s")
    if not is_client_error(error, median):
        return False
    limits = [c.get("limit_s") for c in document["verdicts"][0]["constraints"] if metric in c["text"]]
    return all(limit is not None and error <= CLIENT_ERROR_SHARE * limit for limit in limits)


def _screened(documents: Sequence[Mapping[str, Any]], aside: int) -> Together:
    results = {str(document["run"]["qos_result"]) for document in documents}
    alone = results.pop() if len(results) == 1 else "UNDECIDED"
    result: Result = "FITS" if alone == "FITS" else "FAILS" if alone == "FAILS" else "UNDECIDED"
    reason = f"one engine start only screens: {DECIDING - 1} more decide (--repeats {DECIDING})"
    return Together(result, reason, 1, len(documents), aside, screening=True)


def _constraint(verdicts: Sequence[Sequence[Mapping[str, Any]]], number: int, alpha_fail: float, alpha_fit: float) -> TogetherConstraint:
    each = [[verdict["constraints"][number] for verdict in found] for found in verdicts]
    if each[0][0].get("kind") in ("floor", "makespan"):
        return _floor(each, alpha_fail, alpha_fit)
    starts = [
        StartShare(sum(c["misses"] for c in found), sum(c["n"] for c in found), sum(float(c.get("independent") or c["n"]) for c in found))
        for found in each
    ]
    allowed = float(each[0][0]["allowed_share"])
    lower, upper = share_bounds(starts, alpha_fail, alpha_fit)
    result: Result = "UNDECIDED"
    if len(starts) >= DECIDING:
        result = "FITS" if upper <= allowed else "FAILS" if lower > allowed else "UNDECIDED"
    shares = tuple(start.misses / start.n for start in starts)
    needed = starts_needed(starts, allowed, alpha_fail, alpha_fit) if result == "UNDECIDED" else None
    if needed is not None:
        needed = max(needed, DECIDING)
    n, worth = sum(start.n for start in starts), sum(start.independent for start in starts)
    return TogetherConstraint(each[0][0]["text"], result, allowed, fmean(shares), lower, upper, n, worth, shares, needed)


def _floor(each: Sequence[Sequence[Mapping[str, Any]]], alpha_fail: float, alpha_fit: float) -> TogetherConstraint:
    """A condition on whole runs: Student's t over the starts' mean scores, whose logarithms are nearer to normal. Shares are of starts that fall short."""
    from scipy.special import stdtrit

    needed: int | None = None
    scores = [fmean(float(c.get("score") or 0.0) for c in found) for found in each]
    short = tuple(float(score < 1) for score in scores)
    n, text, result = sum(c["n"] for found in each for c in found), str(each[0][0]["text"]), "UNDECIDED"
    if min(scores) <= 0:
        result = "FAILS" if max(scores) < 1 else "UNDECIDED"
    else:
        logs = [math.log(score) for score in scores]

        def decided(count: int) -> str | None:
            """By so many starts with the mean and the spread of those seen."""
            error = stdev(logs) / math.sqrt(count)
            lower, upper = (fmean(logs) + sign * float(stdtrit(count - 1, 1 - a)) * error for sign, a in ((-1, alpha_fit), (1, alpha_fail)))
            return "FITS" if lower >= 0 else "FAILS" if upper < 0 else None

        result = (decided(len(logs)) if len(logs) >= DECIDING else None) or "UNDECIDED"
        if result == "UNDECIDED":
            needed = next((count for count in range(max(DECIDING, len(logs) + 1), MOST_STARTS + 1) if decided(count)), None)
    ends = {"FITS": (0.0, 0.0), "FAILS": (1.0, 1.0)}.get(result, (0.0, 1.0))
    return TogetherConstraint(text, result, 0.0, fmean(short), *ends, n, float(len(scores)), short, needed)  # type: ignore[arg-type]


def _backlog_grows(verdicts: Sequence[Mapping[str, Any]], alpha: float) -> bool:
    """Whether the mean growth over the runs is above zero: one-sided t test at the whole error: this proves nothing, it only withholds a FITS."""
    growth = [float(verdict["backlog"]["growth"]) for verdict in verdicts if verdict.get("backlog")]
    if len(growth) < 2:
        return False
    from scipy.special import stdtrit

    half = float(stdtrit(len(growth) - 1, 1 - alpha)) * stdev(growth) / math.sqrt(len(growth))
    return fmean(growth) - half > 0


def _overall(constraints: Sequence[TogetherConstraint], starts: int, growing: bool, confidence: float) -> tuple[Result, str]:
    failing = [c for c in constraints if c.result == "FAILS"]
    if failing:
        return "FAILS", "; ".join(
            f"{c.text}: {c.miss_share:.1%} miss where {c.allowed_share:.3g} may (proven above {c.miss_lo:.1%})" for c in failing
        ) + f", over {starts} engine starts"
    open_ = [c for c in constraints if c.result == "UNDECIDED"]
    if open_:
        return "UNDECIDED", "; ".join(_open(c, starts) for c in open_)
    if growing:
        return "UNDECIDED", f"limits are kept, but over {starts} starts the backlog grows: a longer run decides"
    worst = max((c.miss_hi / c.allowed_share for c in constraints if c.allowed_share), default=0.0)
    return (
        "FITS",
        f"every limit is kept over {starts} engine starts with {confidence:.0%} confidence (at most {worst:.0%} of the misses allowed)",
    )


def _open(c: TogetherConstraint, starts: int) -> str:
    seen = f"{c.text}: {c.miss_share:.1%} miss where {c.allowed_share:.3g} may ({c.miss_lo:.1%} to {c.miss_hi:.1%})"
    if c.starts_needed is None:
        return f"{seen}: too close to the limit for any affordable number of starts"
    return f"{seen}: about {max(1, c.starts_needed - starts)} more starts like these decide"

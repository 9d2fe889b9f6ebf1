"""Is a variant still as good as its reference? Paired drift of the log-likelihood, paired task results, and verdicts that may be "undecided".

Everything is paired: the same tokens, the same examples for both, so that what is hard for both cancels. Pure functions of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

QualityResult = Literal["NON-INFERIOR", "INFERIOR", "UNDECIDED"]
CONFIDENCE = 0.95  # one-sided, of each bound: "non-inferior" is wrong in at most 5 %, and so is "inferior"
RESAMPLES = 4000
SEED = 20261124  # any fixed number would do
MIN_WINDOWS = 8  # with fewer the spread between windows is not known well enough for any bound
MAX_EXAMPLES = 10_000_000  # what would decide it is looked for up to here


@dataclass(frozen=True)
class Drift:
    """Reference and variant on the same tokens. `delta_nll` is nats per token, variant − reference: positive is worse."""

    windows: int
    tokens: int
    reference_perplexity: float
    perplexity: float
    delta_nll: float
    delta_lo: float | None  # one-sided bounds at CONFIDENCE each; None with fewer than MIN_WINDOWS windows
    delta_hi: float | None

    @property
    def ratio(self) -> float:
        """Perplexity of the variant / that of the reference = exp(delta_nll)."""
        return math.exp(self.delta_nll)

    @property
    def ratio_lo(self) -> float | None:
        return None if self.delta_lo is None else math.exp(self.delta_lo)

    @property
    def ratio_hi(self) -> float | None:
        return None if self.delta_hi is None else math.exp(self.delta_hi)


@dataclass(frozen=True)
class Paired:
    """Pass and fail of the same examples. `difference` is the variant's pass rate − the reference's: negative is worse."""

    n: int
    both: int
    lost: int  # the reference passes, the variant fails
    gained: int  # the variant passes, the reference fails
    neither: int
    difference_lo: float  # Tango's score bounds, one-sided at CONFIDENCE each
    difference_hi: float
    p_value: float  # exact McNemar, two-sided: could this split of the discordant ones be chance?

    @property
    def pass_rate(self) -> float:
        return (self.both + self.gained) / self.n

    @property
    def reference_pass_rate(self) -> float:
        return (self.both + self.lost) / self.n

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.n


@dataclass(frozen=True)
class QualityVerdict:
    """`reason` holds the bound that proves it; `decide` what would, where nothing is proven."""

    result: QualityResult
    reason: str
    n: int
    unit: str  # "windows" | "examples"
    decide: str | None = None


def drift(reference: Sequence[tuple[float, int]], variant: Sequence[tuple[float, int]], seed: int = SEED) -> Drift:
    """From (sum of negative log-likelihoods in nats, scored tokens) of each window, in the same order. Raises ValueError if not paired.

    The estimate is a ratio of sums over windows, so a window counts by its tokens. Bounds: bootstrap over windows, since tokens of one
    window depend on each other; percentiles expanded for few windows (Hesterberg, The American Statistician 69, 2015, section 3.4: the
    plain percentile interval is too narrow by sqrt((n-1)/n) and by normal against Student's t).
    """
    if len(reference) != len(variant) or any(a[1] != b[1] for a, b in zip(reference, variant, strict=True)):
        raise ValueError("drift needs the same windows with the same tokens of both")
    tokens = np.array([count for _, count in reference], dtype=np.float64)
    n, total = len(tokens), float(tokens.sum())
    if not total:
        raise ValueError("drift needs at least one scored token")
    theirs, ours = (np.array([nll for nll, _ in side], dtype=np.float64) for side in (reference, variant))
    delta, lo, hi = over_windows(ours - theirs, tokens, seed)
    return Drift(n, int(total), _exp(theirs.sum() / total), _exp(ours.sum() / total), delta, lo, hi)


def over_windows(sums: NDArray[np.float64], tokens: NDArray[np.float64], seed: int = SEED) -> tuple[float, float | None, float | None]:
    """Mean per token of what each window sums to, and its one-sided bounds; those are None with fewer than MIN_WINDOWS windows."""
    n = len(tokens)
    mean = float(sums.sum()) / float(tokens.sum())
    if n < MIN_WINDOWS:
        return mean, None, None
    drawn = np.random.default_rng([seed, n]).integers(0, n, size=(RESAMPLES, n))
    means = sums[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    tail = float(special.ndtr(-math.sqrt(n / (n - 1)) * special.stdtrit(n - 1, CONFIDENCE)))
    lo, hi = (float(np.quantile(means, q)) for q in (tail, 1 - tail))
    return mean, min(lo, mean), max(hi, mean)


def drift_verdict(found: Drift, margin: float) -> QualityVerdict:
    """`margin`: how much higher the perplexity may be, as a share (0.01: 1 %)."""
    _check_margin(margin)
    limit = math.log1p(margin)
    if found.delta_lo is None or found.delta_hi is None:
        reason = f"{found.windows} windows are too few for a bound"
        return QualityVerdict("UNDECIDED", reason, found.windows, "windows", f"a text of at least {MIN_WINDOWS} windows")
    low, high = math.expm1(found.delta_lo), math.expm1(found.delta_hi)
    if found.delta_hi <= limit:
        return QualityVerdict("NON-INFERIOR", f"perplexity at most {high:+.2%}, margin {margin:+.2%}", found.windows, "windows")
    if found.delta_lo > limit:
        return QualityVerdict("INFERIOR", f"perplexity at least {low:+.2%}, margin {margin:+.2%}", found.windows, "windows")
    reason = f"perplexity between {low:+.2%} and {high:+.2%}, margin {margin:+.2%}"
    # Half widths shrink with the root of n; the estimate is taken to stay.
    gap = abs(limit - found.delta_nll)
    half = max(found.delta_hi - found.delta_nll, found.delta_nll - found.delta_lo)
    need = math.ceil(found.windows * (half / gap) ** 2) if gap > half * 1e-3 else None
    decide = (
        f"about {need} windows, if the drift stays {math.expm1(found.delta_nll):+.2%}"
        if need
        else "another margin: the drift is the margin"
    )
    return QualityVerdict("UNDECIDED", reason, found.windows, "windows", decide)


def paired(reference: Sequence[bool], variant: Sequence[bool]) -> Paired:
    """Results of the same examples in the same order. Raises ValueError if not paired or empty."""
    if len(reference) != len(variant) or not reference:
        raise ValueError("paired results need the same examples, at least one")
    pairs = list(zip(reference, variant, strict=True))
    both, lost, gained = pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))
    lo, hi = tango(lost, gained, len(pairs))
    return Paired(len(pairs), both, lost, gained, len(pairs) - both - lost - gained, lo, hi, mcnemar(lost, gained))


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p-value: the discordant pairs are Binomial(lost + gained, 1/2) if neither is better (McNemar, Psychometrika 12, 1947)."""
    n = lost + gained
    if n == 0:
        return 1.0
    return min(1.0, 2.0 * float(special.bdtr(min(lost, gained), n, 0.5)))


def tango(lost: int, gained: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bounds of the difference of two paired proportions, gained/n − lost/n, one-sided at `confidence` each.

    Tango's score interval (Statistics in Medicine 17, 1998, 891-908): the differences that the score test does not reject, with the nuisance
    probability at its restricted maximum likelihood. Bounds exist and are sensible without discordant pairs: −z²/(n + z²).
    """
    z = float(special.ndtri(confidence))
    estimate = (gained - lost) / n
    lo = _crossing(lambda d: _score(lost, gained, n, d) - z, -1.0, estimate)
    hi = _crossing(lambda d: -_score(lost, gained, n, d) - z, 1.0, estimate)
    return lo, hi


def task_verdict(found: Paired, margin: float) -> QualityVerdict:
    """`margin`: how much lower the pass rate may be, as a share of the examples (0.05: 5 points)."""
    _check_margin(margin)
    low, high = found.difference_lo, found.difference_hi
    if low >= -margin:
        return QualityVerdict(
            "NON-INFERIOR", f"pass rate at least {low * 100:+.1f} points, margin {-margin * 100:+.1f}", found.n, "examples"
        )
    if high < -margin:
        return QualityVerdict("INFERIOR", f"pass rate at most {high * 100:+.1f} points, margin {-margin * 100:+.1f}", found.n, "examples")
    reason = f"pass rate between {low * 100:+.1f} and {high * 100:+.1f} points, margin {-margin * 100:+.1f}"
    need = examples_needed(found, margin)
    decide = f"about {need} examples, if they go on like these" if need else "another margin: the difference is the margin"
    return QualityVerdict("UNDECIDED", reason, found.n, "examples", decide)


def examples_needed(found: Paired, margin: float) -> int | None:
    """Examples that decide it if the shares lost and gained stay as seen; None where no number does."""

    def decided(n: int) -> bool:
        lo, hi = tango(round(found.lost / found.n * n), round(found.gained / found.n * n), n)
        return lo >= -margin or hi < -margin

    low, high = found.n, found.n
    while not decided(high):
        low, high = high, 2 * high
        if high > MAX_EXAMPLES:
            return None
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def together(verdicts: Sequence[QualityVerdict]) -> QualityResult:
    """INFERIOR if one is, NON-INFERIOR if all are, else UNDECIDED. Raises ValueError without any."""
    if not verdicts:
        raise ValueError("no verdict to join")
    results = {verdict.result for verdict in verdicts}
    return "INFERIOR" if "INFERIOR" in results else "NON-INFERIOR" if results == {"NON-INFERIOR"} else "UNDECIDED"


def _score(lost: int, gained: int, n: int, delta: float) -> float:
    """Tango's statistic for H0: difference = delta; falls as delta grows."""
    top = gained - lost - n * delta
    # Restricted MLE of the probability of "lost" (p21 in the paper): the larger root of A q² + B q + C = 0.
    a, b, c = 2 * n, -gained - lost + (2 * n - gained + lost) * delta, -lost * delta * (1 - delta)
    q = max(0.0, (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
    variance = n * (2 * q + delta * (1 - delta))
    if variance <= 0:
        return 0.0 if top == 0 else math.copysign(math.inf, top)
    return top / math.sqrt(variance)


def _crossing(above: Callable[[float], float], outside: float, inside: float) -> float:
    """Bisection between `outside` (positive: rejected) and `inside` (not rejected)."""
    if above(outside) <= 0:
        return outside
    for _ in range(60):
        middle = (outside + inside) / 2
        if above(middle) > 0:
            outside = middle
        else:
            inside = middle
    return outside


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def _check_margin(margin: float) -> None:
    if not 0 < margin < 1:
        raise ValueError("a margin is a share between 0 and 1")

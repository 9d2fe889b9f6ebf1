"""How often the bounds of a comparison are wrong, by method and number of starts: Welch's t over starts against the hierarchical bootstrap.

    .venv/bin/python bench/compare_coverage.py [--trials 1000] [--starts 2 3 5] [--seed 1]

The oracle is the generator: both arms come from one distribution, so the true ratio is 1, and a bound of 95 % should be on its wrong side in 5 % of
trials. Starts multiply all their requests by a factor; requests scatter within a start, in one case with memory. It shares no code with the product
but calls it for the bounds. Prints the second table of docs/compare.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from profiler.analyse.compare_effect import log_effect, percentile_figure
from profiler.analyse.series import Floats

ALPHA = 0.05
REQUESTS = 60
STARTS = (2, 3, 5, 8, 12, 20)
Draw = np.random.Generator


def lognormal(draw: Draw, cv: float, size: tuple[int, ...]) -> Floats:
    sigma = np.sqrt(np.log1p(cv**2))
    found: Floats = np.exp(draw.normal(-(sigma**2) / 2, sigma, size))
    return found


def steady(draw: Draw, k: int) -> Floats:
    """Starts of CV 3 %, requests of CV 5 %: the median of a start varies by 0.8 % through its requests."""
    return lognormal(draw, 0.03, (k, 1)) * lognormal(draw, 0.05, (k, REQUESTS))


def even(draw: Draw, k: int) -> Floats:
    """Starts of CV 3 %, requests of CV 20 %: the median varies by as much through either."""
    return lognormal(draw, 0.03, (k, 1)) * lognormal(draw, 0.2, (k, REQUESTS))


def skewed(draw: Draw, k: int) -> Floats:
    """Most starts alike, some much slower: 1 + an exponential of mean 4 %."""
    return (1 + draw.exponential(0.04, (k, 1))) * lognormal(draw, 0.05, (k, REQUESTS))


def noisy(draw: Draw, k: int) -> Floats:
    """Starts alike (CV 0.5 %), requests of CV 50 %."""
    return lognormal(draw, 0.005, (k, 1)) * lognormal(draw, 0.5, (k, REQUESTS))


def remembering(draw: Draw, k: int) -> Floats:
    """Requests that resemble their neighbours: the log is AR(1) of 0.7, CV about 30 %."""
    steps = draw.normal(0, 0.3 * np.sqrt(1 - 0.7**2), (k, REQUESTS))
    level = draw.normal(0, 0.3, k)
    out = np.empty((k, REQUESTS))
    for j in range(REQUESTS):
        level = 0.7 * level + steps[:, j]
        out[:, j] = level
    found: Floats = lognormal(draw, 0.02, (k, 1)) * np.exp(out)
    return found


CASES: dict[str, tuple[Callable[[Draw, int], Floats], float]] = {
    "starts dominate, p50": (steady, 50),
    "starts dominate, skewed, p50": (skewed, 50),
    "both alike, p50": (even, 50),
    "requests dominate, p95": (noisy, 95),
    "requests with memory, p50": (remembering, 50),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--starts", type=int, nargs="+", default=STARTS)
    options = parser.parse_args()
    print("| starts per arm | " + " | ".join(f"{name}: t, bootstrap" for name in CASES) + " |")
    print("|---|" + "---|" * len(CASES))
    draw = np.random.default_rng(options.seed)
    for k in options.starts:
        cells = []
        for make, percent in CASES.values():
            wrong = [0, 0]
            for _ in range(options.trials):
                arms = [[percentile_figure(values, percent) for values in make(draw, k)] for _ in range(2)]
                found = log_effect(arms[0], arms[1], 1.0, ALPHA)
                assert found.resampled_lo is not None and found.resampled_hi is not None
                wrong[0] += (found.lo > 1) + (found.hi < 1)
                wrong[1] += (found.resampled_lo > 1) + (found.resampled_hi < 1)
            cells.append(", ".join(f"{count / 2 / options.trials:.1%}" for count in wrong))
        print(f"| {k} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

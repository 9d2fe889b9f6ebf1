"""Error rates and decided share of the verdict over engine starts by budget: starts x requests a start. No engine.

    .venv/bin/python bench/verdict_budget.py [--trials 12] [--seed 1]

Server, settings and the two readings of a margin as in bench/verdicts.py, but each start is only counted (misses and effective n), not judged as a
run: many budgets from the same simulated starts, for the tables of docs/verdicts.md. --trials: of each setting, constraint and margin. A trial
draws its starts from the pool of its setting, without replacement.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from batching_queue import Floats, simulate
from verdicts import CVS, METRICS, SERVER, UTILISATIONS, WARM_UP, values

from profiler.analyse.bootstrap import memory
from profiler.analyse.starts import LOOKS, StartShare, level, share_bounds

STARTS, REQUESTS = (24, 48, 64), (350, 1000, 2000)
STATED = (64, 1000)  # the budget whose error rates are printed
ALLOWED, ALPHA = 0.05, 0.05
POOL, TRUTH = 256, 1500  # starts
# Name, reading, load over that of the truth, limit over the true percentile, what would be wrong.
CASES = (
    ("limit 10 % above", "limit", 1.0, 1.1, ("FAILS",)),
    ("limit 10 % below", "limit", 1.0, 0.9, ("FITS",)),
    ("limit 2.5 % above", "near", 1.0, 1.025, ("FAILS",)),
    ("limit 2.5 % below", "near", 1.0, 0.975, ("FITS",)),
    ("a hair above", "on it", 1.0, 1.0, ("FAILS",)),
    ("a hair below", "on it", 1.0, 1.0, ("FITS",)),
    ("load 10 % below", "load", 0.9, 1.0, ("FAILS",)),
    ("load 10 % above", "load", 1.1, 1.0, ("FITS",)),
)
Trial = tuple[str, int]  # result, starts used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    trials: dict[tuple[str, str, int, int], list[Trial]] = defaultdict(list)
    for number, (utilisation, cv) in enumerate((u, cv) for u in UTILISATIONS for cv in CVS):
        rate, seed, total = utilisation * SERVER.capacity, 10_000 * options.seed + 5000 + 10 * number, WARM_UP + max(REQUESTS)
        draw = np.random.default_rng([options.seed, number])
        truth = simulate(SERVER, rate, cv, TRUTH, total, seed)
        pools = {factor: simulate(SERVER, rate * factor, cv, POOL, total, seed + 1 + k) for k, factor in enumerate((1.0, 0.9, 1.1))}
        for metric in METRICS:
            for requests in REQUESTS:
                limit = float(np.quantile(values(truth, metric)[:, :requests], 1 - ALLOWED))
                latencies = {factor: values(pool, metric)[:, :requests] for factor, pool in pools.items()}
                worth = {factor: [memory(row.tolist()).independent for row in rows] for factor, rows in latencies.items()}
                for name, _, factor, by, _ in CASES:
                    counted = shares(latencies[factor], limit * by, worth[factor])
                    for most in STARTS:
                        trials[name, metric, most, requests] += [judged(counted, draw, most) for _ in range(options.trials)]
    print(errors(trials), budgets(trials), sep="\n\n")


def errors(trials: dict[tuple[str, str, int, int], list[Trial]]) -> str:
    lines = ["| constraint | truth and limit | trials | wrong | decided | starts used, mean |", "|---|---|---|---|---|---|"]
    every = []
    for metric in METRICS:
        for name, reading, _, _, wrong in CASES:
            found = trials[name, metric, *STATED]
            bad = [result for result, _ in found if result in wrong]
            decided = np.mean([result != "UNDECIDED" for result, _ in found])
            lines.append(
                f"| {metric}_p95 | {name} | {len(found)} | {len(bad)} | {decided:.0%} | {np.mean([used for _, used in found]):.1f} |"
            )
            every.append((reading, len(found), len(bad)))
    for readings in (("limit", "near"), ("on it",), ("load",)):
        n = sum(count for reading, count, _ in every if reading in readings)
        wrongs = sum(bad for reading, _, bad in every if reading in readings)
        lines.append(f"| both | {' and '.join(readings)} | {n} | **{wrongs}** | | |")
    return "\n".join(lines)


def budgets(trials: dict[tuple[str, str, int, int], list[Trial]]) -> str:
    heads = [(reading, metric) for reading in ("limit", "load") for metric in METRICS]
    lines = ["| starts x requests | " + " | ".join(f"{reading}, {metric}_p95" for reading, metric in heads) + " |", "|---|---|---|---|---|"]
    for requests in REQUESTS:
        for most in STARTS:
            cells = []
            for reading, metric in heads:
                found = [t for name, of, *_ in CASES if of == reading for t in trials[name, metric, most, requests]]
                cells.append(f"{np.mean([result != 'UNDECIDED' for result, _ in found]):.0%}")
            lines.append(f"| {most} x {requests:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shares(latencies: Floats, limit: float, worth: list[float]) -> list[StartShare]:
    return [StartShare(int((row > limit).sum()), len(row), independent) for row, independent in zip(latencies, worth, strict=True)]


def judged(counted: list[StartShare], draw: np.random.Generator, most: int) -> Trial:
    drawn = [counted[k] for k in draw.permutation(len(counted))[:most]]
    looks = [number for number in LOOKS if number <= most]
    for number in looks:
        alpha = level(number, looks, ALPHA)
        lower, upper = share_bounds(drawn[:number], alpha, alpha)
        if upper <= ALLOWED:
            return "FITS", number
        if lower > ALLOWED:
            return "FAILS", number
    return "UNDECIDED", most


if __name__ == "__main__":
    main()

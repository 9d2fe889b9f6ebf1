"""How often a verdict over engine starts is decided 10 % from the limit, by budget: starts x requests a start. No engine.

    .venv/bin/python bench/verdict_budget.py [--trials 20] [--seed 1]

Server, settings and the two readings as in bench/verdicts.py, but each start is only counted (misses and effective n), not judged as a run:
many budgets from the same simulated starts, for the table of docs/verdicts.md. --trials: of each setting, constraint and side.
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
ALLOWED, ALPHA = 0.05, 0.05
POOL, TRUTH = 256, 1500  # starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    decided: dict[tuple[str, str, int, int], list[bool]] = defaultdict(list)
    total = WARM_UP + max(REQUESTS)
    for number, (utilisation, cv) in enumerate((u, cv) for u in UTILISATIONS for cv in CVS):
        rate, seed = utilisation * SERVER.capacity, 10_000 * options.seed + 5000 + 10 * number
        draw = np.random.default_rng([options.seed, number])
        truth = simulate(SERVER, rate, cv, TRUTH, total, seed)
        pools = {factor: simulate(SERVER, rate * factor, cv, POOL, total, seed + 1 + k) for k, factor in enumerate((1.0, 0.9, 1.1))}
        for metric in METRICS:
            for requests in REQUESTS:
                limit = float(np.quantile(values(truth, metric)[:, :requests], 1 - ALLOWED))
                for reading, factor, by in (("limit", 1.0, 1.1), ("limit", 1.0, 0.9), ("load", 0.9, 1.0), ("load", 1.1, 1.0)):
                    counted = shares(values(pools[factor], metric)[:, :requests], limit * by)
                    for most in STARTS:
                        decided[reading, metric, most, requests] += [is_decided(counted, draw, most) for _ in range(options.trials)]
    print("| starts x requests | " + " | ".join(f"{reading}, {metric}_p95" for reading in ("limit", "load") for metric in METRICS) + " |")
    print("|---|---|---|---|---|")
    for requests in REQUESTS:
        for most in STARTS:
            cells = (np.mean(decided[reading, metric, most, requests]) for reading in ("limit", "load") for metric in METRICS)
            print(f"| {most} x {requests:,} | " + " | ".join(f"{cell:.0%}" for cell in cells) + " |")


def shares(latencies: Floats, limit: float) -> list[StartShare]:
    return [StartShare(int((row > limit).sum()), len(row), memory(row.tolist()).independent) for row in latencies]


def is_decided(counted: list[StartShare], draw: np.random.Generator, most: int) -> bool:
    drawn = [counted[k] for k in draw.permutation(len(counted))[:most]]
    looks = [number for number in LOOKS if number <= most]
    for number in looks:
        alpha = level(number, looks, ALPHA)
        lower, upper = share_bounds(drawn[:number], alpha, alpha)
        if upper <= ALLOWED or lower > ALLOWED:
            return True
    return False


if __name__ == "__main__":
    main()

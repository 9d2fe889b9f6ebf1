"""Error rates of the verdict over engine starts, against a simulated queue before a batching server (bench/batching_queue.py).

    .venv/bin/python bench/verdicts.py [--trials 1000] [--starts 64] [--requests 1000] [--seed 1] [--jobs 1]

Each trial has a utilisation, how far starts differ (CV 3 to 7 %), a constraint (TTFT p95, TPOT p95) and one of two readings of how far the
limit is from the truth. `limit`: the limit itself lies 10 % above or below the true long-run percentile, within 5 % of it, or on it.
`load`: the limit is what is true at the load λ*, and the load is 10 % below or above λ*; there both constraints together are judged too.
The truth comes from a long simulation of its own. The product judges each start as it judges a run, and the starts together after 3, 5, 8, ...
of them; it stops when it is decided, at the latest when the budget of --starts is used up. Prints the tables of docs/verdicts.md.

Each setting has a pool of POOL starts for each load; a trial draws its own from that, without replacement.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from batching_queue import Floats, Runs, Server, simulate

from profiler.analyse import qos, verdict
from profiler.analyse.starts import LOOKS
from profiler.analyse.together import judge_together
from profiler.records import DriveResult, RequestRecord

SERVER = Server()
WARM_UP = 150  # requests of a start before its cohort
UTILISATIONS, CVS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), (0.03, 0.05, 0.07)
METRICS = ("tpot", "ttft")
MARGINS = {"10 % above": 0.1, "10 % below": -0.1, "within 5 %": None, "on it": 0.0}
LOADS = {"10 % below": 0.9, "10 % above": 1.1}
POOL, TRUTH = 512, 3000  # starts
NS = 1e9


@dataclass(frozen=True)
class Trial:
    reading: str
    constraint: str
    load: str
    margin: str
    wrong: bool
    result: str
    used: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of each reading")
    parser.add_argument("--starts", type=int, default=max(LOOKS), help="the budget of a verdict")
    parser.add_argument("--requests", type=int, default=1000, help="requests of each start's cohort")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    settings = [(u, cv) for u in UTILISATIONS for cv in CVS]
    found: list[Trial] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for number, trials in enumerate(pool.map(partial(setting, options), settings), 1):
            found += trials
            wrong, decided = sum(trial.wrong for trial in found), sum(trial.result != "UNDECIDED" for trial in found)
            so_far = f"{len(found)} trials, {decided} decided, {wrong} wrong"
            print(f"{number} of {len(settings)} settings: {so_far}", file=sys.stderr, flush=True)
    print(table(found))


def setting(options: argparse.Namespace, of: tuple[float, float]) -> list[Trial]:
    utilisation, cv = of
    number = UTILISATIONS.index(utilisation) * len(CVS) + CVS.index(cv)
    draw = np.random.default_rng([options.seed, number])
    rate, total, seed = utilisation * SERVER.capacity, WARM_UP + options.requests, 10_000 * options.seed + 10 * number
    truth = {metric: float(np.quantile(values(simulate(SERVER, rate, cv, TRUTH, total, seed), metric), 0.95)) for metric in METRICS}
    each = -(-options.trials // (len(UTILISATIONS) * len(CVS) * 6))
    load = "0.5 to 0.7" if utilisation <= 0.7 else "0.8 to 0.95"
    found = []
    at = Starts(rate, simulate(SERVER, rate, cv, POOL, total, seed + 1))
    for metric in METRICS:
        for name, margin in MARGINS.items():
            for k in range(each):
                # One that lies on the limit may be called either way: one of the two is wrong, by turns.
                by = float(draw.uniform(-0.05, 0.05)) if margin is None else margin
                result, used = judged(f"{metric}_p95<={truth[metric] * (1 + by):.9f}s", at, draw, options.starts)
                wrong = "FITS" if by < 0 or (by == 0 and k % 2) else "FAILS"
                found.append(Trial("limit", f"{metric}_p95", load, name, result == wrong, result, used))
    targets = {f"{metric}_p95": f"{metric}_p95<={truth[metric]:.9f}s" for metric in METRICS}
    targets["both"] = ",".join(targets.values())
    for number, (name, factor) in enumerate(LOADS.items()):
        at = Starts(rate * factor, simulate(SERVER, rate * factor, cv, POOL, total, seed + 2 + number))
        for constraint, target in targets.items():
            for _ in range(each):
                result, used = judged(target, at, draw, options.starts)
                found.append(Trial("load", constraint, load, name, result == ("FAILS" if factor < 1 else "FITS"), result, used))
    return found


def values(runs: Runs, metric: str) -> Floats:
    """Of the cohort. An answer of one token has no TPOT and misses no limit on it."""
    found = runs.ttft_s if metric == "ttft" else np.nan_to_num(runs.tpot_s, nan=0.0)
    return found[:, WARM_UP:]


class Starts:
    """A pool of simulated starts at one load, each judged once for a target."""

    def __init__(self, rate: float, runs: Runs) -> None:
        self.rate, self.runs = rate, runs
        self.judged: dict[tuple[str, int], dict[str, Any]] = {}
        self.requests: dict[int, list[RequestRecord]] = {}

    def document(self, target: str, start: int) -> dict[str, Any]:
        """run.json of one simulated start, as far as a verdict reads it."""
        if (target, start) not in self.judged:
            runs = self.runs
            if start not in self.requests:
                self.requests[start] = records(runs, start)
            requests = self.requests[start]
            opens, closes = int(runs.came[start, WARM_UP] * NS), int(runs.came[start, -1] * NS) + 1
            drive = DriveResult(0, opens, closes, closes, "", "cohort complete", 0.0, "user", None, None, 0.0, 0)
            found = verdict.judge(qos.parse(target), requests, "rate", self.rate, drive)
            run = {"status": "done", "validity": "valid", "start_id": str(start), "qos_result": found.result}
            self.judged[target, start] = {"run": run, "verdicts": [found.to_dict()]}
        return self.judged[target, start]


def judged(target: str, at: Starts, draw: np.random.Generator, most: int) -> tuple[str, int]:
    drawn = draw.permutation(POOL)[:most]
    looks = [number for number in LOOKS if number < most] + [most]
    for looked in looks:
        found = judge_together([at.document(target, int(start)) for start in drawn[:looked]], sequential=True, looks=looks)
        if found.result != "UNDECIDED":
            break
    return found.result, looked


def records(runs: Runs, start: int) -> list[RequestRecord]:
    stamps = (np.stack([runs.came[start], runs.first[start], runs.last[start]], axis=1) * NS).astype(np.int64).tolist()
    found = []
    for k, ((came, first, last), tokens) in enumerate(zip(stamps, runs.tokens[start].tolist(), strict=True)):
        tpot_s = (last - first) / NS / (tokens - 1) if tokens > 1 else None
        ttft_s, e2e_s = (first - came) / NS, (last - came) / NS
        found.append(RequestRecord(
            str(k), None, 0, came, came, first, last, last, ttft_s, ttft_s, tpot_s, e2e_s, e2e_s, None, 1, tokens, tokens, "length",
            None, None, 200, k < WARM_UP, k >= WARM_UP, True, "usage", (), (),
        ))  # fmt: skip
    return found


def table(trials: list[Trial]) -> str:
    rows: dict[tuple[str, str, str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        rows[trial.reading, trial.constraint, trial.load, trial.margin].append(trial)
    lines = ["| reading | constraint | utilisation | | trials | wrong | decided | starts used, mean |", "|---|---|---|---|---|---|---|---|"]
    for (reading, constraint, load, margin), found in sorted(rows.items()):
        lines.append(f"| {reading} | {constraint} | {load} | {margin} | {summary(found)} |")
    for reading in ("limit", "load"):
        for constraint in (*sorted({trial.constraint for trial in trials if trial.reading == reading}), "all"):
            of_it = [trial for trial in trials if trial.reading == reading and constraint in (trial.constraint, "all")]
            lines.append(f"| {reading} | {constraint} | all | at 10 % | {summary([t for t in of_it if t.margin.startswith('10 %')])} |")
        if reading == "limit":
            lines.append(f"| limit | all | all | at 10 % and within 5 % | {summary([t for t in of_it if t.margin != 'on it'])} |")
            lines.append(f"| limit | all | all | on it | {summary([t for t in of_it if t.margin == 'on it'])} |")
    return "\n".join(lines)


def summary(found: list[Trial]) -> str:
    decided = np.mean([trial.result != "UNDECIDED" for trial in found])
    return f"{len(found)} | {sum(trial.wrong for trial in found)} | {decided:.0%} | {np.mean([trial.used for trial in found]):.1f}"


if __name__ == "__main__":
    main()

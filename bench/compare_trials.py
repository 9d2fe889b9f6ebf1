"""How often `profile compare` is right: trials on starts of the null engine that differ by 3 % from one another (docs/compare.md).

    .venv/bin/python bench/compare_trials.py measure FOLDER [--starts 100] [--seconds 170]    again until it says that all is there
    .venv/bin/python bench/compare_trials.py trials FOLDER [--trials 200] [--starts-per-arm 8]

`measure`: real processes and sockets, one short closed-loop cell per start. Backends a and b are the same, c has a TPOT 10 % longer; each start
multiplies all its times by one lognormal draw of CV 3 %. Starts of the three are interleaved. Killed or out of time, it goes on where it was.

`trials`: starts are drawn without replacement from the pools. For a planted 0 % both arms come from one pool (a and b together, split anew at
random in each trial): were they from two pools, the pools' own chance difference would be in every trial, and would count as false alarms.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from profiler.analyse import compare_arms
from profiler.analyse.compare import Compared, compare
from profiler.analyse.compare_arms import Arm
from profiler.store.store import Store

ARMS = {"a": 4.0, "b": 4.0, "c": 4.4}  # between tokens, ms
BACKEND = """summary = "arm {arm} of bench/compare_trials.py"
engine = "null"
device = "cpu"
precision = "none"
[options]
ttft_ms = 5.0
itl_ms = {itl_ms}
scale_cv = 0.03
"""
SWEEP = """name = "compare-trials"
backends = [{backends}]
isl = 16
osl = 16
concurrency = [4]
requests = 40
window_min_s = 0.5
window_max_s = 10.0
warmup_s = 0.1
repeats = {starts}
"""
LEAST, MOST = 0.8, 18 / 200  # shares of trials: planted +10 % against +5 %, planted 0 % against 0
PATIENCE_S = 20.0  # from Ctrl-C to the end of the sweep


def measure(folder: Path, starts: int, seconds: float) -> int:
    """One piece; returns 0 when every start is there, 1 when time was up."""
    folder.mkdir(parents=True, exist_ok=True)
    for arm, itl_ms in ARMS.items():
        (folder / f"null-{arm}.toml").write_text(BACKEND.format(arm=arm, itl_ms=itl_ms))
    names = ", ".join(f'"null-{arm}.toml"' for arm in ARMS)
    (folder / "sweep.toml").write_text(SWEEP.format(backends=names, starts=starts))
    command = [sys.executable, "-m", "profiler", "sweep", "sweep.toml", "--results", "results"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
        try:
            return sweep.wait(seconds)
        except subprocess.TimeoutExpired:
            sweep.send_signal(signal.SIGINT)
            try:
                sweep.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                sweep.kill()
    return 1


def pools(folder: Path) -> dict[str, Arm]:
    """The starts of each arm whose run is there."""
    store = Store(folder / "results")
    rows = [row for row in store.rows() if row["status"] == "done" and row["validity"] != "invalid"]
    return {
        arm: compare_arms.load(arm, store, [store.run(row["run_id"]) for row in rows if row["backend"] == f"null-{arm}"], ["backend"])
        for arm in ARMS
    }


def trial(base: Arm, new: Arm, rule: str) -> Compared:
    return compare(base, new, [rule], 0.95, with_suspect=True).compared[0]


def trials(folder: Path, count: int, k: int, seed: int) -> int:
    """Prints the tables of docs/compare.md; returns 0 when both criteria hold."""
    arms = pools(folder)
    names = ", ".join(f"{arm}: {len(pool.starts)} starts, CV of TPOT p50 {spread(pool):.2%}" for arm, pool in arms.items())
    suspect = sum(run.row["validity"] == "suspect" for pool in arms.values() for run in pool.runs)
    print(f"{names}; factors drawn by the server: CV {injected(folder):.2%}; {suspect} runs suspect\n")
    one_pool = Arm("base", tuple(renamed(run) for run in (*arms["a"].runs, *arms["b"].runs)), frozenset({"backend"}))
    draw = np.random.default_rng(seed)
    print("| planted | limit | starts per arm | trials | regression | within | inconclusive | detectable, median (5 % to 95 %) | wrong |")
    print("|---|---|---|---|---|---|---|---|---|")
    held = True
    for planted, limit, truth in (
        ("+10 %", "+5%", "regression"),
        ("0 %", "0%", None),
        ("0 %", "+5%", "within"),
        ("+10 %", "+15%", "within"),
    ):
        found = []
        for _ in range(count):
            split = draw.permutation(one_pool.starts)
            other = draw.choice(arms["c"].starts, k, replace=False) if planted == "+10 %" else split[k : 2 * k]
            new = (arms["c"] if planted == "+10 %" else one_pool).only(other)
            found.append(trial(one_pool.only(split[:k]), new, f"tpot_p50 > {limit}"))
        outcomes = [one.outcome for one in found]
        called = outcomes.count("regression")
        # At a limit of 0 the truth lies on the limit itself: either claim would be wrong.
        wrong = sum(one not in (truth, "inconclusive") for one in outcomes)
        seen = sorted((one.detectable or 0) - 1 for one in found)
        reach = f"{seen[len(seen) // 2]:+.1%} ({seen[len(seen) // 20]:+.1%} to {seen[-len(seen) // 20 - 1]:+.1%})"
        print(
            f"| {planted} | {limit} | {k} | {count} | {called} | {outcomes.count('within')} | {outcomes.count('inconclusive')} | {reach} | {wrong} |"
        )
        if (planted, limit) == ("+10 %", "+5%"):
            held &= called >= LEAST * count
        if (planted, limit) == ("0 %", "0%"):
            held &= called <= MOST * count
    print("\n" + ("both criteria hold" if held else "NOT MET"))
    return 0 if held else 1


def renamed(run: compare_arms.ArmRun) -> compare_arms.ArmRun:
    """Backends a and b are one distribution: the pool is of one backend."""
    return compare_arms.ArmRun({**run.row, "backend": "null-a"}, run.provenance, run.values)


def spread(pool: Arm) -> float:
    values = [float(run.row["tpot_p50_s"]) for run in pool.runs]
    return stdev(values) / fmean(values)


def injected(folder: Path) -> float:
    """CV of the factors in the engines' logs: what was planted, from another source than what was measured."""
    logs = (folder / "results").glob("runs/*/*/engine.log")
    factors = [float(found[1]) for log in logs if (found := re.search(r"all times x ([0-9.]+)", log.read_text()))]
    return stdev(factors) / fmean(factors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "trials"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--starts", type=int, default=100, help="of each arm")
    parser.add_argument("--seconds", type=float, default=170.0, help="of one piece")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--starts-per-arm", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.what == "trials":
        return trials(options.folder, options.trials, options.starts_per_arm, options.seed)
    done = measure(options.folder, options.starts, options.seconds)
    print(f"{len(list((options.folder / 'results').glob('runs/*/*/run.json')))} runs of {len(ARMS) * options.starts}")
    return done


if __name__ == "__main__":
    sys.exit(main())

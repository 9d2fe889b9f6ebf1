"""`--find-limit` against the real null engine, whose limit is known, beside a ladder of 5 % rungs and a bisection.

    .venv/bin/python bench/find_limit.py measure FOLDER [--seconds 160] [--seeds 1,2]    # again until it says that all is measured
    .venv/bin/python bench/find_limit.py table FOLDER

`measure` runs what is missing, in this order, and stops after about so many seconds; every run is kept, so it may be called again: the search of
each seed; every fourth rung of the ladder over half to twice the limit (one start; what the others take is read between); and long runs
around the limit. The limit itself comes from a simulation of the queue (limit_strategy.py: 8 places, one service time) with the service time that
the overloaded rungs of the ladder show; the long runs say whether the simulation is right. Measuring time is warm-ups, windows and the pauses
between them, and the engines' starts.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import limit_strategy
import numpy as np
from limit_strategy import Server

from profiler.store.store import Store

PLACES, SERVICE_S, LIMIT_S, REQUESTS, RUNG = 8, 0.030, 0.060, 4000, 0.05
BACKEND = f"""
name = "null-8"
version = 1
summary = "8 places of 30 ms: at most 267 requests/s"
engine = "null"
device = "cpu"
precision = "none"

[options]
ttft_ms = {SERVICE_S * 1000}
itl_ms = 1.0
capacity = {PLACES}
"""
SPEC = f"""
name = "null-limit"
backends = ["./null-8.toml"]
isl = 16
osl = 1
qos = "ttft_p95<={LIMIT_S * 1000:g}ms"
concurrency = []
warmup_s = 1.0
window_min_s = 1.0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=160.0)
    parser.add_argument("--seeds", default="1,2")
    options = parser.parse_args()
    seeds = options.seeds.split(",")
    if options.what == "measure":
        measure(options.folder, seeds, time.monotonic() + options.seconds)
    else:
        print(table(options.folder, seeds))


def measure(folder: Path, seeds: list[str], deadline_s: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "null-8.toml").write_text(BACKEND)
    roof = PLACES / SERVICE_S
    near = limit_strategy.truth(Server("", PLACES, SERVICE_S, (LIMIT_S - SERVICE_S) / SERVICE_S, 0.0), starts=60)
    ladder = ",".join(f"{rate:.4g}" for rate in limit_strategy.rungs_over(near / 2, near * 2, RUNG)[::4])
    long = ",".join(f"{near * factor:.4g}" for factor in (0.95, 1.0, 1.05))
    jobs = [(f"search-{seed}", f"requests = {REQUESTS}\nseed = {seed}\nfind_limit = true\nrates = [{0.3 * roof:.4g}]\n") for seed in seeds]
    jobs.insert(1, ("ladder", f"requests = {REQUESTS}\nrates = [{ladder}]\n"))
    jobs.insert(2, ("long", f"requests = {4 * REQUESTS}\nseed = 77\nrates = [{long}]\n"))
    for name, more in jobs:
        if (folder / f"{name}.json").exists():
            continue
        (folder / f"{name}.toml").write_text(SPEC + more)
        left_s = deadline_s - time.monotonic()
        if left_s < 15 or not finished(folder, name, left_s):
            print("not all is measured yet: the same command again")
            return
    print("all is measured")


def finished(folder: Path, name: str, left_s: float) -> bool:
    command = [sys.executable, "-m", "profiler", "sweep", f"{name}.toml", "--results", name, "--json"]
    with (folder / f"{name}.log").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            said, _ = process.communicate(timeout=left_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            return False
    if process.returncode not in (0, 3):
        raise SystemExit(f"{name}: exit {process.returncode}, see {folder / name}.log")
    (folder / f"{name}.json").write_text(said)
    return True


def table(folder: Path, seeds: list[str]) -> str:
    lines = []
    runs = Store(folder / "ladder").runs()
    over = runs[runs["load"] > PLACES / SERVICE_S]
    service_s = PLACES / float(over["request_rate"].max())
    limit = limit_strategy.truth(Server("", PLACES, service_s, (LIMIT_S - service_s) / service_s, 0.0))
    lines += [f"service {service_s * 1000:.2f} ms by the overloaded rungs; λ* {limit:.1f}/s by the simulated queue", ""]
    for row in Store(folder / "long").runs().sort_values("load").to_dict("records"):
        c = Store(folder / "long").run(row["run_id"])["verdicts"][0]["constraints"][0]
        lines.append(
            f"long run at {row['load']:.1f}/s ({row['load'] / limit - 1:+.1%}): {c['misses']} of {c['n']} miss, {c['miss_share']:.2%}"
        )
    rungs = limit_strategy.rungs_over(limit / 2, limit * 2, RUNG)
    seconds = [float(np.interp(rate, *of_ladder(folder))) for rate in rungs]
    lines += [
        "",
        "| | λ* found | holds λ* | starts | runs | measuring time | of the ladder | of the bisection |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for seed in seeds:
        if not (folder / f"search-{seed}.json").exists():
            continue
        found = json.loads((folder / f"search-{seed}.json").read_text())["limits"][0]
        took_s, starts, count = took(folder / f"search-{seed}")
        each_s = took_s, starts * sum(seconds), starts * bisection(rungs, seconds, limit)
        low, high = found["lower"] or 0.0, found["upper"] or math.inf
        lines.append(
            f"| search {seed} | {low:.1f} to {high:.1f} (most likely {found['estimate']:.1f}) | {'yes' if low <= limit < high else 'NO'} "
            f"| {starts} | {count} | {took_s:.0f} s | {each_s[0] / each_s[1]:.2f} of {each_s[1]:.0f} s | {each_s[0] / each_s[2]:.2f} of {each_s[2]:.0f} s |"
        )
    return "\n".join(lines)


def of_ladder(folder: Path) -> tuple[list[float], list[float]]:
    """Rates, and the seconds that a rung of each takes, from the end of the rung before to its own."""
    store = Store(folder / "ladder")
    runs = store.runs().sort_values("window_close_ns")
    ends = list(runs["window_close_ns"] / 1e9)
    # The first has none before it: its own warm-up and window.
    each = [float(runs["window_s"].iloc[0]) + 1.0] + [b - a for a, b in pairwise(ends)]
    pairs = sorted(zip(runs["load"], each, strict=True))
    return [rate for rate, _ in pairs], [seconds for _, seconds in pairs]


def bisection(rungs: list[float], seconds: list[float], limit: float) -> float:
    low, high, total = 0, len(rungs) - 1, 0.0
    while high - low > 1:
        middle = (low + high) // 2
        total += seconds[middle]
        low, high = (middle, high) if rungs[middle] <= limit else (low, middle)
    return total


def took(results: Path) -> tuple[float, int, int]:
    """Seconds of all starts, from each one's launch to the end of its last window; starts; runs."""
    runs = Store(results).runs()
    total = 0.0
    for _, own in runs.groupby("start_id"):
        total += float(own["window_close_ns"].max() - own["window_open_ns"].min()) / 1e9 + 1.0 + float(own["ready_s"].max())
    return total, int(runs["start_id"].nunique()), len(runs)


if __name__ == "__main__":
    main()

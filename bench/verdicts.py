"""Error rates of the verdict over engine starts, against a simulated queue before a batching server (bench/batching_queue.py).

    .venv/bin/python bench/verdicts.py [--trials 1000] [--requests 350] [--seed 1]

Each trial draws a utilisation, how far starts differ (CV 3 to 7 %), a constraint (TTFT p95 or TPOT p95) and where its limit lies: within 5 %
of the true long-run percentile, or 10 % above or below it. The truth comes from a long simulation of its own. The product then judges each
start as it judges a run, and the starts together after 3, 5, 8, 12, 16 and 24 of them; it stops when it is decided. Prints the table of
docs/verdicts.md: wrong verdicts, decided share, starts used.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
from batching_queue import Floats, Runs, Server, simulate

from profiler.analyse import qos, verdict
from profiler.analyse.starts import SPENDING
from profiler.analyse.together import judge_together
from profiler.records import DriveResult, RequestRecord

SERVER = Server()
WARM_UP = 150  # requests of a start before its cohort
UTILISATIONS, CVS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), (0.03, 0.05, 0.07)
CONSTRAINTS = {"ttft": "ttft_p95", "tpot": "tpot_p95"}
NS = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=350, help="requests of each start's cohort")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = np.random.default_rng(options.seed)
    settings = [(u, cv) for u in UTILISATIONS for cv in CVS]
    each = -(-options.trials // len(settings))
    rows: dict[tuple[str, str, str], list[tuple[bool, bool, int]]] = defaultdict(list)
    left = options.trials
    for number, (utilisation, cv) in enumerate(settings):
        trials = min(each, left)
        left -= trials
        rate = utilisation * SERVER.capacity
        total = WARM_UP + options.requests
        truth = simulate(SERVER, rate, cv, 3000, total, 1000 * options.seed + number)
        runs = simulate(SERVER, rate, cv, trials * max(SPENDING), total, 1000 * options.seed + 500 + number)
        for trial in range(trials):
            metric = "ttft" if trial % 2 else "tpot"
            margin = (0.1, -0.1, float(draw.uniform(-0.05, 0.05)))[trial // 2 % 3]
            true_s = float(np.nanquantile(values(truth, metric), 0.95))
            target = qos.parse(f"{CONSTRAINTS[metric]}<={true_s * (1 + margin):.9f}s")
            result, used = judged(target, runs, trial, rate)
            wrong = result == ("FAILS" if margin > 0 else "FITS")
            band = "at 10 %" if abs(margin) == 0.1 else "within 5 %"
            load = "0.5 to 0.7" if utilisation <= 0.7 else "0.8 to 0.95"
            rows[metric, load, band].append((wrong, result != "UNDECIDED", used))
    print(table(rows))


def values(runs: Runs, metric: str) -> Floats:
    found = runs.ttft_s if metric == "ttft" else runs.tpot_s
    return found[:, WARM_UP:]


def judged(target: qos.QosTarget, runs: Runs, trial: int, rate: float) -> tuple[str, int]:
    documents: list[dict[str, Any]] = []
    for looked in SPENDING:
        documents += [document(target, runs, trial * max(SPENDING) + k, rate) for k in range(len(documents), looked)]
        found = judge_together(documents, sequential=True)
        if found.result != "UNDECIDED":
            break
    return found.result, looked


def document(target: qos.QosTarget, runs: Runs, start: int, rate: float) -> dict[str, Any]:
    """run.json of one simulated start, as far as a verdict reads it."""
    requests = [record(runs, start, k) for k in range(runs.came.shape[1])]
    opens, closes = int(runs.came[start, WARM_UP] * NS), int(runs.came[start, -1] * NS) + 1
    drive = DriveResult(0, opens, closes, closes, "", "cohort complete", 0.0, "user", None, None, 0.0, 0)
    found = verdict.judge(target, requests, "rate", rate, drive)
    run = {"status": "done", "validity": "valid", "start_id": str(start), "qos_result": found.result}
    return {"run": run, "verdicts": [found.to_dict()]}


def record(runs: Runs, start: int, k: int) -> RequestRecord:
    came, first, last = (int(x[start, k] * NS) for x in (runs.came, runs.first, runs.last))
    tokens = int(runs.tokens[start, k])
    tpot_s = (last - first) / NS / (tokens - 1) if tokens > 1 else None
    ttft_s, e2e_s = (first - came) / NS, (last - came) / NS
    return RequestRecord(
        str(k), None, 0, came, came, first, last, last, ttft_s, ttft_s, tpot_s, e2e_s, e2e_s, None, 1, tokens, tokens, "length",
        None, None, 200, k < WARM_UP, k >= WARM_UP, True, "usage", (), (),
    )  # fmt: skip


def table(rows: dict[tuple[str, str, str], list[tuple[bool, bool, int]]]) -> str:
    lines = [
        "| constraint | utilisation | limit from the truth | trials | wrong | decided | starts used, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for (metric, load, band), found in sorted(rows.items()):
        wrong, decided, used = (np.array(column, dtype=float) for column in zip(*found, strict=True))
        lines.append(
            f"| {CONSTRAINTS[metric]} | {load} | {band} | {len(found)} | {wrong.sum():.0f} | {decided.mean():.0%} | {used.mean():.1f} |"
        )
    every = [one for found in rows.values() for one in found]
    lines.append(f"| all | | | {len(every)} | **{sum(one[0] for one in every)}** | {np.mean([one[1] for one in every]):.0%} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

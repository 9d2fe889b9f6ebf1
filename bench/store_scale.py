"""What a big store costs: `profile results ls`, `profile report` and bytes per token stamp at 10, 100 and 1,000 runs.

    .venv/bin/python bench/store_scale.py --folder FOLDER [--like RESULTS] [--runs 10,100,1000] [--keep]

Stores are generated through the product's own writer (bench/store_like.py) from one real run (of RESULTS, else of the null engine, made
here). Each command runs in a process of its own: `ls` cold (without an index), then the median of three; `report` twice, the better one.
Peak memory is the child's ru_maxrss. CPU is user and system time: what the wall time would be on an idle core. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from store_like import generate, null_run

from profiler.store import index
from profiler.store.store import Store

WARM = 3
COLUMNS = (
    "runs", "GB on disk", "bytes/stamp", "with the rest of its file", "ls cold s", "ls s", "ls CPU s", "report s", "report CPU s", "report MB",
    "HTML MB",
)  # fmt: skip
PROFILE = [sys.executable, "-m", "profiler"]


@dataclass(frozen=True)
class Cost:
    wall_s: float
    cpu_s: float
    peak_bytes: int


def cost(command: Sequence[str]) -> Cost:
    """Of one process, waited for; its output goes nowhere. Raises SystemExit when it fails."""
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(command[0], list(command))
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def stamp_bytes(root: Path) -> tuple[int, float, float]:
    """Stamps in a store, bytes of their two columns per stamp, and bytes of whole requests.parquet files per stamp."""
    stamps = columns = files = 0
    for path in root.glob("runs/*/*/requests.parquet"):
        files += path.stat().st_size
        with pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                for index in range(file.metadata.row_group(group).num_columns):
                    column = file.metadata.row_group(group).column(index)
                    if column.path_in_schema.startswith("arrival_"):
                        columns += column.total_compressed_size
                    if column.path_in_schema.startswith("arrival_tokens"):
                        stamps += column.num_values
    return stamps, columns / max(1, stamps), files / max(1, stamps)


def measure(root: Path) -> dict[str, tuple[Cost, Cost]]:
    """Per command: its first run, and the median of WARM more."""
    commands = {
        "results ls": [*PROFILE, "results", "ls", "--results", str(root)],
        "report": [*PROFILE, "report", "--results", str(root), "--out", str(root / "report.html")],
    }
    found = {}
    for name, command in commands.items():
        cold = cost(command)
        warm = [cost(command) for _ in range(WARM if name == "results ls" else 1)]
        found[name] = (cold, sorted(warm, key=lambda one: one.wall_s)[len(warm) // 2])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the stores go; each is removed after it was measured")
    parser.add_argument("--like", type=Path, help="a results folder: its first measured run is the pattern  [default: a run made here]")
    parser.add_argument("--runs", default="10,100,1000")
    parser.add_argument("--requests", type=int, default=1000, help="of each run")
    parser.add_argument("--tokens", type=int, default=100, help="mean output tokens of a request")
    parser.add_argument("--keep", action="store_true", help="keep the stores, and measure those that are there")
    given = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for runs in map(int, given.runs.split(",")):
        root = given.folder / f"store-{runs}"
        began = time.perf_counter()
        if len(Store(root).rows()) < runs:
            generate(root, given.like or null_run(given.folder / "like"), runs, given.requests, given.tokens)
        print(f"{runs} runs made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        _, stamp, whole = stamp_bytes(root)
        (root / index.FILE).unlink(missing_ok=True)
        found = measure(root)
        (cold, ls), (first, report) = found["results ls"], found["report"]
        print(
            f"| {runs:,} | {size / 1e9:.3f} | {stamp:.2f} | {whole:.2f} | {cold.wall_s:.2f} | {ls.wall_s:.2f} | {ls.cpu_s:.2f} "
            f"| {min(first.wall_s, report.wall_s):.1f} | {min(first.cpu_s, report.cpu_s):.1f} "
            f"| {max(first.peak_bytes, report.peak_bytes) / 1e6:.0f} | {(root / 'report.html').stat().st_size / 1e6:.1f} |",
            flush=True,
        )
        if not given.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()

"""What `profile --help` costs in CPU, against `python -c pass`. Run: .venv/bin/python bench/help_cost.py

Interleaved pairs, user + system time of the child process; prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import click'": [sys.executable, "-c", "import click"],
    "profile --help": [sys.executable, "-m", "profiler", "--help"],
}


def cpu_s(command: Sequence[str]) -> float:
    """User + system CPU time of one run, s."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execv(command[0], list(command))
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs + 1):
        for name, command in COMMANDS.items():
            times[name].append(cpu_s(command))
    base = statistics.median(times["python -c pass"][1:])
    print(f"{'command':<28}{'CPU median':>12}{'min':>10}{'max':>10}{'over python -c pass':>22}")
    for name, values in times.items():
        kept = values[1:]  # the first one warmed the page cache
        middle = statistics.median(kept)
        print(f"{name:<28}{middle * 1e3:>9.0f} ms{min(kept) * 1e3:>7.0f} ms{max(kept) * 1e3:>7.0f} ms{middle / base:>21.1f}x")


if __name__ == "__main__":
    main()

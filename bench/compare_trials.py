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
import signal
import subprocess
import sys
from pathlib import Path

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
    done = measure(options.folder, options.starts, options.seconds)
    print(f"{len(list((options.folder / 'results').glob('runs/*/*/run.json')))} runs of {len(ARMS) * options.starts}")
    return done


if __name__ == "__main__":
    sys.exit(main())

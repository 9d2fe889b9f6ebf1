"""The memory prediction against what engines use, by part: `python bench/memory_prediction.py [--model REF ...] [--backend NAME ...]`.

Starts each backend with each model that is on this disk, sends prompts of 40, 250 and 20 tokens (other batch sizes make OpenVINO pack its weights
again) and compares. vLLM on a CPU does not say what its weights take: they are told apart by the difference to `synthetic:llama-tiny`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from profiler import environments, models, plan
from profiler.analyse.memory import forecast
from profiler.engines import http_client, registry
from profiler.errors import ProfilerError
from profiler.machine.fingerprint import fingerprint
from profiler.run.memory_use import tree_bytes, used
from profiler.spec import SweepSpec
from profiler.units import format_size

MODELS = ("synthetic:llama-tiny", "synthetic:qwen3-tiny", "synthetic:gpt_oss-tiny", "synthetic:mixtral-tiny", "smollm2-135m-instruct")
BACKENDS = ("openvino-xeon-bf16", "openvino-xeon-int8", "openvino-xeon-int4", "vllm-cpu-bf16")
PROMPTS = (20, 40, 250)
REFERENCE = "synthetic:llama-tiny"


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
        if running.pid is not None:
            seen["worker_bytes"] = tree_bytes(running.pid, None)["largest"]
    return {"model": ref, "backend": name, **(predicted.columns() if predicted else {}), **seen}


def apart(rows: list[dict[str, Any]]) -> None:
    """Weights and the rest of rows that only have their sum, by the difference to the reference model on the same backend."""
    for row in rows:
        first = next((r for r in rows if r["backend"] == row["backend"] and r["model"] == REFERENCE), None)
        both = row.get("used_weights_other_bytes")
        if both and first is not None:
            # Of the worker alone: the other processes differ by their tokenizers.
            weights = first["predicted_weights_bytes"] + row["worker_bytes"] - first["worker_bytes"]
            row["used_weights_bytes"] = weights if row is not first else None
            row["used_other_bytes"] = both - weights


def error(row: dict[str, Any], part: str) -> str:
    said, seen = row.get(f"predicted_{part}"), row.get(f"used_{part}")
    if not said or not seen:
        return "—"
    return f"{format_size(said)} / {format_size(seen)} ({said / seen - 1:+.1%})"


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
    apart(rows)
    print("| model | backend | weights, predicted / used | KV per token | the rest |\n|---|---|---|---|---|")
    for row in rows:
        parts = " | ".join(error(row, part) for part in ("weights_bytes", "kv_token_bytes", "other_bytes"))
        print(f"| {row['model']} | {row['backend']} | {parts} |")


if __name__ == "__main__":
    main()

"""The memory prediction against what engines use, by part: `python bench/memory_prediction.py [--model REF ...] [--backend NAME ...] [--starts N]`.

Starts each backend with each model, sends prompts of 20, 40 and 250 tokens (other batch sizes make OpenVINO pack its weights again) and compares
the median over starts. What a run cannot tell from the rest is weighed in a start of its own, from inside: the weights of vLLM on a CPU
(bench/vllm_weights.py) and of mixtures of experts on OpenVINO (bench/openvino_weights.py).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from profiler import environments, models, plan
from profiler.analyse.memory import forecast, kv_precision, vllm_computes_in_f32
from profiler.engines import http_client, registry
from profiler.errors import ProfilerError
from profiler.machine.fingerprint import fingerprint
from profiler.models import footprint
from profiler.records import LocalModel, Variant
from profiler.run.memory_use import used
from profiler.spec import BackendSpec, SweepSpec
from profiler.units import format_size

SIZED = ("llama-tiny", "llama-25m", "llama-135m", "qwen2-25m", "qwen3-25m", "phi3-25m", "mistral-25m")
MIXTURES = ("mixtral-25m", "qwen3_moe-25m", "gpt_oss-25m", "deepseek_v2-25m", "deepseek_v3-25m")
MODELS = (*(f"synthetic:{name}" for name in (*SIZED, *MIXTURES)), "smollm2-135m-instruct")
CONTROL = "synthetic:llama-25m"  # a dense model, of whose weights OpenVINO copies none while it loads
BACKENDS = ("openvino-xeon-bf16", "openvino-xeon-int8", "openvino-xeon-int4", "vllm-cpu-bf16", "vllm-cpu-w8a8-int8")
PROMPTS = (20, 40, 250)  # tokens, spread over the vocabulary: an embedding's rows that nobody looks up are not read from the mapped file


def measure(ref: str, name: str, isa: tuple[str, ...], starts: int) -> dict[str, Any]:
    """Predicted and used columns, the latter medians over `starts`. Raises ProfilerError."""
    cell, model, variant = prepared(ref, name)
    predicted = forecast(cell, model, isa)
    seen = [used_once(cell, variant, model) for _ in range(starts)]
    row: dict[str, Any] = {"model": ref, "backend": name, "starts": starts, **(predicted.columns() if predicted else {})}
    for column in {column for one in seen for column in one if column.startswith("used_")}:
        values = [one[column] for one in seen if one.get(column) is not None]
        if values:
            row[column], row[f"range_{column}"] = statistics.median(values), (min(values), max(values))
    if row.get("used_weights_other_bytes") and variant.path is not None:
        weigh = weighed_vllm if cell.backend.engine == "vllm" else weighed_openvino
        row["used_weights_bytes"] = weigh(cell.backend, variant.path, isa)
        row["used_other_bytes"] = row["used_weights_other_bytes"] - row["used_weights_bytes"]
    return row


def prepared(ref: str, name: str) -> tuple[plan.Cell, LocalModel, Variant]:
    cell = plan.make(SweepSpec(model=ref, backends=(name,), isl=250, osl=8, concurrency=(1,))).cells[0]
    model = models.resolve(ref, lambda line: None, convert_python=lambda: python("openvino-export"))
    return cell, model, registry.get(cell.backend.engine).prepare(model, cell.backend, lambda line: None)


def python(environment: str) -> Path:
    return environments.ensure(environments.ENVIRONMENTS[environment], print).python


def used_once(cell: plan.Cell, variant: Variant, model: LocalModel) -> dict[str, Any]:
    engine, vocabulary = registry.get(cell.backend.engine), int(footprint.config(model.folder)["vocab_size"])
    with tempfile.TemporaryDirectory() as folder, engine.start(variant, cell.backend, Path(folder) / "log", lambda line: None) as running:
        for length in PROMPTS:
            body = {
                "model": running.endpoint.model,
                "prompt": [i * vocabulary // length for i in range(length)],
                "max_tokens": 8,
                "ignore_eos": True,
            }
            status, answer = http_client.request(
                running.endpoint, "POST", "/v1/completions", json.dumps({**body, "temperature": 0}).encode(), timeout_s=120
            )
            if status != 200:
                raise ProfilerError(http_client.error_text(status, answer))
        return used(running, variant, model)


def inside(environment: str, script: str, mark: str, *arguments: str) -> list[int]:
    """The numbers that bench/`script` prints after `mark`, run by an engine's own interpreter. Raises ProfilerError."""
    command = [str(python(environment)), str(Path(__file__).parent / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(rf"^{mark} ([0-9 -]+)$", done.stdout, flags=re.M)
    if found is None:
        raise ProfilerError(f"{script} {' '.join(arguments)} printed no {mark}: {done.stderr.strip()[-300:]}")
    return [int(number) for number in found.group(1).split()]


def weighed_vllm(backend: BackendSpec, folder: Path, isa: tuple[str, ...]) -> int:
    dtype = "float32" if vllm_computes_in_f32(backend, isa) else "bfloat16"
    return inside("vllm-cpu", "vllm_weights.py", "LOADED", str(folder), dtype)[0]


def weighed_openvino(backend: BackendSpec, folder: Path, isa: tuple[str, ...]) -> int:
    """What a load takes beside the experts is what the same start of a dense model shows."""
    precision = kv_precision(backend, isa)
    control = prepared(CONTROL, backend.name)[2].path
    loaded, ran, mapped = inside("openvino", "openvino_weights.py", "LARGE", str(folder), precision)
    return mapped + ran + loaded - inside("openvino", "openvino_weights.py", "LARGE", str(control), precision)[0]


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
    parser.add_argument("--starts", type=int, default=1, help="of each pair; the median is compared")
    args = parser.parse_args()
    isa = tuple(fingerprint()["isa"])
    rows = []
    for backend in args.backend or BACKENDS:
        for ref in args.model or MODELS:
            try:
                rows.append(measure(ref, backend, isa, args.starts))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            except ProfilerError as problem:
                print(f"{ref} on {backend}: {problem.message}", file=sys.stderr, flush=True)
    print("| model | backend | weights, predicted / used | KV per token | the rest | weights + rest |\n|---|---|---|---|---|---|")
    for row in rows:
        parts = " | ".join(error(row, part) for part in ("weights_bytes", "kv_token_bytes", "other_bytes"))
        print(f"| {row['model']} | {row['backend']} | {parts} | {together(row)} |")


if __name__ == "__main__":
    main()

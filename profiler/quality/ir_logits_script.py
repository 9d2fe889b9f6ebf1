"""Script, run in the OpenVINO environment: the most probable tokens of each place of some windows, from an IR's own logits.

    ir_logits_script.py --model DIR --windows FILE.json --out FILE.npz --k 20 --inference-precision P --kv-cache-precision P [--threads N]

FILE.npz holds `ids` int32 and `log_probs` float32 [places, k], best first, and `given` float64 [places], the log-probability of the token that
is there (nats). Lines that start with `progress: ` are for people. Imports nothing from `profiler`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

EVERY = 50  # windows between two lines of progress


def logits_of(request: Any, ids: list[int]) -> Any:
    """[tokens, vocabulary] of one window, each row given all tokens up to its own; nothing is left of the window before."""
    request.reset_state()
    n = len(ids)
    feeds = {
        "input_ids": np.array([ids], dtype=np.int64),
        "attention_mask": np.ones((1, n), dtype=np.int64),
        "position_ids": np.arange(n, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    wanted = {name for port in request.model_inputs for name in port.names}
    if unknown := wanted - feeds.keys():
        raise SystemExit(f"the IR has inputs that a text alone does not fill: {', '.join(sorted(unknown))}")
    found = request.infer({name: value for name, value in feeds.items() if name in wanted})["logits"]
    if found.shape[:2] != (1, n):
        raise SystemExit(f"the IR gives logits {found.shape} for {n} tokens: not one row per token")
    return found[0].astype(np.float64)


def best(log_probs: Any, k: int) -> tuple[Any, Any]:
    """Of each row the `k` largest, best first; the lower id where two are equal."""
    ids = np.argpartition(-log_probs, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(log_probs, ids, axis=1)
    order = np.lexsort((ids, -values), axis=1)
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--inference-precision", required=True)
    parser.add_argument("--kv-cache-precision", required=True)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    import openvino

    hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": options.inference_precision, "KV_CACHE_PRECISION": options.kv_cache_precision}
    if options.threads:
        hints["INFERENCE_NUM_THREADS"] = options.threads
    request = openvino.Core().compile_model(options.model / "openvino_model.xml", "CPU", hints).create_infer_request()
    windows = json.loads(options.windows.read_text(encoding="utf-8"))
    ids, values, given = [], [], []
    for number, tokens in enumerate(windows, 1):
        if number % EVERY == 1:
            print(f"progress: the IR's own logits, window {number} of {len(windows)}", flush=True)  # noqa: T201 - the launcher reads it
        logits = logits_of(request, tokens)[:-1]
        top = logits.max(axis=1, keepdims=True)
        log_probs = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        found = best(log_probs, options.k)
        ids.append(found[0])
        values.append(found[1])
        given.append(log_probs[np.arange(len(tokens) - 1), tokens[1:]])
    with options.out.open("wb") as file:
        np.savez(
            file,
            ids=np.concatenate(ids).astype(np.int32),
            log_probs=np.concatenate(values).astype(np.float32),
            given=np.concatenate(given),
        )


if __name__ == "__main__":
    main()

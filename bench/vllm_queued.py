"""When vLLM's "queue" begins: is the wait for a neighbour's running step in its per-request times?

    .venv/bin/python bench/vllm_queued.py [--backend vllm-cpu-bf16] [--model smollm2-135m-instruct] [--repeats 5]

Sends one long prompt to an idle server, a short one some time into the first one's prefill, and compares the second one's TTFT as a client sees it
with the server's own (queue + prefill). If the server stamped a request as queued when it came, the two would agree whatever the time
between; if it does so between steps only, the difference is what was left of the first one's prefill, and falls by as much as the second comes later.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from profiler import catalog, environments
from profiler.engines import registry
from profiler.models import resolve
from profiler.records import Endpoint

FIRST_TOKENS, SECOND_TOKENS, OUTPUT = 256, 16, 4
DELAYS_S = (0.1, 0.2, 0.4, 0.6)


@dataclass(frozen=True)
class Answer:
    """Seconds. `server_s`: the server's queue + prefill."""

    ttft_s: float
    server_s: float


def ask(endpoint: Endpoint, tokens: int, seed: int) -> Answer:
    draw = random.Random(seed)
    body = {"model": endpoint.model, "prompt": [draw.randrange(1000, 40_000) for _ in range(tokens)], "max_tokens": OUTPUT}
    body |= {"ignore_eos": True, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=120)
    begun = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    first, timings = None, None
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            first = first or time.perf_counter()
            timings = json.loads(line[6:]).get("metrics") or timings
    connection.close()
    assert first is not None and timings is not None, "no token, or no per-request metrics"
    return Answer(first - begun, (timings["queue_time_ms"] + timings["time_to_first_token_ms"]) / 1e3)


def pair(endpoint: Endpoint, delay_s: float, seed: int) -> tuple[Answer, Answer]:
    """The first request's answer and that of one sent `delay_s` later."""
    found: list[Answer] = []
    first = threading.Thread(target=lambda: found.append(ask(endpoint, FIRST_TOKENS, seed)))
    first.start()
    time.sleep(delay_s)
    second = ask(endpoint, SECOND_TOKENS, seed + 1)
    first.join()
    return found[0], second


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="vllm-cpu-bf16")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    backend, engine = catalog.backend(options.backend), registry.get("vllm")
    model = resolve(
        options.model, say, convert_python=lambda: environments.ensure(environments.ENVIRONMENTS["openvino-export"], say).python
    )
    variant = engine.prepare(model, backend, say)
    with tempfile.TemporaryDirectory() as folder, engine.start(variant, backend, Path(folder) / "log", say) as running:
        ask(running.endpoint, FIRST_TOKENS, 0)
        print(
            "| sent after the first, ms | first one's prefill, ms | left of it, ms | second: client TTFT - server's, ms |\n|---|---|---|---|"
        )
        for delay in DELAYS_S:
            pairs = [pair(running.endpoint, delay, 100 * n + int(delay * 1e3)) for n in range(options.repeats)]
            prefill = median(first.server_s for first, _ in pairs)
            apart = median(second.ttft_s - second.server_s for _, second in pairs)
            print(f"| {delay * 1e3:.0f} | {prefill * 1e3:.0f} | {(prefill - delay) * 1e3:.0f} | {apart * 1e3:.0f} |", flush=True)


if __name__ == "__main__":
    main()

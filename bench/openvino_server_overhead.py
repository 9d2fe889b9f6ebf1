"""What our OpenVINO server costs: its throughput over that of a bare add_request/step loop on the same IR, interleaved.

    .venv/bin/python bench/openvino_server_overhead.py [--model NAME] [--backend openvino-xeon-int8] [--pairs 12] [--json]

Two processes hold the same model; while one works the other sleeps. Each pair is one round of each, in alternating order, and the
result is the median of the pairs' ratios: the machine's drift falls out. The bare loop adds the requests, steps, and reads the token
ids; it makes no text, no HTTP, no record. The client of the server is this process: it sends, reads and counts bytes.
Target: at least 0.95 at concurrency 1 and 16.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Run in the engine's environment: reads "concurrency" lines, does one round each, writes the seconds it took.
BARE = """
import sys, time, json, numpy, openvino, openvino_genai as g
o = json.loads(sys.argv[1])
s = g.SchedulerConfig(); s.cache_size = o["cache_size_gb"]; s.enable_prefix_caching = o["prefix_caching"]
p = g.ContinuousBatchingPipeline(o["model"], s, "CPU", {"INFERENCE_PRECISION_HINT": o["inference_precision"], "KV_CACHE_PRECISION": o["kv_cache_precision"]})
serial = 0
print("ready", flush=True)
for line in sys.stdin:
    prompts = json.loads(line)
    c = g.GenerationConfig(); c.max_new_tokens = o["osl"]; c.ignore_eos = True
    started = time.perf_counter()
    handles = []
    for ids in prompts:
        serial += 1
        handles.append(p.add_request(serial, openvino.Tensor(numpy.array([ids], dtype=numpy.int64)), c))
    tokens = 0
    while p.has_non_finished_requests():
        p.step()
        for h in handles:
            if h.can_read():
                tokens += len(next(iter(h.read().values())).generated_ids)
    took = time.perf_counter() - started
    assert tokens == len(prompts) * o["osl"], tokens
    print(took, flush=True)
"""


def served_s(host: str, port: int, model: str, prompts: list[list[int]], osl: int, asleep: bool) -> float:
    """Seconds from the first send to the end of the last stream. `asleep`: the kernel wakes us at the end only."""
    selector = selectors.DefaultSelector()
    requests = []
    for ids in prompts:
        body = json.dumps(
            {
                "model": model,
                "prompt": ids,
                "max_tokens": osl,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "return_token_ids": True,
            }
        ).encode()
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if asleep:  # more than an answer: what wakes us is the server's close
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 19)
        selector.register(sock, selectors.EVENT_READ)
        head = b"POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        requests.append((sock, head % len(body) + body))
    started = time.perf_counter()
    for sock, request in requests:
        sock.sendall(request)
    open_streams = len(requests)
    tokens = 0
    while open_streams:
        for key, _ in selector.select():
            data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
            tokens += data.count(b'"token_ids"')
            if not data:
                open_streams -= 1
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
    took = time.perf_counter() - started
    assert tokens == len(prompts) * osl, f"{tokens} tokens arrived, {len(prompts) * osl} were asked"
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--backend", default="openvino-xeon-int8")
    parser.add_argument("--concurrency", default="1,16")
    parser.add_argument("--isl", type=int, default=128)
    parser.add_argument("--osl", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--client", choices=("per-token", "asleep"), default="per-token", help="whether the client reads along")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    from profiler import catalog, environments
    from profiler.engines import registry
    from profiler.engines.openvino import DEFAULTS
    from profiler.models import resolve

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    export = environments.ENVIRONMENTS["openvino-export"]
    model = resolve(options.model, say, convert_python=lambda: environments.ensure(export, say).python)
    backend = catalog.backend(options.backend)
    engine = registry.get(backend.engine)
    variant = engine.prepare(model, backend, say)
    python = str(environments.ensure(environments.ENVIRONMENTS["openvino"], say).python)
    computes_in = variant.details["computes_in"]  # the same precisions as the server's, also where the CPU has no bf16
    bare_options = {**DEFAULTS, **backend.options, **computes_in, "model": str(variant.path), "osl": options.osl}

    results = []
    with (
        tempfile.TemporaryDirectory() as folder,
        engine.start(variant, backend, Path(folder) / "engine.log", say) as running,
        subprocess.Popen(
            [python, "-I", "-c", BARE, json.dumps(bare_options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as bare,
    ):
        assert bare.stdin and bare.stdout
        assert bare.stdout.readline() == "ready\n"
        serial = 0
        for concurrency in map(int, options.concurrency.split(",")):
            pairs = []
            for pair in range(-2, options.pairs):  # two to warm up
                serial += 1
                # Both of a pair get the same prompts; no two pairs do.
                prompts = [[(serial * 7919 + i * 104729 + k * 31) % 40000 + 100 for k in range(options.isl)] for i in range(concurrency)]
                times = {}
                for who in ("bare", "served") if pair % 2 else ("served", "bare"):
                    if who == "bare":
                        bare.stdin.write(json.dumps(prompts) + "\n")
                        bare.stdin.flush()
                        times[who] = float(bare.stdout.readline())
                    else:
                        at = running.endpoint
                        times[who] = served_s(at.host, at.port, at.model, prompts, options.osl, options.client == "asleep")
                if pair >= 0:
                    pairs.append((times["bare"], times["served"]))
            ratios = sorted(b / s for b, s in pairs)
            tokens = concurrency * options.osl
            results.append(
                {
                    "concurrency": concurrency,
                    "pairs": len(pairs),
                    "bare_tps": statistics.median(tokens / b for b, _ in pairs),
                    "served_tps": statistics.median(tokens / s for _, s in pairs),
                    "ratio_median": statistics.median(ratios),
                    "ratio_min": ratios[0],
                    "ratio_max": ratios[-1],
                }
            )
        bare.stdin.close()
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{options.backend}, {model.name}, prompt {options.isl}, output {options.osl} tokens")
    print(f"{'streams':>8} {'bare tok/s':>11} {'served tok/s':>13} {'ratio':>7} {'min':>6} {'max':>6} {'pairs':>6}")
    for row in results:
        print(
            f"{row['concurrency']:>8} {row['bare_tps']:>11.1f} {row['served_tps']:>13.1f} {row['ratio_median']:>7.3f}"
            f" {row['ratio_min']:>6.2f} {row['ratio_max']:>6.2f} {row['pairs']:>6}"
        )


if __name__ == "__main__":
    main()

"""Our TTFT and TPOT for vLLM beside the server's own and beside `vllm bench serve`, interleaved on one server.

    .venv/bin/python bench/vllm_agreement.py [--backend vllm-cpu-bf16 | --url http://127.0.0.1:PORT/v1] [--concurrency 1,4] [--pairs 3]
                                             [--requests 24] [--model NAME] [--results FILE] [--table-only]

The server is one that `profile sweep` would start (vLLM with --enable-per-request-metrics), started here or, with --url, one that nobody else
uses. Each pair is one run
of ours and one of `vllm bench serve` (from the environment `vllm-cpu` or `vllm-cuda`), in alternating order: completions, random prompts,
128 tokens in, 32 out, closed loop. Each run is appended to --results as JSON, so a bench can be continued. Every figure has its
counterpart over the same requests:

* ours per request: client TTFT against the server's queue + prefill (the engine's own clock, from its queue to the first token), client
  TPOT against its decode time / (tokens - 1);
* both tools per run: mean client TTFT and TPOT against the growth of the server's histograms, whose TTFT starts when the request arrived
  at the API server and ends when that had the first token.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from time import monotonic
from typing import Any

import psutil
from peer_clients import environment
from peer_clients.adapters import VLLM_BENCH

from profiler import catalog, environments
from profiler.engines import http_client, registry
from profiler.engines.openai import parse_url
from profiler.models import resolve
from profiler.records import Endpoint, LoadPlan, Prompt, RequestRecord
from profiler.run import counters
from profiler.run.bodies import PATHS, make_body
from profiler.run.decode import RequestMeta, decode
from profiler.run.drive import drive

INPUT_TOKENS, OUTPUT_TOKENS = 128, 32
TPOT = "vllm:request_time_per_output_token_seconds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server; else one is started")
    parser.add_argument("--backend", default="vllm-cpu-bf16", help="the server that is started")
    parser.add_argument("--concurrency", default="1,4")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="whose tokenizer `vllm bench serve` loads")
    parser.add_argument("--environment", default="vllm-cpu", choices=["vllm-cpu", "vllm-cuda"])
    parser.add_argument("--results", type=Path, default=Path("agreement.jsonl"))
    parser.add_argument("--table-only", action="store_true", help="print the table of --results and measure nothing")
    options = parser.parse_args()
    if options.url and not options.table_only:
        measure(options)
    elif not options.table_only:
        backend, engine = catalog.backend(options.backend), registry.get("vllm")
        variant = engine.prepare(
            resolve(
                options.model, say, convert_python=lambda: environments.ensure(environments.ENVIRONMENTS["openvino-export"], say).python
            ),
            backend,
            say,
        )
        with tempfile.TemporaryDirectory() as folder, engine.start(variant, backend, Path(folder) / "log", say) as running:
            options.url = running.endpoint.url
            measure(options)
    print(table([json.loads(line) for line in options.results.read_text().splitlines()]))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace) -> None:
    tls, host, port, prefix = parse_url(options.url)
    endpoint = Endpoint(host, port, "", tls, prefix)
    served = json.loads(http_client.request(endpoint, "GET", "/models", prefix=True)[1])["data"][0]["id"]
    endpoint = Endpoint(host, port, served, tls, prefix)
    found = environments.installed(environments.ENVIRONMENTS[options.environment])
    if found is None:
        sys.exit(f"the environment {options.environment} is not built: profile engines install vllm")
    variables = environment.variables(environment.tokenizer_folder(options.model))
    seed = random.SystemRandom().randrange(10**6)
    for concurrency in map(int, options.concurrency.split(",")):
        for pair in range(options.pairs):
            tools = ["ours", "vllm bench"] if (seed + pair) % 2 else ["vllm bench", "ours"]
            for tool in tools:
                seed += 1
                before = http_client.metrics(endpoint)
                with tempfile.TemporaryDirectory(prefix="bench-agreement-") as name:
                    if tool == "ours":
                        row = ours(endpoint, concurrency, options.requests, seed, Path(name))
                    else:
                        row = theirs(str(found.python), endpoint, concurrency, options.requests, seed, Path(name), variables)
                after = http_client.metrics(endpoint)
                row |= {"tool": tool, "concurrency": concurrency}
                row |= {
                    "histogram_ttft_s": counters.mean(before, after, counters.TTFT),
                    "histogram_tpot_s": counters.mean(before, after, TPOT),
                }
                row |= {name: _each(before, after, f"vllm:{name}_tokens_total") for name in ("prompt", "generation")}
                row["histogram_n"] = counters.grown(before, after, f"{counters.TTFT}_count")
                print(json.dumps({key: value for key, value in row.items() if not isinstance(value, list)}), file=sys.stderr)
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def ours(endpoint: Endpoint, concurrency: int, requests: int, seed: int, folder: Path) -> dict[str, Any]:
    draw = random.Random(seed)
    prompts = [
        Prompt(f"r{i}", tuple(draw.randrange(1000, 40_000) for _ in range(INPUT_TOKENS)), OUTPUT_TOKENS) for i in range(4 * requests)
    ]
    bodies = [make_body(prompt, endpoint.model) for prompt in prompts]
    plan = LoadPlan("concurrency", concurrency, 0.0, concurrency, 1.0, 120.0, requests, 60.0)
    drive(endpoint, PATHS["completions"], bodies, plan, folder)
    meta = [RequestMeta(prompt.request_id, None, 0, INPUT_TOKENS, OUTPUT_TOKENS) for prompt in prompts]
    answered = [r for r in decode(folder, meta, None).requests if not r.error_kind]
    cohort = [r for r in answered if r.in_window]
    found: dict[str, Any] = {
        "n": len(cohort),
        "server_ttft_s": [r.server_ttft_s for r in cohort],
        "server_tpot_s": [tpot(r) for r in cohort],
    }
    found |= {"ttft_s": [r.ttft_s for r in cohort], "tpot_s": [r.tpot_s for r in cohort]}
    # The histograms saw the warm-up and the end as well.
    found |= {"all_ttft_s": fmean(r.ttft_s for r in answered if r.ttft_s), "all_tpot_s": fmean(r.tpot_s for r in answered if r.tpot_s)}
    return found


def tpot(request: RequestRecord) -> float | None:
    """The server's: its decode time over the tokens after the first."""
    if request.server_decode_s is None or not request.output_tokens or request.output_tokens < 2:
        return None
    return request.server_decode_s / (request.output_tokens - 1)


def theirs(
    python: str, endpoint: Endpoint, concurrency: int, requests: int, seed: int, folder: Path, variables: dict[str, str]
) -> dict[str, Any]:
    command = [
        python, "-c", VLLM_BENCH, "--backend", "openai", "--base-url", endpoint.url.removesuffix("/v1"), "--endpoint", "/v1/completions",
        "--model", endpoint.model, "--tokenizer", environment.TOKENIZER, "--dataset-name", "random",
        "--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(OUTPUT_TOKENS), "--num-prompts", str(requests + concurrency),
        "--max-concurrency", str(concurrency), "--ignore-eos", "--disable-tqdm", "--seed", str(seed), "--temperature", "0",
        "--ready-check-timeout-sec", "0",
        "--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "out.json",
    ]  # fmt: skip
    with subprocess.Popen(command, env=variables, cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "err").open("w")) as process:
        spent = watch(process, 300.0)
    if process.returncode != 0:
        sys.exit(f"vllm bench serve failed: {(folder / 'err').read_text().strip().splitlines()[-1]}")
    out = json.loads((folder / "out.json").read_text())
    ttft = out["ttfts"]
    gaps = [sum(itl) / (tokens - 1) for itl, tokens in zip(out["itls"], out["output_lens"], strict=True) if tokens > 1]
    # The first request of each slot meets an idle server, as ours do in the warm-up.
    kept = slice(concurrency, None)
    cores = busy(spent, out["duration"])
    return {
        "cpu_cores": cores,
        "n": len(ttft) - concurrency,
        "ttft_s": ttft[kept],
        "tpot_s": gaps[kept],
        "all_ttft_s": fmean(ttft),
        "all_tpot_s": fmean(gaps),
    }


def watch(process: subprocess.Popen[bytes], seconds: float) -> list[tuple[float, float]]:
    """(wall s, CPU s of the process so far), five times a second until it ends. Kills it after `seconds`."""
    begun, spent = monotonic(), []
    of = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            spent.append((monotonic(), sum(of.cpu_times()[:2])))
        if monotonic() - begun > seconds:
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return spent


def busy(spent: Sequence[tuple[float, float]], seconds: float) -> float:
    """CPU cores a client took while it measured: over the last `seconds` it lived, less two at each end for its start and its summary."""
    last = spent[-1][0] - 2
    inside = [(at, cpu) for at, cpu in spent if last - (seconds - 4) <= at <= last]
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def _each(before: counters.Scrape, after: counters.Scrape, name: str) -> float | None:
    """Growth of a counter per request."""
    total, count = counters.grown(before, after, name), counters.grown(before, after, f"{counters.TTFT}_count")
    return total / count if total is not None and count else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians over the runs of each tool, with the least and the largest run, ms."""
    lines = [
        "| concurrency | figure, ms | ours | server, same requests | `vllm bench serve` | server, same requests |",
        "|---|---|---|---|---|---|",
    ]
    for concurrency in sorted({row["concurrency"] for row in rows}):
        mine = [row for row in rows if row["concurrency"] == concurrency and row["tool"] == "ours"]
        other = [row for row in rows if row["concurrency"] == concurrency and row["tool"] != "ours"]
        for name in ("ttft", "tpot"):
            own = [of(mine, f"{name}_s"), of(mine, f"server_{name}_s"), of(other, f"{name}_s"), "-"]
            lines.append(f"| {concurrency} | {name.upper()}, median of requests | {' | '.join(own)} |")
            means = [
                of(mine, f"all_{name}_s"),
                of(mine, f"histogram_{name}_s"),
                of(other, f"all_{name}_s"),
                of(other, f"histogram_{name}_s"),
            ]
            lines.append(f"| {concurrency} | {name.upper()}, mean, by histogram | {' | '.join(means)} |")
        apart = [median(a - b for a, b in zip(row["ttft_s"], row["server_ttft_s"], strict=True)) for row in mine]
        apart_tpot = [median(a - b for a, b in zip(row["tpot_s"], row["server_tpot_s"], strict=True)) for row in mine]
        lines.append(f"| {concurrency} | TTFT, ours - server's, median of requests | {ms(apart)} | | | |")
        lines.append(f"| {concurrency} | TPOT, the same | {ms(apart_tpot)} | | | |")
    runs = {tool: sum(row["tool"] == tool for row in rows) for tool in sorted({row["tool"] for row in rows})}
    return "\n".join(lines) + f"\n\nRuns: {runs}, requests per run: {sorted({row['n'] for row in rows})}.\n"


def of(rows: Sequence[dict[str, Any]], key: str) -> str:
    return ms([median(row[key]) if isinstance(row[key], list) else row[key] for row in rows])


def ms(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{median(values) * 1e3:.2f} ({min(values) * 1e3:.2f}–{max(values) * 1e3:.2f})"


if __name__ == "__main__":
    main()

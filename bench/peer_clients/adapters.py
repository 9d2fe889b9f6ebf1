"""How each client is run against an endpoint with a fixed number of streams, and how its own per-request figures are read.

Every client gets the same work: chat completions, a prompt of 16 tokens, 128 output tokens, streaming, `streams` at once,
`rounds` requests per stream. What it says of a request is kept with what pairs it to the server's record: the server's own request
number (it is in the response id) or the X-Request-Id the client sent.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer_clients.environment import PEERS, TOKENIZER, python_of

INPUT_TOKENS, OUTPUT_TOKENS = 16, 128
MODEL = "paced"  # as the server calls it
FIELDS: dict[str, bool] = {}  # of inference-perf's requests: which fields it writes; all by default


@dataclass(frozen=True)
class Reported:
    """One request as the client reports it. Exactly one of `index`, `request_id`, `body` says which; a gap is per token, s."""

    ttft_s: float | None
    gap_s: float | None
    index: int | None = None
    request_id: str | None = None
    body: str | None = None  # FNV-1a of the request body


@dataclass(frozen=True)
class Client:
    name: str  # as shown
    command: Callable[[str, int, int, Path], list[str]]  # URL without path, streams, requests, folder
    read: Callable[[Path], list[Reported]]


def _guidellm(url: str, streams: int, requests: int, folder: Path) -> list[str]:
    return [
        str(python_of(PEERS["guidellm"]).parent / "guidellm"), "run", "--disable-console",
        "--backend", f"kind=openai_http,target={url},model={MODEL},request_format=/v1/chat/completions",
        "--profile", f"kind=concurrent,streams={streams}",
        "--constraint", f"kind=max_requests,count={requests}",
        "--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}",
        "--data", f"kind=synthetic_text,prompt_tokens={INPUT_TOKENS},output_tokens={OUTPUT_TOKENS}",
        "--output", f"kind=json,path={folder / 'out.json'}",
    ]  # fmt: skip


def _read_guidellm(folder: Path) -> list[Reported]:
    (benchmark,) = json.loads((folder / "out.json").read_text())["benchmarks"]
    return [
        Reported(_seconds(r["time_to_first_token_ms"]), _seconds(r["inter_token_latency_ms"]), index=_index(r["response_id"]))
        for r in benchmark["requests"]["successful"]
    ]


def _aiperf(url: str, streams: int, requests: int, folder: Path) -> list[str]:
    return [
        str(python_of(PEERS["aiperf"]).parent / "aiperf"), "profile", "-m", MODEL, "--tokenizer", TOKENIZER, "--url", url,
        "--endpoint-type", "chat", "--streaming", "--concurrency", str(streams), "--request-count", str(requests),
        "--prompt-input-tokens-mean", str(INPUT_TOKENS), "--prompt-output-tokens-mean", str(OUTPUT_TOKENS),
        "--prompt-output-tokens-stddev", "0", "--extra-inputs", "ignore_eos:true", "--random-seed", "1",
        "--artifact-dir", str(folder), "--ui", "none", "--no-gpu-telemetry",
    ]  # fmt: skip


def _read_aiperf(folder: Path) -> list[Reported]:
    rows = [json.loads(line) for line in (folder / "profile_export.jsonl").read_text().splitlines()]

    def metric(row: dict[str, Any], name: str) -> float | None:
        return _seconds(row["metrics"].get(name, {}).get("value"))

    return [
        Reported(metric(row, "time_to_first_token"), metric(row, "inter_token_latency"), request_id=row["metadata"]["x_request_id"])
        for row in rows
        if row["metadata"]["benchmark_phase"] == "profiling"
    ]


def _inference_perf(url: str, streams: int, requests: int, folder: Path) -> list[str]:
    def fixed(value: int) -> dict[str, int]:
        return {"min": value, "max": value, "mean": value, "std_dev": 0, "total_count": requests}

    config = {
        "load": {
            "type": "concurrent",
            "stages": [{"num_requests": requests, "concurrency_level": streams}],
            "num_workers": 2,
            "worker_max_concurrency": max(100, streams),
        },
        # Its random data generator serves completions only.
        "api": {"type": "completion", "streaming": True},
        "server": {"type": "vllm", "model_name": MODEL, "base_url": url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": TOKENIZER},
        "data": {"type": "random", "input_distribution": fixed(INPUT_TOKENS), "output_distribution": fixed(OUTPUT_TOKENS)},
        "report": {"request_lifecycle": {"summary": True, "per_stage": False, "per_request": True, "per_request_fields": FIELDS}},
        "storage": {"local_storage": {"path": str(folder / "out")}},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return [str(python_of(PEERS["inference-perf"]).parent / "inference-perf"), "--config_file", str(folder / "config.yaml")]


def _read_inference_perf(folder: Path) -> list[Reported]:
    rows = json.loads((folder / "out" / "per_request_lifecycle_metrics.json").read_text())
    found = []
    for row in rows:
        times = (row["info"].get("response_metrics") or {}).get("output_token_times") or []
        match = re.search(r'"id":"(cmpl-\d+)"', row["response"] or "")
        if match and times:
            gap = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
            found.append(Reported(times[0] - row["start_time"], gap, index=_index(match.group(1))))
    return found


# Not by `vllm bench serve`: the build for CPUs is not called `vllm`, and its command line asks for that one's version. To answer in its
# place makes vLLM take the machine for an unknown one and load kernels for AVX-512, which other CPUs end with "illegal instruction".
VLLM_BENCH = """
import argparse
from vllm.benchmarks import serve
parser = argparse.ArgumentParser()
serve.add_cli_args(parser)
serve.main(parser.parse_args())
"""


def _vllm(url: str, streams: int, requests: int, folder: Path) -> list[str]:
    return [
        str(python_of(PEERS["vllm"])), "-c", VLLM_BENCH, "--backend", "openai-chat", "--base-url", url,
        "--endpoint", "/v1/chat/completions", "--model", MODEL, "--tokenizer", TOKENIZER, "--dataset-name", "random",
        "--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(OUTPUT_TOKENS), "--num-prompts", str(requests),
        "--max-concurrency", str(streams), "--ignore-eos", "--request-id-prefix", "peer-", "--disable-tqdm", "--seed", "1",
        "--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "out.json",
    ]  # fmt: skip


def _read_vllm(folder: Path) -> list[Reported]:
    out = json.loads((folder / "out.json").read_text())
    return [
        Reported(ttft, sum(gaps) / len(gaps) if gaps else None, request_id=f"peer-{i}")
        for i, (ttft, gaps, error) in enumerate(zip(out["ttfts"], out["itls"], out["errors"], strict=True))
        if not error
    ]


def _ours(url: str, streams: int, requests: int, folder: Path) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("ours.py")), url, str(streams), str(requests), str(folder)]


def _read_ours(folder: Path) -> list[Reported]:
    return [Reported(r["ttft_s"], r["gap_s"], body=r["body"]) for r in json.loads((folder / "out.json").read_text())]


def _seconds(milliseconds: float | None) -> float | None:
    return milliseconds / 1e3 if milliseconds is not None else None


def _index(response_id: str | None) -> int | None:
    return int(response_id.rpartition("-")[2]) if response_id else None


CLIENTS = {
    "ours": Client("this project", _ours, _read_ours),
    "aiperf": Client("AIPerf 0.13.0", _aiperf, _read_aiperf),
    "guidellm": Client("GuideLLM 0.8.1", _guidellm, _read_guidellm),
    "vllm": Client("vLLM bench serve 0.32.0", _vllm, _read_vllm),
    "inference-perf": Client("inference-perf 0.7.0 (completions)", _inference_perf, _read_inference_perf),
}

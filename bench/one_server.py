"""Every load generator against ONE server, one after another at the same load, and all of their files in one results folder.

    .venv/bin/python bench/one_server.py [--clients ours,guidellm,aiperf,vllm,inference-perf] [--users 4] [--requests 40]
                                         [--input-tokens 16] [--output-tokens 32] [--backend NAME | --url URL --model NAME] [--keep FOLDER] [--results FOLDER]

Without --backend and --url the server is the paced one: first token and gaps drawn from seeded lognormal distributions, and what it really sent is
written down, so that the truth of each client's own requests stands beside its figures. With --role-first it sends the role-only chunk
of a chat at once, as several servers do. Peers are set up as in bench/peers.py ($SLM_PROFILER_PEERS). --keep takes the tools' own files.
Prints the Markdown of `profile results tools` and, for the paced server, each client's requests by the server's own record.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peer_clients import adapters, compare, environment

from profiler.engines import registry
from profiler.engines.paced import record
from profiler.engines.protocol import RunningEngine
from profiler.spec import BackendSpec

PACE = {"ttft_ms": 60, "itl_ms": 10, "distribution": "lognormal", "ttft_cv": 0.3, "itl_cv": 0.2, "seed": 7}
FILES = {  # what each tool leaves behind that is worth keeping
    "guidellm": ("out.json",),
    "aiperf": ("profile_export.jsonl", "profile_export_aiperf.json"),
    "vllm": ("out.json",),
    "inference-perf": (
        "out/per_request_lifecycle_metrics.json",
        "out/summary_lifecycle_metrics.json",
        "out/config.yaml",
        "out/inference-perf.partial.stage_0.yaml",
    ),
}
PROFILE = [sys.executable, "-m", "profiler"]


@dataclass(frozen=True)
class Truth:
    """Requests of one client by the server's record, s."""

    n: int
    ttft_p50_s: float
    tpot_mean_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="ours,guidellm,aiperf,vllm,inference-perf")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--input-tokens", type=int, default=16)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--tokenizer", default="smollm2-135m-instruct", help="whose tokenizer everybody loads")
    parser.add_argument("--role-first", action="store_true", help="the paced server sends a chat's role-only chunk at once")
    parser.add_argument("--backend", help="a backend that is started here, such as openvino-xeon-int8, with --tokenizer's model")
    parser.add_argument("--url", help="an OpenAI-compatible server that runs already, without /v1")
    parser.add_argument("--model", default="paced", help="what --url serves")
    parser.add_argument("--keep", type=Path, help="copy the tools' files here")
    parser.add_argument("--results", type=Path, default=Path("one-server"))
    options = parser.parse_args()
    adapters.INPUT_TOKENS, adapters.OUTPUT_TOKENS, adapters.MODEL = options.input_tokens, options.output_tokens, options.model
    adapters.FIELDS = {"response": False, "response_chunks": False}  # small files
    tokenizer = environment.tokenizer_folder(options.tokenizer)
    variables = environment.variables(tokenizer)
    spans: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-one-server-") as name:
        work = Path(name)
        with serving(options, work) as url:
            for client in options.clients.split(","):
                print(f"{client}: {options.users} users, {options.requests} requests", file=sys.stderr)
                began = time.monotonic_ns()
                failure = one(client, url, options, work / client, tokenizer, variables)
                spans[client] = (began, time.monotonic_ns())
                if failure:
                    print(f"{client}: {failure}", file=sys.stderr)
                keep(client, work / client, options.keep)
                bring(client, work / client, options)
        print(
            subprocess.run(
                [*PROFILE, "results", "tools", "--markdown", "--results", str(options.results)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
        )
        if (work / "sent.jsonl").exists():
            print(truths(work / "sent.jsonl", spans, options.output_tokens))


@contextlib.contextmanager
def serving(options: argparse.Namespace, work: Path) -> Iterator[str]:
    if options.url:
        yield options.url
        return
    if options.backend:
        with started(options, work) as running:
            options.model = adapters.MODEL = running.endpoint.model
            yield f"http://{running.endpoint.host}:{running.endpoint.port}"
        return
    settings = {**PACE, "record": str(work / "sent.jsonl"), **({"role_first": True} if options.role_first else {})}
    spec = BackendSpec(name="paced", summary="one server", engine="paced", device="cpu", precision="none", options=settings)
    engine = registry.get("paced")

    def quiet(line: str) -> None:
        pass

    with engine.start(engine.prepare(None, spec, quiet), spec, work / "engine.log", quiet) as running:
        yield f"http://{running.endpoint.host}:{running.endpoint.port}"


@contextlib.contextmanager
def started(options: argparse.Namespace, work: Path) -> Iterator[RunningEngine]:
    from profiler import catalog, environments
    from profiler.models import resolve

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    spec = catalog.backend(options.backend)
    engine = registry.get(spec.engine)
    export = environments.ENVIRONMENTS["openvino-export"]
    model = resolve(options.tokenizer, say, convert_python=lambda: environments.ensure(export, say).python)
    with engine.start(engine.prepare(model, spec, say), spec, work / "engine.log", say) as running:
        yield running


def one(client: str, url: str, options: argparse.Namespace, folder: Path, tokenizer: Path, variables: dict[str, str]) -> str | None:
    """Why it failed, or None."""
    folder.mkdir()
    if client == "ours":
        command = [
            *PROFILE, "sweep", "--url", f"{url}/v1", "--model", options.model, "--tokenizer", str(tokenizer), "--endpoint", "chat",
            "--isl", str(options.input_tokens), "--osl", str(options.output_tokens), "--concurrency", str(options.users),
            "--requests", str(options.requests), "--results", str(options.results.resolve()),
        ]  # fmt: skip
        return compare.run(command, variables, folder)
    if reason := environment.install(environment.PEERS[client]):
        return reason
    with contextlib.chdir(folder):  # the tools' files then name no folder of this machine
        command = adapters.CLIENTS[client].command(url, options.users, options.requests, Path())
    return compare.run(command, variables, folder)


def keep(client: str, folder: Path, target: Path | None) -> None:
    for name in FILES.get(client, ()):
        if not (folder / name).exists():
            print(f"{client}: it wrote no {name}", file=sys.stderr)
        elif target is not None:
            (target / client).mkdir(parents=True, exist_ok=True)
            text = (folder / name).read_text(encoding="utf-8").replace(str(folder), ".")  # AIPerf writes where it wrote
            (target / client / Path(name).name).write_text(text, encoding="utf-8")


def bring(client: str, folder: Path, options: argparse.Namespace) -> None:
    """Import what the tool wrote: one of its files, the others are found beside it."""
    if client != "ours" and (folder / FILES[client][0]).exists():
        command = [*PROFILE, "results", "import", str(folder / FILES[client][0]), "--results", str(options.results)]
        subprocess.run([*command, "--declare", f"model={options.model}"], check=True, stdout=sys.stderr)


def truths(sent_file: Path, spans: dict[str, tuple[int, int]], output_tokens: int) -> str:
    """Markdown: what the server really gave to each client's requests, warm-up of our own included."""
    sent = [s for s in record.read(sent_file) if s.stream_index is not None and s.asked_tokens == output_tokens and s.chunks]
    lines = ["| server's record | n | TTFT p50 ms | TPOT mean ms |", "|---|---|---|---|"]
    for client, (began, ended) in spans.items():
        own = [s for s in sent if began <= s.received_ns < ended]
        if own:
            found = truth(own)
            lines.append(f"| {client} | {found.n} | {found.ttft_p50_s * 1e3:.2f} | {found.tpot_mean_s * 1e3:.3f} |")
    return "\n".join(lines)


def truth(sent: list[record.SentRequest]) -> Truth:
    ttfts = sorted((s.chunks[0].before_ns - s.received_ns) / 1e9 for s in sent)
    tpots = [
        (s.chunks[-1].before_ns - s.chunks[0].before_ns) / 1e9 / (s.tokens - s.chunks[0].tokens)
        for s in sent
        if s.tokens > s.chunks[0].tokens
    ]
    return Truth(len(sent), ttfts[(len(ttfts) - 1) // 2], statistics.fmean(tpots))


if __name__ == "__main__":
    main()

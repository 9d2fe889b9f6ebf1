"""Streaming clients of other projects and ours against one paced server that writes down when it really sent each token.

    .venv/bin/python bench/peers.py [--clients ours,aiperf,guidellm,vllm,inference-perf] [--streams 5,64,256,1000] [--repeats 1]
                                    [--rounds 6] [--model NAME] [--results FILE] [--table-only]

Sets each peer up in its own environment ($SLM_PROFILER_PEERS, else the cache), from the package index, then runs them interleaved, all
on this machine with nothing pinned: chat completions, 16 tokens in, 128 out, first token after 50 ms, one every 10 ms, `--rounds`
requests per stream, closed loop. Two faults are kept apart: *reporting* (the server was prompt, the client says it was not; per request,
client's TTFT − server's TTFT) and *disturbing* (the client takes CPU and load away, so the server idles or is late itself). CPU is of the
client's whole process tree, start-up included. Each run is appended to --results, so a bench can be continued.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from peer_clients import compare, environment
from peer_clients.adapters import CLIENTS, Client

from profiler.engines import registry
from profiler.engines.paced import record
from profiler.run import oracle
from profiler.spec import BackendSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--streams", default="5,64,256,1000")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--results", type=Path, default=Path("peers.jsonl"))
    parser.add_argument("--model", default="smollm2-135m-instruct", help="whose tokenizer the peers load")
    parser.add_argument("--table-only", action="store_true", help="print the table of --results and measure nothing")
    options = parser.parse_args()
    if not options.table_only:
        measure(options)
    rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    print(compare.table(rows))


def measure(options: argparse.Namespace) -> None:
    variables = environment.variables(environment.tokenizer_folder(options.model))
    unusable = {}
    names = options.clients.split(",")
    for name in names:
        if name in environment.PEERS and (reason := environment.install(environment.PEERS[name])):
            unusable[name] = reason
    for repeat in range(options.repeats):
        for streams in map(int, options.streams.split(",")):
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                client = CLIENTS[name]
                print(f"{repeat + 1}/{options.repeats} {client.name}, {streams} streams", file=sys.stderr)
                row: dict[str, Any] = {"client": client.name, "streams": streams, "failure": unusable.get(name)}
                if not row["failure"]:
                    row = one_run(client, streams, options.rounds * streams, variables)
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def one_run(client: Client, streams: int, requests: int, variables: dict[str, str]) -> dict[str, Any]:
    pace = oracle.Pace()
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as name:
        folder, sent_file = Path(name), Path(name) / "sent.jsonl"
        settings = {"ttft_ms": pace.ttft_s * 1e3, "itl_ms": pace.itl_s * 1e3, "record": str(sent_file)}
        spec = BackendSpec(name="paced", summary="peers", engine="paced", device="cpu", precision="none", options=settings)
        engine = registry.get("paced")
        cpu_s = 0.0

        def quiet(line: str) -> None:
            pass

        with engine.start(engine.prepare(None, spec, quiet), spec, folder / "engine.log", quiet) as running:
            url = f"http://{running.endpoint.host}:{running.endpoint.port}"
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            failure = compare.run(client.command(url, streams, requests, folder), variables, folder)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of children that have ended: the server has not
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if failure:
            return {"client": client.name, "streams": streams, "failure": failure}
        sent = [s for s in record.read(sent_file) if s.stream_index is not None and s.asked_tokens == pace.output_tokens]
        if not any(s.chunks for s in sent):
            return {"client": client.name, "streams": streams, "failure": "it sent no request"}
        return compare.figures(client, streams, sent, client.read(folder), cpu_s)


if __name__ == "__main__":
    main()

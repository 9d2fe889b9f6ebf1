"""What decoding and storing a run costs, after its window: seconds for a million streamed tokens, and as a multiple of bare json.loads.

    python bench/decode.py [--tokens 1000000] [--streams 64]

The spool is what a client of our own servers leaves: one token a read, completions chunks with token ids and running usage, streams
interleaved. The ratio is to `json.loads` of the same chunks in the same process, so that it travels between machines.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from profiler.run import spool
from profiler.run.decode import RequestMeta, decode
from profiler.store.writer import write_requests

PER_REQUEST = 128
TOKEN_NS = 10_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(request: int, token: int, last: bool) -> bytes:
    reason = '"length"' if last else "null"
    used = token + 1
    return (
        f'data: {{"id":"cmpl-{request:08x}","object":"text_completion","created":1700000000,"model":"smollm2-135m-instruct",'
        f'"choices":[{{"index":0,"text":" word","logprobs":null,"finish_reason":{reason},"token_ids":[{1000 + token}]}}],'
        f'"usage":{{"prompt_tokens":128,"completion_tokens":{used},"total_tokens":{128 + used}}}}}\n\n'
    ).encode()


def reads(request: int) -> list[bytes]:
    """The answer to one request, as the reads that bring it."""
    events = [chunk(event(request, token, token == PER_REQUEST - 1)) for token in range(PER_REQUEST)]
    events[0] = HEAD + events[0]
    events[-1] += chunk(b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":128,"completion_tokens":128,"total_tokens":256}}\n\n')
    events[-1] += chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return events


def write_spool(path: Path, requests: int, streams: int) -> tuple[int, int]:
    """Streams side by side, each request after the last one of its stream. Returns first and last time in it, ns."""
    writer = spool.Writer(path)
    offset, now = 1_700_000_000_000_000_000, 10**9
    writer.add(spool.CLOCK, 0, offset, now)
    for first in range(0, requests, streams):
        group = range(first, min(first + streams, requests))
        for seq in group:
            writer.add(spool.SENT, seq, now, now + 20_000, spool.SENT_PAYLOAD.pack(seq, 1))
        answers = {seq: reads(seq) for seq in group}
        for token in range(PER_REQUEST):
            now += TOKEN_NS
            for place, seq in enumerate(group):
                arrived = now + place * 20_000
                writer.add(spool.READ, seq, arrived + offset, arrived + 15_000, answers[seq][token])
        for seq in group:
            writer.add(spool.END, seq, 0, now + streams * 20_000)
        now += TOKEN_NS
    writer.close()
    return 10**9, now + TOKEN_NS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=64)
    given = parser.parse_args()
    requests = given.tokens // PER_REQUEST
    tokens = requests * PER_REQUEST
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start, end = write_spool(folder / spool.NAME, requests, given.streams)
        (folder / "result.json").write_text(json.dumps({"window_open_ns": start, "window_close_ns": end}))
        meta = [RequestMeta(f"r{i}", None, 0, 128, PER_REQUEST) for i in range(requests)]
        documents = [event(1, token, False)[6:] for token in range(PER_REQUEST)]
        before = time.perf_counter()
        for _ in range(requests):
            for document in documents:
                json.loads(document)
        plain_s = time.perf_counter() - before
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = time.perf_counter()
        decoded = decode(folder, meta, None)
        decode_s = time.perf_counter() - before
        before = time.perf_counter()
        write_requests(folder / "requests.parquet", "run", decoded.requests)
        store_s = time.perf_counter() - before
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss
        assert sum(r.output_tokens or 0 for r in decoded.requests) == tokens
        size = (folder / spool.NAME).stat().st_size
        stored = (folder / "requests.parquet").stat().st_size
    print(f"{tokens:,} tokens in {requests:,} requests, spool {size / 2**20:,.0f} MiB, stored {stored / 2**20:.1f} MiB")
    print(
        f"decode {decode_s:.2f} s + store {store_s:.2f} s = {decode_s + store_s:.2f} s, {(decode_s + store_s) / tokens * 1e6:.2f} µs a token"
    )
    print(f"{(decode_s + store_s) / plain_s:.2f} times bare json.loads of the same chunks ({plain_s:.2f} s)")
    print(f"memory grew by {grown / 2**10:,.0f} MiB at the peak")


if __name__ == "__main__":
    main()

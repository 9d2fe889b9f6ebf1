"""This project's client, as a program of its own: bodies, load, decoding, figures per request in out.json.

ours.py URL STREAMS REQUESTS FOLDER
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from profiler.engines.openai import parse_url
from profiler.engines.paced.record import fnv1a
from profiler.records import Endpoint, LoadPlan, Prompt
from profiler.run import oracle
from profiler.run.bodies import PATHS, make_body
from profiler.run.decode import RequestMeta, decode
from profiler.run.drive import drive

INPUT_TOKENS, OUTPUT_TOKENS = 16, 128


def main() -> None:
    url, streams, requests, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    pace = oracle.Pace(output_tokens=OUTPUT_TOKENS)
    tls, host, port, prefix = parse_url(url)
    letters = random.Random(1)
    texts = ["".join(letters.choices("abcdefghij ", k=4 * INPUT_TOKENS)) for _ in range(requests + streams)]
    prompts = [Prompt(f"r{i}", (), OUTPUT_TOKENS) for i in range(len(texts))]
    bodies = [make_body(p, "paced", kind="chat", messages=[{"role": "user", "content": t}]) for p, t in zip(prompts, texts, strict=True)]
    window_s = (requests / streams - 1) * pace.request_s
    plan = LoadPlan("concurrency", streams, 0.0, streams, window_s, window_s, 1, 60.0)
    drive(Endpoint(host, port, "paced", tls, prefix), PATHS["chat"], bodies, plan, folder)
    keys = [fnv1a(body) for body in bodies]
    decoded = decode(folder, [RequestMeta(key, None, 0, INPUT_TOKENS, OUTPUT_TOKENS) for key in keys], None)
    out = [{"body": r.request_id, "ttft_s": r.ttft_s, "gap_s": r.tpot_s} for r in decoded.requests if r.in_window and not r.error_kind]
    (folder / "out.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main()

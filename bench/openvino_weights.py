"""What OpenVINO takes for a model's weights, seen from inside: a script for the environment `openvino`, imports nothing of profiler.

    python openvino_weights.py IR_FOLDER PRECISION

Prints what its large allocations (large_allocations.py) grew by while the model loaded and from then until prompts of 20 and 40 tokens, spread over
the vocabulary, were answered (other batch sizes make OpenVINO pack its weights again), less the KV pool, and the resident bytes of the mapped IR.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from large_allocations import large_bytes, restart_counting


def mapped_bytes(folder: str) -> int:
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M)
    return sum(int(kib) * 1024 for area in areas if folder in area for kib in re.findall(r"^Rss:\s+(\d+) kB", area, flags=re.M))


def main() -> None:
    folder, precision = sys.argv[1], sys.argv[2]
    restart_counting()
    import numpy
    import openvino
    import openvino_genai

    vocabulary = int(json.loads(Path(folder, "config.json").read_text())["vocab_size"])

    def answer(pipeline: Any, tokens: int) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = 8, True
        prompt = openvino.Tensor(numpy.array([[i * vocabulary // tokens for i in range(tokens)]], dtype=numpy.int64))
        handle = pipeline.add_request(tokens, prompt, config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        handle.read()

    before = large_bytes()
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1  # GiB
    properties = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
    pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
    loaded = large_bytes()
    for tokens in (20, 40):
        answer(pipeline, tokens)
    pool = pipeline.get_metrics().cache_size_in_bytes
    print(f"LARGE {loaded - before} {large_bytes() - loaded - pool} {mapped_bytes(folder)}")


if __name__ == "__main__":
    main()

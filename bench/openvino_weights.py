"""What OpenVINO takes for a model's weights, seen from inside: a script for the environment `openvino`, imports nothing of profiler.

    python openvino_weights.py IR_FOLDER PRECISION

glibc maps each allocation above MALLOC_MMAP_THRESHOLD_ by itself and counts the bytes (mallinfo2's hblkhd): weights and the copies that kernels
make of them are such allocations, the graph's small objects are not. Prints what these grew by while the model loaded and from then until
prompts of 20 and 40 tokens, spread over the vocabulary, were answered (other batch sizes make OpenVINO pack its weights again), less the KV pool, and the resident bytes
of the mapped IR. Starts itself again with the threshold set, as glibc reads it only at the start.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

THRESHOLD = "16384"  # bytes
FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")  # of struct mallinfo2


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def large_bytes() -> int:
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = Mallinfo2
    return int(libc.mallinfo2().hblkhd)


def mapped_bytes(folder: str) -> int:
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M)
    return sum(int(kib) * 1024 for area in areas if folder in area for kib in re.findall(r"^Rss:\s+(\d+) kB", area, flags=re.M))


def main() -> None:
    folder, precision = sys.argv[1], sys.argv[2]
    if os.environ.get("MALLOC_MMAP_THRESHOLD_") != THRESHOLD:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": THRESHOLD})
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

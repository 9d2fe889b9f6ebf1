"""Work beside a calibration, as an engine on the same machine would be: `python -m profiler.run.burner`, one process per thread of it.

Alternates matrix products that stay in the cache with passes over memory that do not, a few milliseconds each. Ends when its standard
input does.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MATRIX = 256  # 512 KiB of float64: stays in a core's second level cache
MEMORY_BYTES = 64 << 20  # larger than what a core can keep of any cache


@contextmanager
def burning(threads: int) -> Iterator[None]:
    """Keep `threads` cores busy meanwhile."""
    one_thread = {**os.environ, **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    command = [sys.executable, "-I", "-m", "profiler.run.burner"]
    burners: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(threads):
            burners.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=one_thread))
        for burner in burners:
            assert burner.stdout is not None
            burner.stdout.readline()  # it burns now
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
            for pipe in (burner.stdin, burner.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def main() -> None:
    import numpy as np

    product = np.full((MATRIX, MATRIX), 1.0 / MATRIX)
    memory = np.ones(MEMORY_BYTES // 8)
    print("burning", flush=True)  # noqa: T201 - read by `burning`
    while not select.select([0], [], [], 0)[0]:
        for _ in range(4):
            product = product @ product
        for start in range(0, len(memory), len(memory) // 8):
            memory[start : start + len(memory) // 8] += 1.0


if __name__ == "__main__":
    main()

"""A user's own scorer: `score(example: dict, answer: str)` of a Python file, in a process of its own with limits of time and memory.

The limits keep an evaluation alive; they are no wall against malice. The file runs as the user, who named it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.quality.scorers import Score
    from profiler.quality.tasks import Example

TIME_S = 10.0
MEMORY_BYTES = 1 << 30
_ONE_AT_A_TIME = threading.Lock()  # examples may be asked in parallel; the limit of time is of a scorer that has the machine
MAX_OUTPUT_BYTES = 1 << 20  # of what it prints; more ends it

# In the child: limits first, then the user's file. The result goes to a descriptor of its own, so that prints do no harm.
_CHILD = """
import json, os, resource, runpy, sys
out, seconds, memory, size, file = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
question = json.load(sys.stdin)
sys.path.insert(0, os.path.dirname(file))
score = runpy.run_path(file)["score"](question["example"], question["answer"])
if isinstance(score, (int, float)) and 0 <= score <= 1:
    os.write(out, json.dumps(float(score)).encode())
else:
    sys.exit(f"score() must give True, False or a number from 0 to 1, not {score!r}"[:500])
"""


def run(example: Example, answer: str, time_s: float = TIME_S, memory_bytes: int = MEMORY_BYTES) -> Score:
    """Passes with True or 1; anything that goes wrong fails the example, with the reason."""
    from profiler.quality.scorers import Score

    told: dict[str, Any] = {"id": example.id, "prompt": example.prompt, "expected": example.expected}
    question = json.dumps({"example": told, "answer": answer})
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as result, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile("w+") as asked:
        asked.write(question)
        asked.seek(0)
        limits = [str(result.fileno()), str(int(time_s) + 1), str(memory_bytes), str(MAX_OUTPUT_BYTES), str(example.file)]
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *limits],
            stdin=asked,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(result.fileno(),),
            start_new_session=True,
        )
        try:
            code = child.wait(time_s)
        except subprocess.TimeoutExpired:
            return Score(False, f"the scorer took longer than {time_s:g} s", flaw=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # and what it may have started
            child.wait()
        if code != 0:
            errors.seek(0)
            lines = errors.read(MAX_OUTPUT_BYTES).decode(errors="replace").strip().splitlines()
            return Score(False, f"the scorer failed: {lines[-1] if lines else f'exit code {code}'}", flaw=True)
        result.seek(0)
        raw = result.read(64)
    if not raw:
        return Score(False, "the scorer ended without a result", flaw=True)
    value = float(json.loads(raw))
    return Score(value == 1.0, None if value == 1.0 else f"scored {value:g}")

"""A user's own scorer: `score(example: dict, answer: str)` of a Python file, in processes of its own with limits of time and memory.

The limits keep an evaluation alive; they are no wall against malice. The file runs as the user, who named it. It may start programs;
when it ends, whatever it left running is killed, and so it is when the profiler dies (see engines/guardian.py).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from profiler.engines import guardian
from profiler.engines.guarded import Guarded

if TYPE_CHECKING:
    from profiler.quality.scorers import Score
    from profiler.quality.tasks import Example

TIME_S = 10.0
MEMORY_BYTES = 1 << 30
_ONE_AT_A_TIME = threading.Lock()  # examples may be asked in parallel; the limits are of a scorer that has the machine
MAX_OUTPUT_BYTES = 1 << 20  # of a file that it writes, and of what it prints; more ends it
MAX_PROCESSES = 32
MAX_THREADS = 256  # more than the machine has already; the kernel holds nobody to it who is root
LOOK_S = 0.05  # how often the memory of all of them is summed up

# In the child: limits first, then the user's file. The result goes to a file of its own, so that prints do no harm.
_CHILD = """
import json, os, resource, runpy, sys
folder, seconds, memory, size, threads, file = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
for what, soft, hard in ((resource.RLIMIT_AS, memory, memory), (resource.RLIMIT_CPU, seconds, seconds + 1),
                         (resource.RLIMIT_FSIZE, size, size), (resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_NPROC, threads, threads)):
    try:
        resource.setrlimit(what, (soft, hard))
    except ValueError:  # there is a lower one
        pass
with open(folder + "/question.json", encoding="utf-8") as asked:
    question = json.load(asked)
sys.path.insert(0, os.path.dirname(file))
score = runpy.run_path(file)["score"](question["example"], question["answer"])
if isinstance(score, (int, float)) and 0 <= score <= 1:
    with open(folder + "/result.json", "w", encoding="utf-8") as result:
        json.dump(float(score), result)
else:
    sys.exit(f"score() must give True, False or a number from 0 to 1, not {score!r}"[:500])
"""


def run(example: Example, answer: str, time_s: float = TIME_S, memory_bytes: int = MEMORY_BYTES) -> Score:
    """Passes with True or 1; anything that goes wrong fails the example, with the reason."""
    from profiler.quality.scorers import Score

    told: dict[str, Any] = {"id": example.id, "prompt": example.prompt, "expected": example.expected}
    with (
        _ONE_AT_A_TIME,
        tempfile.TemporaryDirectory(prefix="slm-profiler-", ignore_cleanup_errors=True) as name,
        tempfile.TemporaryFile() as errors,
    ):
        folder = Path(name)
        (folder / "question.json").write_text(json.dumps({"example": told, "answer": answer}), encoding="utf-8")
        limits = [int(time_s) + 1, memory_bytes, MAX_OUTPUT_BYTES, _threads() + MAX_THREADS]
        command = [sys.executable, "-c", _CHILD, name, *map(str, limits), str(example.file)]
        child = Guarded(command, errors, token=uuid.uuid4().hex)
        try:
            why = _watch(child, time_s, memory_bytes)
        finally:
            child.stop(grace_s=0.0)
        if why is not None:
            return Score(False, why, flaw=True)
        if child.process.returncode != 0:
            return Score(False, f"the scorer failed: {_last_line(errors) or f'exit code {child.process.returncode}'}", flaw=True)
        try:
            value = float(json.loads((folder / "result.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Score(False, "the scorer ended without a result", flaw=True)
    return Score(value == 1.0, None if value == 1.0 else f"scored {value:g}")


def _watch(child: Guarded, time_s: float, memory_bytes: int) -> str | None:
    """Returns when it has ended (None), or why it has to be; what it left running is a reason."""
    deadline = time.monotonic() + time_s
    while child.alive():
        left = deadline - time.monotonic()
        if left <= 0:
            return f"the scorer took longer than {time_s:g} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(min(left, LOOK_S))
            break
        members = guardian.members(child.token, child.pid)
        if len(members) > MAX_PROCESSES:
            return f"the scorer started more than {MAX_PROCESSES} processes"
        if sum(map(_resident_bytes, members)) > memory_bytes:
            return f"the scorer's processes took more than {memory_bytes >> 20} MiB"
    left_over = guardian.members(child.token, child.pid)
    return f"the scorer left {len(left_over)} process{'es' * (len(left_over) > 1)} running" if left_over else None


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # ended meanwhile
        return 0


def _threads() -> int:
    """Of the whole machine, no fewer than this user's: what RLIMIT_NPROC counts."""
    try:
        return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[2])
    except (OSError, ValueError, LookupError):
        return len(psutil.pids()) * 8


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read(MAX_OUTPUT_BYTES).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""

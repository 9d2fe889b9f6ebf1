"""Ends an engine when the profiler is gone, however it went: `kill -9` included.

Run as a script in a process and session of its own (a Ctrl-C for the terminal's group does not reach it):

    guardian.py TOKEN < read end of a pipe

Only the profiler holds the write end. It writes the engine's pid as a line, and `done` when it has stopped the engine itself. The end
of the pipe without `done` means that the profiler died: everything of the engine is terminated, then killed.

What belongs to the engine: its process group and session, and every process with SLM_PROFILER_TOKEN=TOKEN in its environment. The
token also covers a profiler that died between starting the engine and writing the pid, and children that left the session; programs that
write a title over their environment (vLLM's EngineCore and workers) are found by the session.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

VARIABLE = "SLM_PROFILER_TOKEN"
GRACE_S = 3.0


def members(token: str, leader: int | None) -> set[int]:
    """Living processes of the engine, by session, group or token; never this process. Empty where there is no /proc."""
    mark = f"{VARIABLE}={token}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            state, group, session = stat[0], int(stat[2]), int(stat[3])
            ours = leader in (pid, group, session) or mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if ours and state not in "ZX" and pid != os.getpid():
            found.add(pid)
    return found


def end(token: str, leader: int | None, grace_s: float = GRACE_S) -> None:
    """SIGTERM to all of them, SIGKILL to those still there after `grace_s` and to whatever they started meanwhile."""
    _signal(token, leader, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while members(token, leader):
        if time.monotonic() > deadline:
            _signal(token, leader, signal.SIGKILL)
        if time.monotonic() > deadline + 30:  # uninterruptible sleep in a driver; nobody can do more
            return
        time.sleep(0.02)


def _signal(token: str, leader: int | None, number: signal.Signals) -> None:
    if leader is not None and not Path("/proc/self").exists():
        with contextlib.suppress(OSError):
            os.killpg(leader, number)
    for pid in members(token, leader):
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def main() -> None:
    token = sys.argv[1]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leader = None
    for line in sys.stdin:
        if line.strip() == "done":
            return
        leader = int(line)
    end(token, leader)


if __name__ == "__main__":
    main()

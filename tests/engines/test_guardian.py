"""Nothing of an engine outlives the profiler, however it goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from wire_client import until

from profiler.engines.guarded import Guarded

# An engine with a child in its session, a grandchild in a session of its own, and all of them deaf to SIGTERM.
ENGINE = textwrap.dedent("""
    import os, signal, subprocess, sys, time
    depth, marker = int(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if depth:
        subprocess.Popen([sys.executable, "-c", sys.argv[3], str(depth - 1), marker, sys.argv[3]], start_new_session=depth == 1)
    open(f"{marker}.{os.getpid()}", "w").close()
    time.sleep(600)
""")

PROFILER = textwrap.dedent("""
    import sys, time
    from profiler.engines.guarded import Guarded
    engine, marker = sys.argv[1:]
    guarded = Guarded([sys.executable, "-c", engine, "2", marker, engine], -3, "test" + marker[-8:])
    print("started", flush=True)
    time.sleep(600)
""")


def pids(marker):
    return [int(path.name.rpartition(".")[2]) for path in marker.parent.glob(f"{marker.name}.*")]


def living(marker):
    return [pid for pid in pids(marker) if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def profiler_process(tmp_path):
    marker = tmp_path / "engine"
    process = subprocess.Popen([sys.executable, "-c", PROFILER, ENGINE, str(marker)], stdout=subprocess.PIPE, start_new_session=True)
    until(lambda: len(pids(marker)) == 3, "the engine and its children start")
    yield process, marker
    for pid in living(marker):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()
    process.stdout.close()


def test_kill_9_of_the_profiler_leaves_no_process(profiler_process):
    process, marker = profiler_process
    assert len(living(marker)) == 3
    process.kill()
    process.wait()
    until(lambda: not living(marker), "the guardian ends them all")


def test_the_guardian_survives_a_ctrl_c_to_the_terminals_group(profiler_process):
    process, marker = profiler_process
    os.killpg(process.pid, signal.SIGINT)  # Python's default: KeyboardInterrupt, and the profiler ends without stopping anything
    process.wait()
    until(lambda: not living(marker), "the guardian ends them all")


def test_stop_ends_children_that_ignore_sigterm_and_can_be_repeated(tmp_path):
    marker = tmp_path / "engine"
    guarded = Guarded([sys.executable, "-c", ENGINE, "2", str(marker), ENGINE], subprocess.DEVNULL, "test-stop")
    until(lambda: len(pids(marker)) == 3, "the engine and its children start")
    guarded.stop(grace_s=0.2)
    guarded.stop()
    assert living(marker) == [] and not guarded.alive()


def test_an_engine_does_not_hold_the_guardians_pipe(tmp_path):
    """Else the guardian would wait for the engine's own end."""
    guarded = Guarded([sys.executable, "-c", "import time; time.sleep(600)"], subprocess.DEVNULL, "test-fds")
    try:
        pipe = Path(f"/proc/self/fd/{guarded._pipe}").readlink()
        until(lambda: Path(f"/proc/{guarded.pid}/exe").readlink() == Path("/proc/self/exe").readlink(), "the engine is executed")
        held = [entry.readlink() for entry in Path(f"/proc/{guarded.pid}/fd").iterdir()]
        assert pipe not in held
    finally:
        guarded.stop()


def test_a_forked_child_does_not_hold_it_either():
    guarded = Guarded([sys.executable, "-c", "import time; time.sleep(600)"], subprocess.DEVNULL, "test-fork")
    try:
        child = os.fork()
        if child == 0:
            try:
                os.fstat(guarded._pipe)
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        guarded.stop()

"""What else ran on the machine: against processes that say themselves how much CPU time they took, and made-up /proc and cgroup trees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from profiler import catalog, plan
from profiler.analyse.latency import summarise
from profiler.analyse.validity import certify
from profiler.engines import registry
from profiler.run.cell import measure
from profiler.run.system import Sampler, SystemUse, clock_resolution_s
from profiler.spec import SweepSpec, validate_spec

BURN_S = 0.5
# Burns, says that it did, and waits to be ended; with a child that burns as much. TERM ends both.
BURNER = f"""
import os, sys, time
child = os.fork()
while time.process_time() < {BURN_S}: pass
if child:
    print(os.getpid(), child, flush=True)
    sys.stdin.read()
    os.kill(child, 9)
else:
    os.close(1)
    time.sleep(600)
"""
STAT = "{pid} (a name) S {parent} {group} {group} 0 -1 0 0 0 0 0 {user} {system} {cuser} {csystem} 20 0 1 0 0\n"


def used(use: SystemUse, name: str, open_ns: int, close_ns: int) -> float:
    """CPU time behind a figure in cores, s."""
    value = getattr(use, name)
    assert value is not None, use.reasons
    return float(value * (close_ns - open_ns) / 1e9)


@contextmanager
def burner(detached: bool) -> Iterator[subprocess.Popen[str]]:
    """Started, not yet asked to say that it has burnt. `detached`: no child of ours, as another user's program is not."""
    command = [sys.executable, "-c", BURNER]
    if detached:  # the shell ends at once, and init takes over
        inner = f"{sys.executable} -c '{BURNER}' <&3 & "
        command = ["sh", "-c", f"exec 3<&0; {inner}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def wait_until_burnt(process: subprocess.Popen[str], open_ns: int) -> int:
    """The time at which both of the burner have burnt."""
    assert process.stdout
    pids = process.stdout.readline().split()
    deadline = time.monotonic() + 60
    tick = os.sysconf("SC_CLK_TCK")
    while time.monotonic() < deadline:
        times = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
        if all(sum(map(int, pair)) / tick >= BURN_S - 0.03 for pair in times):
            return time.monotonic_ns()
        time.sleep(0.02)
    raise AssertionError("the burner got no CPU time")


def test_the_engines_processes_and_their_children_are_counted() -> None:
    open_ns = time.monotonic_ns()
    with burner(detached=False) as process, Sampler(process.pid) as sampler:
        wait_until_burnt(process, open_ns)
    close_ns = time.monotonic_ns()
    use = sampler.over(open_ns, close_ns)
    assert used(use, "engine_cpu_cores", open_ns, close_ns) == pytest.approx(2 * BURN_S, abs=0.2)
    assert used(use, "ours_cpu_cores", open_ns, close_ns) < BURN_S  # it is not counted twice
    assert 0 <= use.sampler_cpu_cores < 0.2 and use.samples >= 2 and use.cores == os.cpu_count()


def test_what_is_neither_the_engine_nor_ours_is_other_load() -> None:
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        open_ns = time.monotonic_ns()
        with Sampler(engine.pid) as sampler, burner(detached=True) as process:
            wait_until_burnt(process, open_ns)
        close_ns = time.monotonic_ns()
    finally:
        engine.kill()
        engine.wait()
    use = sampler.over(open_ns, close_ns)
    assert used(use, "other_cpu_cores", open_ns, close_ns) >= 2 * BURN_S - 0.2  # and whatever else runs here
    assert used(use, "engine_cpu_cores", open_ns, close_ns) < 0.05


def test_an_endpoint_that_is_not_ours_cannot_be_told_from_other_load() -> None:
    open_ns = time.monotonic_ns()
    with Sampler(None) as sampler:
        pass
    use = sampler.over(open_ns, time.monotonic_ns())
    assert use.engine_cpu_cores is None and use.other_cpu_cores is None
    assert set(use.reasons) >= {"engine_cpu_cores", "other_cpu_cores"}


def test_a_burner_beside_a_run_makes_it_suspect(tmp_path: Path) -> None:
    spec = {"backends": ["null"], "isl": 8, "osl": 4, "concurrency": [4], "window_min_s": 1.5, "warmup_s": 0.2, "requests": 20}
    (cell,) = plan.make(validate_spec(spec, SweepSpec, "test")).cells
    backend = catalog.backend("null").model_copy(update={"options": {"ttft_ms": 20.0, "itl_ms": 1.0}})
    engine = registry.get("null")
    endless = [
        sys.executable,
        "-c",
        "import sys, threading\nthreading.Thread(target=sys.stdin.read).start()\nwhile threading.active_count() > 1: pass",
    ]
    outer = subprocess.Popen(["sh", "-c", 'exec 3<&0; "$@" <&3 &', "sh", *endless], stdin=subprocess.PIPE)
    try:
        with engine.start(engine.prepare(None, backend, lambda _: None), backend, tmp_path / "log", lambda _: None) as running:
            measured = measure(cell, running.endpoint, None, None, tmp_path, engine_pid=running.pid)
    finally:
        assert outer.stdin
        outer.stdin.close()  # ends the burner
        outer.wait(30)
    quality = certify(measured.requests, measured.drive, summarise(measured.requests, measured.drive), system=measured.system)
    assert quality.validity == "suspect"
    assert "other-load" in [finding.code for finding in quality.findings]
    assert any("stop other programs" in advice for advice in quality.advice)


def proc_tree(root: Path, seconds: float, throttled_s: float, quota: str) -> None:
    """A /proc in which `seconds` have passed: engine 100 with its child 101 and a member of its group 102, us, a stranger 200."""
    tick = os.sysconf("SC_CLK_TCK")
    spent = round(seconds * tick)
    processes = {
        100: (1, 100, 0, spent // 2),  # pid: parent, group, CPU ticks, ticks of children that ended
        101: (100, 101, spent // 2, 0),
        102: (1, 100, spent, 0),
        200: (1, 200, spent, 0),
        os.getpid(): (1, os.getpid(), spent // 10, 0),
    }
    for pid, (parent, group, own, ended) in processes.items():
        (root / str(pid)).mkdir(exist_ok=True)
        text = STAT.format(pid=pid, parent=parent, group=group, user=own, system=0, cuser=ended, csystem=0)
        (root / str(pid) / "stat").write_text(text)
        line = "0::/pods/engine/main" if quota == "v2" else "3:cpu,cpuacct:/pods/engine/main"
        (root / str(pid) / "cgroup").write_text(f"{line}\n9:memory:/else\n")
    busy = round(3.6 * seconds * tick)
    (root / "stat").write_text(f"cpu  {busy} 0 {spent // 2} 99 5 0 0 {spent // 4} 0 0\ncpu0 1 2 3\n")
    # The quota is set on the pod, above the group of the process: where it is set is where it is counted.
    controller = root / "cgroup" if quota == "v2" else root / "cgroup" / "cpu,cpuacct"
    for folder, held in (("pods", 0.0), ("pods/engine", throttled_s), ("pods/engine/main", 0.0)):
        (controller / folder).mkdir(parents=True, exist_ok=True)
        line = f"throttled_usec {round(held * 1e6)}" if quota == "v2" else f"throttled_time {round(held * 1e9)}"
        (controller / folder / "cpu.stat").write_text(f"nr_periods 9\nnr_throttled 3\n{line}\n")


@pytest.mark.parametrize("quota", ["v2", "v1"])
def test_a_made_up_machine(tmp_path: Path, quota: str) -> None:
    proc_tree(tmp_path, 0.0, 1.0, quota)
    with Sampler(100, tmp_path, tmp_path / "cgroup") as sampler:
        begun = time.monotonic_ns()
        proc_tree(tmp_path, 4.0, 1.5, quota)
    ended = time.monotonic_ns()
    use = sampler.over(begun - 10**9, ended + 10**9)  # beyond the samples: all that was seen
    window_s = (ended - begun) / 1e9 + 2
    assert use.engine_cpu_cores == pytest.approx(8.0 / window_s)  # 2 of children that ended, 2 of the child, 4 of the group's member
    assert use.ours_cpu_cores == pytest.approx(0.4 / window_s)
    assert use.other_cpu_cores == pytest.approx((3.6 * 4 + 2 - 8.4) / window_s)
    assert use.steal_cpu_cores == pytest.approx(1.0 / window_s)
    assert use.throttled_s == pytest.approx(0.5)
    assert use.reasons == {}


def test_a_machine_without_proc(tmp_path: Path) -> None:
    with Sampler(100, tmp_path / "nowhere", tmp_path) as sampler:
        pass
    use = sampler.over(0, 10**9)
    assert use.engine_cpu_cores is use.other_cpu_cores is use.throttled_s is None
    assert "cannot be read" in use.reasons["cpu"]


def test_the_clock_of_this_machine() -> None:
    assert 0 < clock_resolution_s() < 0.01

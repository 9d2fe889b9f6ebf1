"""`profile sweep` killed, starved of its client and out of disk, against the null engine: what had ended is in the store.

The oracle reads the client's spool by the table in docs/store.md; a hard link keeps its bytes whatever the store does with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import journals
import psutil
import pytest

Found = TypeVar("Found")
PROFILE = [sys.executable, "-m", "profiler"]
BACKEND = 'summary = "for tests"\nengine = "null"\ndevice = "cpu"\nprecision = "none"\n[options]\nttft_ms = 5.0\nitl_ms = 1.0\n'
SPEC = """
backends = ["{backend}"]
workloads = []
isl = 16
osl = 8
concurrency = [2]
qos = "ttft_p50<=5s"
requests = {requests}
window_min_s = 0.2
window_max_s = 60.0
warmup_s = 0.1
"""


def ended(spool: Path) -> list[int]:
    """Intended times of the requests whose END is whole in the file, in order; the first users of a closed loop share one."""
    data, at = spool.read_bytes(), 0
    intended: dict[int, int] = {}
    found = []
    while at + journals.RECORD.size <= len(data):
        kind, seq, first, _, length = journals.RECORD.unpack_from(data, at)
        at += journals.RECORD.size + length
        if at > len(data):
            break
        if kind == journals.SENT:
            intended[seq] = first
        elif kind == journals.END:
            found.append(intended[seq])
    return sorted(found)


def poll(look: Callable[[], Found], limit_s: float = 90) -> Found:
    deadline = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < deadline, "did not come"
        time.sleep(0.01)
    return found


class Sweep:
    """A sweep in a folder of its own; `spool` is a hard link of its first cell's."""

    def __init__(self, work: Path, results: Path, requests: int) -> None:
        (work / "fast.toml").write_text(BACKEND)
        (work / "spec.toml").write_text(SPEC.format(backend=work / "fast.toml", requests=requests))
        self.work, self.results = work, results
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROFILE, "sweep", "spec.toml", "--results", str(self.results), "--out", str(self.work / "report.html")],
            cwd=self.work,
            env={**os.environ, "SLM_PROFILER_CACHE": str(self.work / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def under_way(self, requests: int = 30) -> Path:
        """Until the client has spooled so many ends; the link to its spool."""
        spool = poll(lambda: next(self.results.glob(".incoming/*/spool.bin"), None))
        link = self.results / "spool.link"
        os.link(spool, link)
        poll(lambda: len(ended(link)) >= requests)
        return link

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def client(self) -> psutil.Process:
        return next(p for p in self.below() if "profiler.run.client" in p.cmdline())

    def verify(self) -> dict[str, Any]:
        done = subprocess.run([*PROFILE, "results", "verify", "--json", "--results", self.results], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text())["run"] for path in sorted(self.results.glob("runs/*/*/run.json"))]

    def kept(self) -> list[int]:
        """Intended times of the answered requests in the store, by plain SQL."""
        with duckdb.connect() as connection:
            rows = connection.execute(
                f"select intended_ns from read_parquet('{self.results}/runs/*/*/requests.parquet') where error_kind is null"
            ).fetchall()
        return sorted(row[0] for row in rows)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    begun: list[Sweep] = []

    def begin(results: Path | None = None, requests: int = 100_000) -> Sweep:
        begun.append(Sweep(tmp_path, results or tmp_path / "results", requests))
        return begun[-1]

    yield begin
    for sweep in begun:
        below = sweep.below() if sweep.process.poll() is None else []
        for process in [*below, sweep.process]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        sweep.process.wait()
        if sweep.process.stderr is not None:
            sweep.process.stderr.close()


def gone(processes: list[psutil.Process]) -> None:
    poll(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes if psutil.pid_exists(p.pid)))


def test_kill_9_of_the_whole_program_loses_no_request_that_had_ended(start: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = start()
    link = sweep.under_way()
    everything = [*sweep.below(), psutil.Process(sweep.process.pid)]
    for process in everything:
        process.send_signal(signal.SIGKILL)
    sweep.process.wait()
    gone(everything)
    told = sweep.verify()
    (recovered,) = told["recovered"]
    assert recovered["finished_requests"] == len(ended(link)) >= 30
    assert sweep.kept() == ended(link)
    (run,) = sweep.runs()
    assert (run["run_id"], run["status"], run["validity"]) == (recovered["run_id"], "interrupted", "invalid")
    assert run["n_requests"] > 0 and run["ttft_p50_s"] >= 0.005 and run["output_tps"] > 0
    assert run["start_id"] and run["engine"] == "null" and run["machine_id"] and run["qos_result"] == "UNDECIDED"
    assert sweep.verify()["recovered"] == [], "once"
    (tmp_path / "spec.toml").write_text(SPEC.format(backend=tmp_path / "fast.toml", requests=20))
    again = sweep._start()
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert sorted(r["status"] for r in sweep.runs()) == ["done", "interrupted"]


def test_nothing_is_taken_from_a_sweep_that_lives(start: Callable[..., Sweep]) -> None:
    """Nor from a load client whose sweep is dead: here it is held up before it can end its journal."""
    sweep = start()
    link = sweep.under_way()
    told = sweep.verify()
    assert (told["measuring"], told["recovered"], told["runs"]) == (1, [], 0)
    client, everything = sweep.client(), sweep.below()
    client.send_signal(signal.SIGSTOP)
    sweep.process.kill()
    sweep.process.wait()
    told = sweep.verify()
    assert (told["measuring"], told["recovered"], told["runs"]) == (1, [], 0)
    client.send_signal(signal.SIGCONT)
    gone(everything)
    assert sweep.verify()["recovered"][0]["finished_requests"] == len(ended(link))
    assert sweep.kept() == ended(link)


def test_when_only_the_client_is_killed_the_cell_fails_and_keeps_its_requests(start: Callable[..., Sweep]) -> None:
    sweep = start()
    link = sweep.under_way()
    sweep.client().kill()
    _, errors = sweep.process.communicate(timeout=60)
    assert sweep.process.returncode == 1 and "the load client failed" in errors
    (run,) = sweep.runs()
    assert (run["status"], run["validity"]) == ("failed", "invalid") and "the load client failed" in run["status_reason"]
    assert sweep.kept() == ended(link) and sweep.verify()["recovered"] == []


def test_ctrl_c_keeps_as_much_as_a_kill(start: Callable[..., Sweep]) -> None:
    sweep = start()
    link = sweep.under_way()
    sweep.process.send_signal(signal.SIGINT)
    sweep.process.wait(60)
    assert sweep.process.returncode == 130
    assert sweep.verify()["recovered"][0]["finished_requests"] == len(ended(link))
    assert sweep.kept() == ended(link)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_up(disk: Path) -> Path:
    """The rest of the disk in one file."""
    path = disk / "somebody-elses"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return path


def test_a_full_disk_stops_the_cell_in_one_line_and_keeps_what_had_ended(start: Callable[..., Sweep], small_disk: Path) -> None:
    sweep = start(small_disk / "results")
    link = sweep.under_way()
    others = fill_up(small_disk)
    _, errors = sweep.process.communicate(timeout=90)
    assert sweep.process.returncode == 1 and "Traceback" not in errors, errors
    line = next(line for line in errors.splitlines() if "No space left" in line or "no space left" in line)
    assert "journal cannot be written" in line or "error" in line
    others.unlink()
    sweep.verify()
    (run,) = sweep.runs()
    assert run["status"] in ("failed", "interrupted") and run["validity"] == "invalid"
    assert sweep.kept() == ended(link) and len(ended(link)) >= 30
    assert sweep.verify()["recovered"] == []


def test_the_last_requests_before_the_disk_was_full_are_in_the_spool(tmp_path: Path, small_disk: Path) -> None:
    """What the writer holds when the disk is full goes into the room that it had reserved."""
    from profiler.run import spool

    writer = spool.Writer(small_disk / "spool.bin")
    fill_up(small_disk)
    records = [(spool.READ, seq, 0, seq, os.urandom(10_000)) for seq in range(60)]
    with pytest.raises(spool.SpoolError, match="journal cannot be written: No space left"):
        for record in records:
            writer.add(*record)
        writer.flush()
    assert list(spool.read(small_disk / "spool.bin")) == records
    assert not (small_disk / spool.RESERVE).exists()


def test_a_file_that_may_not_grow_stops_the_writer_with_its_reason(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from profiler.run import spool
writer = spool.Writer(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for seq in range(100):
        writer.add(spool.READ, seq, 0, seq, b"x" * 72)
        writer.flush()
except spool.SpoolError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "spool.bin")], capture_output=True, text=True, check=True)
    assert "journal cannot be written: File too large" in done.stdout
    from profiler.run import spool

    assert len(list(spool.read(tmp_path / "spool.bin"))) == 10

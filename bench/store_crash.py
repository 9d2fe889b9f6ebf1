"""Is anything lost or half read when programs are killed at random moments? Two sweeps and ten readers on one results folder.

    python bench/store_crash.py --kills 100            # prints one row of the table in docs/store.md
    python bench/store_crash.py --kills 10 --readers 3 # short form, a test

Sweeps measure the null engine in short cells; readers open the folder as `profile results ls` does (which recovers what dead sweeps
left) and check each run they see. `kill -9` goes to a whole sweep, to its parent process alone, to a load client alone, or to a reader.

The oracle shares no code with the product. Every spool is hard-linked as soon as it appears, so that its bytes outlive whatever the
store does with it; at the end each request whose end the client had handed to the kernel must be in the store under its intended time,
and no other. A reader checks each run by its own hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq

BACKEND = """
summary = "paced server for the crash test"
engine = "null"
device = "cpu"
precision = "none"
[options]
ttft_ms = 3.0
itl_ms = 1.0
"""
SPEC = """
backends = ["{backend}"]
workloads = []
isl = 16
osl = 8
concurrency = {users}
rates = [40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
qos = "ttft_p50<=5s, tpot_p50<=1s"
requests = 150
window_min_s = 0.3
window_max_s = 20.0
warmup_s = 0.1
"""
KINDS = ("program", "parent", "client", "reader")
WEIGHTS = (1, 1, 8, 3)
STARTING = (
    0.98  # how often a sweep that has not begun a cell yet is spared: killing it then tells little, and it takes seconds to get there
)
RECORD = struct.Struct("<B3xIqqI")  # kind, seq, two times, length of what follows; docs/store.md
SENT, END, ERROR = 1, 3, 5


def ended(spool: Path) -> Counter[int]:
    """The intended times of the requests that had ended, cancelled ones apart, by the whole records of a spool (users may share one)."""
    data, at = spool.read_bytes(), 0
    intended: dict[int, int] = {}
    found: Counter[int] = Counter()
    while at + RECORD.size <= len(data):
        kind, seq, first, _, length = RECORD.unpack_from(data, at)
        if at + RECORD.size + length > len(data):
            break
        content = data[at + RECORD.size : at + RECORD.size + length]
        at += RECORD.size + length
        if kind == SENT:
            intended[seq] = first
        elif kind == END or (kind == ERROR and not content.startswith(b"cancelled")):
            found[intended[seq]] += 1
    return found


def half_read(folder: Path) -> str | None:
    """What is wrong with a run as it stands on the disk; None when it is whole."""
    try:
        document = json.loads((folder / "run.json").read_text())
        for name, told in document["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != told["sha256"]:
                return f"{folder.name}/{name}: not the bytes that run.json names"
        if "requests.parquet" not in document["files"]:
            return f"{folder.name}: no requests"
    except (OSError, ValueError, KeyError) as error:
        return f"{folder.name}: {type(error).__name__}: {error}"
    return None


def read(root: Path, seed: int) -> None:
    """A reader: opens the folder again and again; a line for each look (runs seen, what was wrong)."""
    from profiler.analyse.recover import open_store

    pause = random.Random(seed)
    checked: set[str] = set()
    while True:
        store = open_store(root)
        rows = store.rows()
        wrong = [w for w in store.warnings if "skipped" in w or "cannot" in w]
        ids = [row["run_id"] for row in rows]
        for run_id in ids:
            if run_id not in checked and (fault := half_read(root / "runs" / f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}" / run_id)):
                wrong.append(fault)
        if len(checked - set(ids)):
            wrong.append(f"{len(checked - set(ids))} runs that were there are gone")
        checked |= set(ids)
        last = {row["run_id"] for row in rows[-3:] if row["n_cohort"]}
        if store.records(last).keys() != last:
            wrong.append("a run without its requests")
        os.write(1, json.dumps({"runs": len(rows), "wrong": wrong}).encode() + b"\n")  # in one piece: it may be killed in between two
        time.sleep(pause.uniform(0.3, 1.7))


class Crash:
    """The whole of it: processes, the watch over spools, the kills."""

    def __init__(self, work: Path, readers: int, seed: int) -> None:
        self.work, self.root, self.links = work, work / "results", work / "links"
        self.random = random.Random(seed)
        self.root.mkdir()
        self.links.mkdir()
        (work / "crash.toml").write_text(BACKEND)
        (work / "spec.toml").write_text(SPEC.format(backend=work / "crash.toml", users=list(range(1, 31))))
        self.kills: Counter[str] = Counter()
        self.ended_alone: Counter[int] = Counter()
        self.started = 0
        self.measuring: set[int] = set()  # process ids of the sweeps that have begun a cell
        self.sweeps = [self._sweep() for _ in range(2)]
        self.readers = [self._reader() for _ in range(readers)]

    def _sweep(self) -> subprocess.Popen[bytes]:
        self.started += 1
        words = [
            "sweep",
            "spec.toml",
            "--again",
            "--results",
            self.root,
            "--out",
            self.work / f"{self.started}.html",
            "--seed",
            self.started,
        ]
        environment = {**os.environ, "SLM_PROFILER_CACHE": str(self.work / "cache")}
        log = (self.work / f"sweep-{self.started}.log").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "profiler", *map(str, words)], cwd=self.work, env=environment, stdout=subprocess.DEVNULL, stderr=log
            )

    def _reader(self) -> subprocess.Popen[bytes]:
        self.started += 1
        with (self.work / "readers.jsonl").open("ab") as out:
            return subprocess.Popen([sys.executable, __file__, "--read", str(self.root), "--seed", str(self.started)], stdout=out)

    def watch(self, until: float) -> None:
        """Hard-link each new spool, restart what ended, until that time."""
        while time.monotonic() < until:
            self.link()
            for sweep in self.sweeps:
                if sweep.pid not in self.measuring and any("profiler.run.client" in words for words in map(_words, below(sweep))):
                    self.measuring.add(sweep.pid)
            for number, sweep in enumerate(self.sweeps):
                if sweep.poll() is not None:
                    self.ended_alone[sweep.returncode] += 1
                    self.sweeps[number] = self._sweep()
            time.sleep(0.01)

    def link(self) -> None:
        for spool in [*self.root.glob(".incoming/*/spool.bin"), *self.root.glob(".interrupted/*/spool.bin")]:
            try:
                os.link(spool, self.links / f"{spool.parent.name}.bin")
            except FileExistsError:
                pass
            except FileNotFoundError:  # renamed meanwhile
                pass

    def kill(self) -> None:
        kind = self.random.choices(KINDS, WEIGHTS)[0]
        number = self.random.randrange(len(self.sweeps))
        if kind == "reader":
            if self.kills["reader"] > self.kills.total() // 4:
                return  # they are always there, a client only while a cell is measured
            at = self.random.randrange(len(self.readers))
            end([psutil.Process(self.readers[at].pid)])
            self.readers[at].wait()
            self.readers[at] = self._reader()
        else:
            sweep = self.sweeps[number]
            if sweep.pid not in self.measuring and self.random.random() < STARTING:
                return
            children = below(sweep)
            clients = [process for process in children if "profiler.run.client" in _words(process)]
            if kind == "client":
                if not clients:
                    return  # between two cells
                end(clients)
            else:
                end([psutil.Process(sweep.pid), *(children if kind == "program" else [])])
                sweep.wait()
                self.sweeps[number] = self._sweep()
        self.kills[kind] += 1

    def stop(self) -> None:
        """Kill everything, then wait until no load client is left."""
        for process in [*self.readers, *self.sweeps]:
            if process.poll() is None:
                end([psutil.Process(process.pid), *below(process)])
            process.wait()
        deadline = time.monotonic() + 60
        while any(str(self.root) in " ".join(words) for words in map(_words, psutil.process_iter())):
            if time.monotonic() > deadline:
                raise SystemExit("processes of the sweeps are still there")
            time.sleep(0.05)
        self.link()


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Every process that it started, and they; [] when it has ended."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.Error:
            pass


def _words(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
        return words if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.Error:
        return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--readers", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=3600, help="end after so long, with fewer kills")
    parser.add_argument("--gap-s", type=float, default=1.0, help="longest time between two kills")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read is not None:
        read(given.read, given.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="store-crash-") as work:
        crash = Crash(Path(work), given.readers, given.seed)
        try:
            while crash.kills.total() < given.kills and time.monotonic() - began < given.limit_s:
                crash.watch(time.monotonic() + crash.random.uniform(0.0, given.gap_s))
                crash.kill()
        finally:
            crash.stop()
        return report(crash, time.monotonic() - began)


def report(crash: Crash, took_s: float) -> int:
    print(f"{crash.kills.total()} kills in {took_s:.0f} s", file=sys.stderr)
    verify = [sys.executable, "-m", "profiler", "results", "verify", "--json", "--results", str(crash.root)]
    done = subprocess.run(verify, capture_output=True, text=True)
    told = json.loads(done.stdout)
    held: dict[str, Counter[int]] = {}
    status: Counter[str] = Counter()
    halves = []
    for folder in crash.root.glob("runs/*/*"):
        status[json.loads((folder / "run.json").read_text())["run"]["status"]] += 1
        if fault := half_read(folder):
            halves.append(fault)
        rows = pq.read_table(folder / "requests.parquet", columns=["intended_ns", "error_kind"]).to_pylist()
        held[folder.name] = Counter(row["intended_ns"] for row in rows if row["error_kind"] != "cancelled")
    lost, extra, finished = 0, 0, 0
    for spool in crash.links.iterdir():
        truth, kept = ended(spool), held.get(spool.stem, Counter())
        finished += truth.total()
        lost += (truth - kept).total()
        extra += (kept - truth).total()
        if truth != kept:
            print(f"{spool.stem}: {truth.total()} had ended, {kept.total()} in the store", file=sys.stderr)
    looks = [json.loads(line) for line in (crash.work / "readers.jsonl").read_text().splitlines() if line.endswith("}")]
    wrong = [fault for look in looks for fault in look["wrong"]] + halves
    for fault in wrong[:10]:
        print(f"half read: {fault}", file=sys.stderr)
    if done.returncode or told["left"] or told["damages"]:
        print(f"verify: exit {done.returncode}: {told['left']} {told['damages']}", file=sys.stderr)
    kills = " + ".join(f"{crash.kills[kind]} {kind}" for kind in KINDS)
    cells = [
        crash.kills.total(),
        kills,
        status["done"],
        status["interrupted"],
        status["failed"],
        finished,
        lost,
        extra,
        len(looks),
        len(wrong),
    ]
    print("| kills | of | done | interrupted | failed | requests that had ended | lost | invented | looks by readers | half read |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("| " + " | ".join(str(cell) for cell in cells) + " |")
    unwatched = len(set(held) - {spool.stem for spool in crash.links.iterdir()})
    print(
        f"{took_s:.0f} s; sweeps that ended by themselves: {dict(crash.ended_alone)}; runs whose spool was not seen: {unwatched}",
        file=sys.stderr,
    )
    return 1 if lost or extra or wrong or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())

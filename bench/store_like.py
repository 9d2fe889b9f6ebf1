"""Big stores through the product's own writer: runs like one real run, for several backends, workloads, loads and engine starts.

Times are drawn, everything else (provenance, quality, telemetry, the server's metrics) is the real run's. A request's tokens come at
gamma-distributed gaps with now and then a stall, at nanoseconds; each engine start has its own speed (3 % spread), so that repeats differ.
"""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from profiler.analyse import qos, verdict
from profiler.analyse.latency import summarise
from profiler.plan import digest
from profiler.records import DriveResult, LoadKind, RequestRecord
from profiler.store.draft import KEPT_FILES
from profiler.store.store import Store

NS = 1_000_000_000
BACKENDS = {
    "openvino-xeon-int4": 0.7,
    "openvino-xeon-int8": 1.0,
    "openvino-xeon-bf16": 1.9,
    "vllm-cpu-bf16": 2.2,
    "vllm-cpu-w8a8-int8": 1.4,
}
WORKLOADS = ("chat", "code-completion", "rag", "summarise")
LOADS: tuple[tuple[LoadKind, float], ...] = (
    *(("concurrency", n) for n in (1.0, 2.0, 4.0, 8.0, 16.0)),
    *(("rate", n) for n in (0.5, 1.0, 2.0, 4.0, 8.0)),
)
QOS = "ttft_p95<=500ms, tpot_p95<=40ms"
STALLS = 0.002  # share of gaps that are ten times longer


@dataclass(frozen=True)
class Point:
    """One run to make."""

    backend: str
    workload: str
    kind: LoadKind
    load: float
    repeat: int
    seed: int

    @property
    def cell_id(self) -> str:
        return str(digest(["scale", self.backend, self.workload, self.kind, self.load]))


def points(runs: int) -> list[Point]:
    """The first `runs` of a sweep whose cells are each measured on several engine starts; small stores have fewer of everything."""
    repeats = 5 if runs >= 100 else 2
    loads = LOADS if runs >= 500 else LOADS[::2]
    every = product(WORKLOADS, BACKENDS, loads, range(repeats))
    found = [Point(b, w, kind, load, repeat, seed) for seed, (w, b, (kind, load), repeat) in enumerate(islice(every, runs))]
    if len(found) < runs:
        raise SystemExit(f"at most {len(found)} runs")
    return found


def draw(point: Point, n: int, tokens: int) -> tuple[list[RequestRecord], DriveResult]:
    """n requests after 20 of the warm-up, and the window they are in."""
    rng = np.random.default_rng(point.seed)
    start_speed = np.random.default_rng([7, point.repeat, *point.backend.encode()]).normal(1, 0.03)
    crowd = point.load if point.kind == "concurrency" else 1.5 * point.load
    gap_s = 0.012 * BACKENDS[point.backend] * start_speed * (1 + 0.12 * crowd)
    service_s = 0.1 + gap_s * tokens
    spacing_s = service_s / point.load if point.kind == "concurrency" else 1 / point.load
    warm, origin = 20, 10**15 + 12_345_678_901 * (point.seed + 1)
    due = origin + (np.cumsum(rng.exponential(spacing_s, n + warm)) * NS).astype(np.int64)
    open_ns, close_ns = int(due[warm]), int(due[-1]) + 1
    records = []
    for i in range(n + warm):
        count = int(np.clip(rng.poisson(tokens), 2, 4 * tokens))
        gaps = rng.gamma(100.0, gap_s / 100.0, count - 1) * np.where(rng.random(count - 1) < STALLS, 10.0, 1.0)
        ttft_s = rng.lognormal(np.log(0.08 + 0.02 * crowd), 0.35)
        lag_ns = int(rng.exponential(2e5))
        stamps = np.cumsum(np.concatenate(([ttft_s], gaps)) * NS).astype(np.int64)
        records.append(_record(i, int(due[i]), int(due[i]) + lag_ns, stamps, i < warm))
    drive = DriveResult(
        started_ns=int(origin), window_open_ns=open_ns, window_close_ns=close_ns, ended_ns=max(r.done_ns or 0 for r in records),
        started_at="2026-11-24T01:00:00.000+00:00", stop_reason="cohort complete", client_cpu_s=0.01 * (close_ns - open_ns) / NS,
        stamps="kernel", read_delay_p50_s=5e-6, read_delay_p99_s=1e-4, clock_step_s=0.0, repeated_prompts=0,
    )  # fmt: skip
    return records, drive


def _record(number: int, due: int, sent: int, stamps: np.ndarray[Any, np.dtype[np.int64]], warmup: bool) -> RequestRecord:
    first, last = sent + int(stamps[0]), sent + int(stamps[-1])
    done, n = last + 40_000, len(stamps)
    return RequestRecord(
        request_id=f"r{number:06d}", session_id=None, turn=0, intended_ns=due, sent_ns=sent, first_token_ns=first, last_token_ns=last,
        done_ns=done, ttft_s=(first - sent) / NS, ttft_sched_s=(first - due) / NS, tpot_s=(last - first) / NS / (n - 1),
        e2e_s=(done - sent) / NS, e2e_sched_s=(done - due) / NS, max_icl_s=float(np.diff(stamps).max()) / NS, prompt_tokens=128 + number % 64,
        output_tokens=n, asked_output_tokens=n, finish_reason="length", error_kind=None, error=None, http_status=200, warmup=warmup,
        in_window=not warmup, connection_reused=True, token_count_source="token_ids",
        arrival_offsets_us=tuple(((stamps + 500) // 1000).tolist()), arrival_tokens=(1,) * n,
    )  # fmt: skip


@dataclass(frozen=True)
class Pattern:
    """The real run: its document and the files that a run keeps beside its requests."""

    document: Mapping[str, Any]
    folder: Path


def pattern(results: Path) -> Pattern:
    """The first run of a store that was measured."""
    store = Store(results)
    run_id = next(row["run_id"] for row in store.rows() if row["status"] == "done" and row["provenance_class"] == "measured")
    (folder,) = results.glob(f"runs/*/{run_id}")
    return Pattern(store.run(run_id), folder)


def null_run(results: Path) -> Path:
    """A results folder with one real run of the null engine."""
    command = [sys.executable, "-m", "profiler", "sweep", "--backend", "null", "--workload", "quickstart-chat", "--concurrency", "4"]
    if not results.exists():
        subprocess.run([*command, "--requests", "30", "--results", str(results)], check=True, stdout=subprocess.DEVNULL)
    return results


def make(root: Path, like: Pattern, group: Sequence[Point], cells: list[str], n: int, tokens: int) -> None:
    """The runs of one load of one backend into the store, one per workload: of the same times, which are most of the work."""
    point = group[0]
    records, drive = draw(point, n, tokens)
    target = qos.parse(QOS)
    judged = verdict.judge(target, records, point.kind, point.load, drive, "valid")
    run = dict(like.document["run"]) | summarise(records, drive, target)
    run |= {
        "sweep_id": digest(cells), "sweep_name": "scale", "repeat": point.repeat, "backend": point.backend, "load_kind": point.kind,
        "load": point.load, "variant": point.backend.rpartition("-")[2], "start_id": f"{point.backend}-{point.repeat}",
        "arrivals": "closed" if point.kind == "concurrency" else "poisson", "validity": "valid", "validity_reasons": [],
        "validity_advice": [], "stability": "steady", "stability_reason": None, "qos": QOS, "qos_result": judged.result,
        "qos_reason": judged.reason,
    }  # fmt: skip
    del run["run_id"]
    rest = {key: value for key, value in like.document.items() if key not in ("schema_version", "files", "run", "sha256")}
    provenance = {**like.document["provenance"], "cells": cells}
    shift = drive.window_open_ns - like.document["run"]["window_open_ns"]
    for own in group:
        document = {**rest, "run": run | {"cell_id": own.cell_id, "workload": own.workload}, "verdicts": [judged.to_dict()]}
        draft = Store(root).draft()
        for name in KEPT_FILES:
            if (like.folder / name).is_file() and name.endswith(".parquet"):
                _shifted(like.folder / name, draft.folder / name, draft.run_id, shift)
            elif (like.folder / name).is_file():
                shutil.copy(like.folder / name, draft.folder / name)
        draft.commit({**document, "provenance": provenance}, records)


def _shifted(source: Path, target: Path, run_id: str, shift_ns: int) -> None:
    """A table of samples for another run, at that run's time."""
    import pyarrow.compute as pc

    with pq.ParquetFile(source) as file:
        table = file.read()
    table = table.set_column(table.schema.get_field_index("run_id"), table.field("run_id"), pa.array([run_id] * len(table)))
    times = pc.add(table["t_ns"], shift_ns)
    pq.write_table(table.set_column(table.schema.get_field_index("t_ns"), table.field("t_ns"), times), target, compression="zstd")


def generate(root: Path, results: Path, runs: int, n: int, tokens: int) -> None:
    """A store of `runs` runs like the first one of `results`, by one process per core. What an interrupted call made stays and counts."""
    like, wanted = pattern(results), points(runs)
    made = {(row["cell_id"], row["repeat"]) for row in Store(root).rows()}
    cells = sorted({point.cell_id for point in wanted})
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for point in wanted:
        if (point.cell_id, point.repeat) not in made:
            groups.setdefault((point.backend, point.kind, point.load, point.repeat), []).append(point)
    jobs: Iterator[tuple[Any, ...]] = ((root, like, group, cells, n, tokens) for group in groups.values())
    with multiprocessing.Pool() as pool:
        for done in [pool.apply_async(make, job) for job in jobs]:
            done.get()

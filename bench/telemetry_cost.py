"""What the telemetry sampler costs, and what it does to the client's timing: one cell with and without it, interleaved, in one run.

    .venv/bin/python bench/telemetry_cost.py [--seconds 5] [--repeats 3] [--users 16] [--period 0.5,0.1]

Against the null engine, which answers at a fixed pace, so that what differs is the machine's other work. Prints for each period the
sampler's CPU cores and the ratio of send lag and TTFT to those without a sampler. The GPU part needs a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from profiler import plan
from profiler.analyse import energy
from profiler.analyse.latency import summarise
from profiler.engines import registry, replicas
from profiler.machine.telemetry.recording import recording
from profiler.run.cell import measure
from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec, validate_spec

NAMES = ("send_lag_p99_s", "read_delay_p50_s", "ttft_p50_s", "ttft_p95_s", "tpot_p50_s")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--period", default="0.5,0.1")
    asked = parser.parse_args(words)
    periods = [None, *(float(part) for part in asked.period.split(","))]
    raw = {"name": "null", "summary": "paced", "engine": "null", "device": "cpu", "precision": "none"}
    backend = validate_spec(raw | {"options": {"ttft_ms": 20.0, "itl_ms": 10.0}}, BackendSpec, "bench")
    lengths = {"kind": "fixed", "isl": 16, "osl": 32}
    workload = validate_spec(
        {"name": "w", "version": 1, "summary": "s", "source": "bench", "lengths": lengths, "prompts": {"kind": "random-tokens"}},
        WorkloadSpec,
        "bench",
    )
    spec = SweepSpec(requests=1, window_min_s=asked.seconds, window_max_s=asked.seconds, warmup_s=0.5)
    cell = plan.make_cell(spec, backend, workload, "concurrency", asked.users, None)
    engine = registry.get("null")
    found: dict[float | None, list[dict[str, float]]] = {period: [] for period in periods}
    with tempfile.TemporaryDirectory() as made:
        variant = engine.prepare(None, backend, lambda _: None, ())
        with engine.start(variant, backend, Path(made) / "log", lambda _: None) as running:
            for repeat in range(asked.repeats):
                for period in periods[repeat % len(periods) :] + periods[: repeat % len(periods)]:
                    folder = Path(tempfile.mkdtemp(dir=made))
                    around = contextlib.nullcontext() if period is None else recording(folder, replicas.pids_of(running), period)
                    with around:
                        measured = measure(cell, running.endpoint, None, None, folder, engine_pid=running.pid)
                    drive = measured.drive
                    row = summarise(measured.requests, drive, None)
                    figures = {name: float(row.get(name) or getattr(drive, name, None) or 0.0) for name in NAMES}
                    telemetry = energy.load(folder / "telemetry.parquet")
                    if telemetry is not None:
                        counted = energy.counted(
                            telemetry.series["sampler", "sampler", "cpu_s"], drive.window_open_ns, drive.window_close_ns
                        )[0]
                        figures["cores"] = (counted or 0.0) * 1e9 / (drive.window_close_ns - drive.window_open_ns)
                        figures["readings"] = sum(map(len, telemetry.series.values()))
                    found[period].append(figures)
    print(f"{asked.users} users, {asked.seconds:g} s, {asked.repeats} repeats; medians, with the ratio to no sampler")
    for period, rows in found.items():
        parts = []
        for name in NAMES:
            value, without = (statistics.median(row[name] for row in group) for group in (rows, found[None]))
            parts.append(f"{name} {value * 1e3:.3f} ms ({value / without:.2f})" if without else f"{name} -")
        cost = f", sampler {statistics.median(row['cores'] for row in rows):.4f} cores" if period is not None else ""
        print(f"{'no sampler' if period is None else f'{period:g} s'}: " + ", ".join(parts) + cost)


if __name__ == "__main__":
    main()

"""What the load client adds to what it measures: the figures of docs/client.md, against the paced server, one core each.

    .venv/bin/python bench/client.py [--streams 5,64,256,1000] [--seconds 6] [--repeats 3] [--json FILE] [--markdown FILE]

The server (C, writes down the time just before each send) is pinned to one core and the client to another; the two are compared request
by request on one clock. Repeats are interleaved over the loads; a figure is the median of the repeats, with their range. Times are
errors of the client, not latencies of a server. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from profiler.records import LoadPlan
from profiler.run import oracle
from profiler.workload import arrivals

PACE = oracle.Pace()
RATE, RATE_TOKENS = 1000, 16  # Poisson: 16,000 tokens/s, so that it is the sends that are under test
MEMORY_STREAMS, MEMORY_TOKENS = 1000, 1000
CAPACITY_STREAMS = 1200  # 116,000 tokens/s


class Watch:
    """Pins the two sides; keeps the client's peak memory and the server's CPU time."""

    def __init__(self, server_core: int, client_core: int) -> None:
        self.cores = (server_core, client_core)
        self.client_peak_bytes = 0
        self.server_cpu_s = 0.0
        self._server: psutil.Process | None = None

    def started(self, running: Any) -> None:
        self._server = psutil.Process(running.pid)
        self._server.cpu_affinity([self.cores[0]])
        os.sched_setaffinity(0, {self.cores[1]})  # inherited by the client

    def progress(self, _: Any) -> None:
        assert self._server is not None
        times = self._server.cpu_times()
        self.server_cpu_s = times.user + times.system
        total = 0
        for child in psutil.Process().children():
            if "profiler.run.client" in child.cmdline():
                status = Path(f"/proc/{child.pid}/status").read_text()
                total += next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
        self.client_peak_bytes = max(self.client_peak_bytes, total)


def check(plan: LoadPlan, pace: oracle.Pace, cores: tuple[int, int]) -> dict[str, Any]:
    watch = Watch(*cores)
    everywhere = os.sched_getaffinity(0)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-client-") as folder:
            checked = oracle.check(plan, pace, Path(folder), watch.progress, watch.started)
            sent = sum(
                sum(c[2] for c in row["chunks"])
                for row in map(json.loads, (Path(folder) / "sent.jsonl").read_text().splitlines())
                if row["stream_index"] >= 0
            )
    finally:
        os.sched_setaffinity(0, everywhere)
    return {
        **asdict(checked),
        "client_peak_bytes": watch.client_peak_bytes,
        "server_cpu_us_per_token": watch.server_cpu_s / sent * 1e6,
        "tokens": sent,
    }


def memory_plan() -> LoadPlan:
    """A million tokens, all in flight together."""
    offsets = tuple(int(i * 1e9 / MEMORY_STREAMS) for i in range(MEMORY_STREAMS))
    return LoadPlan("rate", MEMORY_STREAMS, 0.0, 0, 1.0, 1.0, 1, 120.0, offsets)


def poisson_plan(seconds: float, seed: int) -> LoadPlan:
    offsets = arrivals.poisson_offsets_ns(RATE, 1 + seconds + 1, seed)
    return LoadPlan("rate", RATE, 1.0, 0, seconds, seconds, 1, 60.0, offsets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="5,64,256,1000")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", default="0,1", help="server's core, client's core")
    parser.add_argument("--json", type=Path, help="every repeat of every figure")
    parser.add_argument("--markdown", type=Path, help="the tables")
    options = parser.parse_args()
    server_core, client_core = map(int, options.cores.split(","))
    cores = (server_core, client_core)

    jobs: dict[str, Callable[[int], tuple[LoadPlan, oracle.Pace]]] = {
        f"{n} streams": lambda _, n=int(n): (oracle.closed(n, PACE, options.seconds), PACE)  # type: ignore[misc]
        for n in options.streams.split(",")
    }
    jobs[f"Poisson {RATE}/s"] = lambda seed: (poisson_plan(options.seconds, seed), oracle.Pace(output_tokens=RATE_TOKENS))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for repeat in range(options.repeats):
        for name, job in jobs.items():
            runs[name].append(check(*job(repeat), cores))
            print(f"{repeat + 1}/{options.repeats} {name}", file=sys.stderr)
    runs["a million tokens"] = [check(memory_plan(), oracle.Pace(output_tokens=MEMORY_TOKENS), cores)]
    # More than 100,000 tokens/s asked for, to see that it is not the server that ends there. Readers that sleep would make each send
    # dearer, not cheaper: what nobody reads piles up in the kernel.
    runs[f"{CAPACITY_STREAMS} streams"] = [check(oracle.closed(CAPACITY_STREAMS, PACE, options.seconds), PACE, cores)]
    text = table(runs, options.repeats)
    print(text)
    if options.json:
        machine = {"cpu_count": os.cpu_count(), "python": sys.version.split()[0], "kernel": os.uname().release}
        options.json.write_text(json.dumps({"machine": machine, "runs": runs}, indent=1))
    if options.markdown:
        options.markdown.write_text(text + "\n")


def table(runs: dict[str, list[dict[str, Any]]], repeats: int) -> str:
    def figure(name: str, key: str, factor: float = 1.0, form: str = ".3f") -> tuple[str, float | None]:
        """`median (least – most)` of the repeats, and the median."""
        values = [run[key] * factor for run in runs.get(name, ()) if run[key] is not None]
        if not values:
            return "—", None
        middle = statistics.median(values)
        spread = f" ({min(values):{form}} – {max(values):{form}})" if len(values) > 1 else ""
        return f"{middle:{form}}{spread}", middle

    # what, run, column, factor, format, target text, target, smaller is better
    wanted: Sequence[tuple[str, str, str, float, str, float, bool]] = [
        ("TTFT error p50, 64 streams, ms", "64 streams", "ttft_error_p50_s", 1e3, ".3f", 0.2, True),
        ("TTFT error p99, 64 streams, ms", "64 streams", "ttft_error_p99_s", 1e3, ".3f", 1, True),
        ("TTFT error p50, 1000 streams, ms", "1000 streams", "ttft_error_p50_s", 1e3, ".3f", 0.5, True),
        ("TTFT error p99, 1000 streams, ms", "1000 streams", "ttft_error_p99_s", 1e3, ".3f", 3, True),
        ("mean gap error, 1000 streams, %", "1000 streams", "itl_error_share", 100, ".4f", 1, True),
        ("offered load kept, 1000 streams, %", "1000 streams", "kept", 100, ".2f", 98, False),
        ("client CPU per token, 64 streams, µs", "64 streams", "client_cpu_us_per_token", 1, ".1f", 11, True),
        ("client CPU per token, 1000 streams, µs", "1000 streams", "client_cpu_us_per_token", 1, ".1f", 8, True),
        (f"Poisson {RATE}/s: send lag p50, ms", f"Poisson {RATE}/s", "send_lag_p50_s", 1e3, ".3f", 0.1, True),
        (f"Poisson {RATE}/s: send lag p99, ms", f"Poisson {RATE}/s", "send_lag_p99_s", 1e3, ".3f", 1, True),
        ("peak memory, 1,000,000 tokens in flight and recorded, MB", "a million tokens", "client_peak_bytes", 1e-6, ".0f", 300, True),
        ("the paced server, one core, tokens/s", f"{CAPACITY_STREAMS} streams", "tokens_per_s", 1, ",.0f", 100_000, False),
    ]
    lines = ["| what | target | measured | met |", "|---|---|---|---|"]
    for what, name, key, factor, form, target, smaller in wanted:
        said, middle = figure(name, key, factor, form)
        met = "—" if middle is None else "yes" if (abs(middle) <= target if smaller else middle >= target) else "no"
        lines.append(f"| {what} | {'≤' if smaller else '≥'} {target:g} | {said} | {met} |")
    lines += ["", f"Medians of {repeats} interleaved repeats (least – most).", ""]
    lines += [
        "| load | n | tokens/s | kept % | TTFT error p50 / p99 ms | server's own TTFT p50 / p99 ms | gap error p99 µs | server's gap ms | send lag p50 / p99 ms | "
        "read delay p50 / p99 ms | tokens per read | client CPU µs/token | server CPU µs/token |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in runs:

        def one(key: str, factor: float = 1.0, form: str = ".3f", name: str = name) -> str:
            values = [run[key] * factor for run in runs[name] if run[key] is not None]
            return f"{statistics.median(values):{form}}" if values else "—"

        def two(key: str, name: str = name, one: Callable[..., str] = one) -> str:
            return f"{one(f'{key}_p50_s', 1e3)} / {one(f'{key}_p99_s', 1e3)}"

        kept = one("kept", 100, ".1f") if "streams" in name else "—"
        lines.append(
            f"| {name} | {one('n', 1, '.0f')} | {one('tokens_per_s', 1, ',.0f')} | {kept} | {two('ttft_error')} | {two('server_ttft')} | "
            f"{one('itl_error_p99_s', 1e6, '.1f')} | {one('server_itl_s', 1e3)} | {two('send_lag')} | {two('read_delay')} | {one('tokens_per_read', 1, '.2f')} | "
            f"{one('client_cpu_us_per_token', 1, '.1f')} | {one('server_cpu_us_per_token', 1, '.1f')} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

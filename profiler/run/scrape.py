"""The server's own metrics through a run, scraped by a thread of the parent: outside the client that keeps the time.

Every PERIOD_S the Prometheus page is read and kept, and once before the load and once after it. What that costs is measured: our CPU
time, and how long the server took to answer (it renders the page in the process that also writes the tokens).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from profiler.run import counters
from profiler.run.counters import Scrape
from profiler.units import NS_PER_S

# vLLM renders its page (425 lines) in 3 to 7 ms of CPU, in the process that also writes the tokens; once in 2 s is 0.2 to 0.4 % of a core.
PERIOD_S = 2.0
FILE = "engine_metrics.parquet"
NO_PAGE = "the server has no /metrics"


@dataclass(frozen=True)
class ServerUse:
    """Means and maxima are of the scrapes around the window: the last before it opened to the first after it closed.

    Prefix figures are of the whole run, warm-up included. None where the server does not say.
    """

    queue_mean_s: float | None = None
    prefill_mean_s: float | None = None
    decode_mean_s: float | None = None
    ttft_mean_s: float | None = None
    running_max: float | None = None
    waiting_max: float | None = None
    kv_use_max: float | None = None
    preemptions: int | None = None
    prefix_hit_rate: float | None = None
    prefix_hit_tokens: int | None = None
    prefix_queried_tokens: int | None = None
    prefix_block_tokens: int | None = None
    prefix_caching: bool | None = None
    prefix_reset: str | None = None  # "done", or why not
    scrapes: int = 0
    missed: int = 0  # scrapes that the server did not answer
    period_s: float = PERIOD_S
    scrape_p50_s: float | None = None  # until the server had answered
    scraper_cpu_cores: float | None = None
    reason: str | None = None  # why there is nothing

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Scraper:
    """`with Scraper(running.metrics) as scraper: ...` scrapes until the end of the block; then `over` and `write`."""

    def __init__(self, metrics: Callable[[], Scrape], period_s: float = PERIOD_S) -> None:
        self._metrics, self._period_s = metrics, period_s
        self.kept: list[tuple[int, Scrape]] = []  # CLOCK_MONOTONIC ns in the middle of the scrape, and what it said
        self._took_s: list[float] = []
        self._missed = 0
        self._cpu_s = 0.0
        self._began_ns = self._ended_ns = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-scraper", daemon=True)

    def __enter__(self) -> Scraper:
        self._began_ns = time.monotonic_ns()
        self._scrape()
        if self.kept:  # a server without the page is not asked again
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
            if kind is None:
                self._scrape()
        self._ended_ns = time.monotonic_ns()

    def _run(self) -> None:
        due = time.monotonic() + self._period_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._scrape()
            due = max(due + self._period_s, time.monotonic())

    def _scrape(self) -> None:
        cpu_s, before = time.thread_time(), time.monotonic_ns()
        found = self._metrics()
        after = time.monotonic_ns()
        if found:
            self.kept.append(((before + after) // 2, found))
            self._took_s.append((after - before) / NS_PER_S)
        else:
            self._missed += 1
        self._cpu_s += time.thread_time() - cpu_s

    def over(self, open_ns: int, close_ns: int, prefix_reset: str | None = None) -> ServerUse:
        """The figures of the window [open, close), after the block."""
        if not self.kept:
            return ServerUse(missed=self._missed, prefix_reset=prefix_reset, reason=NO_PAGE)
        first, last = self.kept[0][1], self.kept[-1][1]
        inside = around(self.kept, open_ns, close_ns)
        a, b = inside[0], inside[-1]
        rate, hits, queries = counters.hit_rate(first, last)
        preemptions = counters.grown(a, b, counters.PREEMPTIONS)
        span_s = (self._ended_ns - self._began_ns) / NS_PER_S
        return ServerUse(
            queue_mean_s=counters.mean(a, b, counters.QUEUE),
            prefill_mean_s=counters.mean(a, b, counters.PREFILL),
            decode_mean_s=counters.mean(a, b, counters.DECODE),
            ttft_mean_s=counters.mean(a, b, counters.TTFT),
            running_max=_most([counters.level(scrape, counters.RUNNING) for scrape in inside]),
            waiting_max=_most([counters.level(scrape, counters.WAITING) for scrape in inside]),
            kv_use_max=_most([counters.highest(scrape, counters.KV_USE) for scrape in inside]),
            preemptions=round(preemptions) if preemptions is not None else None,
            prefix_hit_rate=rate,
            prefix_hit_tokens=hits,
            prefix_queried_tokens=queries,
            prefix_block_tokens=counters.block_tokens(last),
            prefix_caching=counters.caches_prefixes(last),
            prefix_reset=prefix_reset,
            scrapes=len(self.kept),
            missed=self._missed,
            period_s=self._period_s,
            scrape_p50_s=median(self._took_s),
            scraper_cpu_cores=self._cpu_s / span_s if span_s > 0 else None,
        )

    def write(self, path: Path, run_id: str) -> None:
        """engine_metrics.parquet (columns: store/schema.py), where there is anything: every scrape, but histogram buckets of the first and the last only (they are nine lines in ten)."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.kept:
            return
        times: list[int] = []
        names: list[str] = []
        labels: list[str] = []
        values: list[float] = []
        for number, (t_ns, scrape) in enumerate(self.kept):
            for series, value in scrape.items():
                name, inside = counters.split(series)
                if (name.endswith("_bucket") and 0 < number < len(self.kept) - 1) or name.endswith("_created"):
                    continue
                times.append(t_ns)
                names.append(name)
                labels.append(inside)
                values.append(value)
        columns = {"run_id": pa.array([run_id] * len(times), pa.string()), "t_ns": pa.array(times, pa.int64())}
        columns |= {"name": pa.array(names, pa.string()), "labels": pa.array(labels, pa.string()), "value": pa.array(values, pa.float64())}
        pq.write_table(pa.table(columns), path, compression="zstd")


def around(kept: Sequence[tuple[int, Scrape]], open_ns: int, close_ns: int) -> list[Scrape]:
    """The scrapes from the last at or before `open_ns` to the first at or after `close_ns`."""
    first = max((k for k, (t_ns, _) in enumerate(kept) if t_ns <= open_ns), default=0)
    last = next((k for k, (t_ns, _) in enumerate(kept) if t_ns >= close_ns), len(kept) - 1)
    return [scrape for _, scrape in kept[first : last + 1]]


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)

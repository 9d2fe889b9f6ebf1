"""The server's own metrics: scraped from a real page, kept, and what grew between two scrapes."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import plan
from profiler.analyse.assess import SweepFacts, assess
from profiler.engines import http_client, registry
from profiler.records import Endpoint
from profiler.run import counters
from profiler.run.scrape import NO_PAGE, Scraper, around
from profiler.run.start import Outcome, Watch, measure_start
from profiler.spec import BackendSpec, SweepSpec
from profiler.store import schema

QUEUE_MS, PREFILL_MS, TOKENS, CACHED = 2.0, 5.0, 4, 32


class Page:
    """A server with vLLM's names: each answered request adds the same known amounts to its counters."""

    def __init__(self, caching: str = "True", resets: bool = True, page: bool = True) -> None:
        self.caching, self.resets, self.page = caching, resets, page
        self.answered = self.scraped = self.running = self.was_reset = 0
        self.lock = threading.Lock()

    def metrics(self) -> str:
        with self.lock:
            self.scraped += 1
            n = self.answered
            return "\n".join(
                [
                    "# HELP vllm:num_requests_running Number of requests",
                    f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{self.caching}",engine="0"}} 1.0',
                    f'vllm:num_requests_running{{engine="0",model_name="m"}} {self.running}',
                    'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0',
                    'vllm:kv_cache_usage_perc{engine="0"} 0.25',
                    f'vllm:request_queue_time_seconds_sum{{engine="0"}} {n * QUEUE_MS / 1e3}',
                    f'vllm:request_queue_time_seconds_count{{engine="0"}} {n}',
                    f'vllm:request_queue_time_seconds_bucket{{engine="0",le="0.3"}} {n}',
                    f'vllm:prefix_cache_queries_total{{engine="0"}} {n * 64}',
                    f'vllm:prefix_cache_hits_total{{engine="0"}} {n * CACHED}',
                    'vllm:num_preemptions_total{engine="0"} 3.0',
                    'vllm:num_preemptions_created{engine="0"} 1.7e9',
                ]
            )


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[tuple[Page, str]]:
    state = Page(**getattr(request, "param", {}))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/metrics" and state.page:
                self.say(state.metrics().encode())
            elif self.path == "/v1/models":
                self.say(b'{"data": [{"id": "m"}]}')
            else:
                self.say(b"{}", 404)

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/reset_prefix_cache":
                state.was_reset += state.resets
                self.say(b"{}", 200 if state.resets else 404)
                return
            body = json.loads(asked)
            if not body.get("stream"):
                self.say(b'{"usage": {"completion_tokens": 1}}')
                return
            with state.lock:
                state.running += 1
            events = [{"choices": [{"index": 0, "text": "a", "token_ids": [k], "finish_reason": None}]} for k in range(body["max_tokens"])]
            timings = {"time_to_first_token_ms": PREFILL_MS, "queue_time_ms": QUEUE_MS, "generation_time_ms": 9, "mean_itl_ms": None}
            usage = {"prompt_tokens": 64, "completion_tokens": body["max_tokens"], "prompt_tokens_details": {"cached_tokens": CACHED}}
            events += [{"choices": [], "usage": usage, "metrics": timings}]
            text = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
            time.sleep(0.01)
            with state.lock:
                state.running -= 1
                state.answered += 1
            self.say(text, kind="text/event-stream")

        def say(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:  # a client that has what it wanted goes away
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def run_one(url: str, folder: Path) -> tuple[Outcome, dict[str, Any]]:
    backend = BackendSpec(name="there", summary="t", engine="openai", device="remote", precision="none", options={"url": url})
    raw = {"backends": ["null"], "isl": 64, "osl": TOKENS, "workloads": [], "concurrency": [2], "requests": 20}
    spec = SweepSpec.model_validate(raw | {"window_min_s": 0.2, "window_max_s": 30.0, "warmup_s": 0.0})
    made = plan.make(spec)
    engine = registry.get("openai")
    folder.mkdir()
    watch = Watch(lambda text: None, lambda cell: None, lambda cell, progress: None)
    start = dataclasses.replace(made.starts[0], backend=backend)
    variant = engine.prepare(None, backend, lambda text: None)
    (outcome,) = measure_start(
        start, [dataclasses.replace(made.cells[0], backend=backend)], engine, variant, None, None, folder, lambda cell: folder, watch
    )
    assert outcome.measured is not None, outcome.failure
    facts = SweepFacts("sweep", (outcome.cell.cell_id,), spec, {"machine_id": "m"})
    return outcome, assess(facts, outcome, 0, "environment", None)["run"]


def test_a_run_keeps_what_the_server_says(page: tuple[Page, str], tmp_path: Path) -> None:
    state, url = page
    outcome, run = run_one(url, tmp_path / "cell")
    assert outcome.measured is not None
    assert state.was_reset == 1 and run["prefix_reset"] == "done"
    assert run["prefix_hit_rate"] == CACHED / 64 and run["prefix_hit_tokens"] == CACHED * run["prefix_queried_tokens"] / 64
    assert run["prefix_block_tokens"] == 16 and run["prefix_block_bound"] == 0.0
    assert run["server_queue_mean_s"] == pytest.approx(QUEUE_MS / 1e3) and run["server_prefill_mean_s"] is None
    assert run["server_kv_use_max"] == 0.25 and run["server_preemptions"] == 0 and run["server_metrics_reason"] is None
    assert run["validity"] == "suspect" and any("the prefix cache knew 50%" in reason for reason in run["validity_reasons"])
    answered = [request for request in outcome.measured.requests if request.error_kind is None]
    assert len(answered) >= 20
    for request in answered:
        assert (request.server_queue_s, request.server_prefill_s, request.server_decode_s) == (0.002, 0.005, 0.009)
        assert request.server_ttft_s == pytest.approx(0.007) and request.server_cached_tokens == CACHED
        assert request.token_count_source == "token_ids" and request.output_tokens == TOKENS
    file = pq.read_table(tmp_path / "cell" / "engine_metrics.parquet")
    assert file.schema.equals(schema.arrow_schema("engine_metrics"), check_metadata=False)
    table = file.to_pylist()
    buckets = [row for row in table if row["name"].endswith("_bucket")]
    assert len({row["t_ns"] for row in table}) == run["server_scrapes"] >= 2 and len({row["t_ns"] for row in buckets}) == 2
    assert {row["labels"] for row in buckets} == {'engine="0",le="0.3"'} and not any("_created" in row["name"] for row in table)
    assert {row["run_id"] for row in table} == {"cell"}


@pytest.mark.parametrize(
    ("page", "reset", "hits"),
    [
        ({"resets": False}, "does not reset its prefix cache", None),
        ({"caching": "False"}, "prefix caching is off", None),
        ({"page": False}, "does not say", "the server has no prefix-cache counters"),
    ],
    indirect=["page"],
)
def test_a_cache_that_is_not_reset_says_why(page: tuple[Page, str], reset: str, hits: str | None, tmp_path: Path) -> None:
    state, url = page
    _, run = run_one(url, tmp_path / "cell")
    assert state.was_reset == 0 and reset in run["prefix_reset"]
    assert run["prefix_hit_reason"] == hits if hits else run["prefix_hit_rate"] == 0.5
    assert (tmp_path / "cell" / "engine_metrics.parquet").exists() == state.page
    assert run["server_metrics_reason"] == (None if state.page else NO_PAGE)


def test_it_scrapes_through_the_run(page: tuple[Page, str]) -> None:
    state, url = page
    port = int(url.split(":")[2].split("/")[0])
    with Scraper(lambda: http_client.metrics(Endpoint("127.0.0.1", port, "m")), period_s=0.02) as scraper:
        deadline = time.monotonic() + 30
        while state.scraped < 6 and time.monotonic() < deadline:
            time.sleep(0.005)
    times = [t for t, _ in scraper.kept]
    assert len(times) == state.scraped >= 6 and times == sorted(times)
    use = scraper.over(times[0], times[-1])
    assert use.scrapes == state.scraped and use.scrape_p50_s and use.scraper_cpu_cores is not None and 0 < use.scraper_cpu_cores < 1


def test_a_server_without_a_page_is_asked_once() -> None:
    asked = []
    with Scraper(lambda: asked.append(1) or {}, period_s=0.001) as scraper:  # type: ignore[func-returns-value]
        time.sleep(0.02)
    assert len(asked) == 1 and scraper.over(0, 1).reason == NO_PAGE and scraper.over(0, 1).running_max is None


AMOUNTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=4)


@given(AMOUNTS, st.data())
def test_a_counter_grows_over_all_its_labels(start: list[int], data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(0, 10**9), min_size=len(start), max_size=len(start)))
    before = {f'x_total{{engine="{k}"}}': float(v) for k, v in enumerate(start)}
    after = {name: value + step for (name, value), step in zip(before.items(), steps, strict=True)}
    assert counters.grown(before, after, "x") == sum(steps)
    assert counters.grown({}, after, "x") == sum(after.values()), "a series that is new began at 0"
    assert counters.grown(before, after, "y") is None
    fell = dict(after) | {'x_total{engine="0"}': before['x_total{engine="0"}'] - 1}
    assert counters.grown(before, fell, "x") is None, "started anew between"


@given(st.lists(st.integers(1, 1000), max_size=20), st.lists(st.integers(1, 1000), max_size=20))
def test_a_histogram_gives_the_exact_mean_of_what_came_between(early: list[int], late: list[int]) -> None:
    def page(seen: list[int]) -> dict[str, float]:
        return {"h_sum": float(sum(seen)), "h_count": float(len(seen)), 'h_bucket{le="+Inf"}': float(len(seen))}

    found = counters.mean(page(early), page(early + late), "h")
    assert found is None if not late else found == pytest.approx(sum(late) / len(late))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20, unique=True), st.integers(-10, 110), st.integers(0, 50))
def test_the_scrapes_around_a_window_enclose_it(times: list[int], opened: int, length: int) -> None:
    kept = [(t, {"t": float(t)}) for t in sorted(times)]
    inside = [scrape["t"] for scrape in around(kept, opened, opened + length)]
    between = [t for t, _ in kept if opened <= t < opened + length]
    assert inside and set(between) <= set(inside) and len(inside) <= len(between) + 2
    if kept[0][0] <= opened:
        assert inside[0] <= opened
    if kept[-1][0] >= opened + length:
        assert inside[-1] >= opened + length


def test_prefix_cache_counters() -> None:
    before = {'vllm:prefix_cache_queries_total{engine="0"}': 1000.0, 'vllm:prefix_cache_hits_total{engine="0"}': 900.0}
    after = {
        'vllm:prefix_cache_queries_total{engine="0"}': 3000.0,
        'vllm:prefix_cache_queries_total{engine="1"}': 1000.0,
        'vllm:prefix_cache_hits_total{engine="0"}': 1500.0,
        'vllm:prefix_cache_hits_total{engine="1"}': 0.0,
        "vllm:prompt_tokens_total": 5.0,
    }
    assert counters.hit_rate(before, after) == (600 / 3000, 600, 3000)
    assert counters.hit_rate({}, {}) == (None, None, None) and counters.hit_rate(after, after) == (None, 0, 0)
    assert counters.caches_prefixes(after) is None and counters.block_tokens(after) is None

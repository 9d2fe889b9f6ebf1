"""Endpoints one does not own, over real sockets: the null server is the remote endpoint, a plain HTTP server keeps its counters elsewhere."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from profiler import plan as planning
from profiler.cli import main as program
from profiler.engines import metrics_page, registry
from profiler.engines.protocol import RunningEngine
from profiler.errors import EngineError, SpecError
from profiler.spec import BackendSpec, SweepSpec, validate_spec

DEVICE = "NVIDIA H100 SXM"


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    options = {"ttft_ms": 4.0, "itl_ms": 1.0}
    raw = {"name": "n", "summary": "x", "engine": "null", "device": "cpu", "precision": "none", "options": options}
    spec, engine = validate_spec(raw, BackendSpec, "a test"), registry.get("null")
    with engine.start(engine.prepare(None, spec, print), spec, tmp_path_factory.mktemp("n") / "log", lambda line: None) as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """A text page at /metrics, a query API at /api/v1/query; `hits` grow by 30 of 100 queried with each look."""
    seen: list[tuple[str, dict[str, str]]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, dict(self.headers)))
            n = len(seen)
            if self.path.startswith("/api"):
                names = {"vllm:prefix_cache_hits_total": 30 * n, "vllm:prefix_cache_queries_total": 100 * n}
                result = [{"metric": {"__name__": k, "job": "vllm"}, "value": [1.0, str(v)]} for k, v in names.items()]
                body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})
            elif self.path == "/metrics":
                body = f"vllm:prefix_cache_hits_total {30 * n}\nvllm:prefix_cache_queries_total {100 * n}\n"
            else:
                body = "<html>hello</html>"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def sweep(tmp_path: Path, url: str, *extra: str, declared: str = "") -> list[dict[str, object]]:
    backend = tmp_path / "theirs.toml"
    backend.write_text(
        'summary = "theirs"\nengine = "openai"\ndevice = "remote"\nprecision = "as-served"\n' + f'[options]\nurl = "{url}"\n{declared}'
    )
    words = ["sweep", "--backend", str(backend), "--model", "null", "--isl", "16", "--osl", "8", "--concurrency", "1", "--requests", "8"]
    spec = ["--duration", "300ms", "--results", str(tmp_path / "results"), *extra]
    done = CliRunner().invoke(program.cli, [*words, *spec])
    assert done.exit_code == 0, done.output
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "results").glob("runs/*/*/run.json"))]


def test_flags_declare_and_the_clients_machine_is_not_the_servers(remote: RunningEngine, tmp_path: Path) -> None:
    flags = ["--device", DEVICE, "--device-count", "2", "--price-usd-per-hour", "2.5"]
    (document,) = sweep(tmp_path, remote.endpoint.url, *flags, declared='device = "something else"\n')
    run = document["run"]
    assert isinstance(run, dict)
    assert (run["device"], run["device_source"], run["device_count"]) == (DEVICE, "declared", 2)
    assert (run["price_usd_per_hour"], run["price_source"]) == (2.5, "declared")
    assert run["machine_id"] is None and document["provenance"]["machine_role"] == "client"  # type: ignore[index]
    page = (tmp_path / "results" / "report.html").read_text()
    assert f"{DEVICE} (declared, not observed)" in page


def test_undeclared_is_null(remote: RunningEngine, tmp_path: Path) -> None:
    (document,) = sweep(tmp_path, remote.endpoint.url)
    keys = ("device", "device_source", "device_count", "price_usd_per_hour", "price_source", "machine_id")
    assert [document["run"].get(key) for key in keys] == [None] * len(keys)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["/metrics", '/api/v1/query?query={job="vllm"}'])
def test_counters_come_from_elsewhere(
    remote: RunningEngine,
    elsewhere: tuple[str, list[tuple[str, dict[str, str]]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    base, seen = elsewhere
    (document,) = sweep(tmp_path, remote.endpoint.url, "--server-metrics", base + path)
    assert document["run"]["prefix_hit_rate"] == pytest.approx(0.3)  # type: ignore[index]
    assert len(seen) >= 3 and not any("s3cret" in str(headers) for _, headers in seen)


def test_a_price_does_not_make_another_cell_and_a_device_does() -> None:
    def cell_id(**declared: object) -> str:
        raw = {"url": "http://h/v1", "model": "m", "isl": 4, "osl": 4, "concurrency": [1], **declared}
        return planning.make(validate_spec(raw, SweepSpec, "a test")).cell_ids[0]

    assert cell_id() == cell_id(price_usd_per_hour=1.0) == cell_id(server_metrics="http://h/m") != cell_id(device="A")


BAD = [
    (["--price-usd-per-hour", "-1"], "price_usd_per_hour"),
    (["--price-usd-per-hour", "nan"], "price_usd_per_hour"),
    (["--device-count", "0"], "device_count"),
    (["--device", ""], "device"),
    (["--server-metrics", "prometheus:9090"], "server_metrics"),
]


@pytest.mark.parametrize(("words", "key"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_declarations_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], key: str) -> None:
    with pytest.raises(SystemExit) as stop:
        program.main(["sweep", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--isl", "4", "--osl", "4", "--dry-run", *words])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and key in err and "Traceback" not in err and err.count("error:") == 1


def test_a_backend_of_our_own_is_not_declared() -> None:
    with pytest.raises(SpecError, match="device: backend null is started here") as caught:
        planning.make(validate_spec({"backends": ["null"], "isl": 4, "osl": 4, "device": DEVICE}, SweepSpec, "a test"))
    assert "--device" in str(caught.value.hint)


def test_pages_that_are_none(elsewhere: tuple[str, list[tuple[str, dict[str, str]]]]) -> None:
    with pytest.raises(EngineError, match="no sample"):
        metrics_page.fetch(elsewhere[0] + "/hello")
    with pytest.raises(EngineError, match="nothing answers"):
        metrics_page.fetch("http://127.0.0.1:9/metrics")

"""`profile selftest`: on the null engine for real, on engines that break a rule, on a GPU that is a stand-in; and the records in docs/."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from profiler import catalog
from profiler.cli import main as program
from profiler.engines import registry
from profiler.engines.protocol import RunningEngine
from profiler.errors import EngineError
from profiler.selftest import contract, energy, load, record
from profiler.selftest.engines import check
from profiler.selftest.result import Result, not_run, of

ROOT = Path(__file__).resolve().parents[2]


class Board:
    """pynvml of one GPU whose power is a ramp, on a clock of its own; its counter is the ramp's exact integral, times `factor`."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, factor: float = 1.0) -> None:
        self.now, self.factor = 100.0, factor

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def module(self) -> types.ModuleType:
        found = types.ModuleType("pynvml")
        found.__dict__.update(
            NVMLError=self.NVMLError,
            nvmlInit=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlDeviceGetCount=lambda: 1,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetPowerUsage=lambda handle: round(1e3 * (50 + 10 * self.now)),
            nvmlDeviceGetTotalEnergyConsumption=lambda handle: round(1e3 * self.factor * (50 * self.now + 5 * self.now**2)),
        )
        return found


def on_board(board: Board, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setitem(sys.modules, "pynvml", board.module())
    (result,) = energy.check(2.0, clock=lambda: board.now, sleep=board.sleep)
    return result


def test_power_integrates_to_the_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    result = on_board(Board(), monkeypatch)
    assert result.status == "passed" and abs(result.figures["off_share"]) < 0.001


@pytest.mark.parametrize(("factor", "says"), [(1.25, "-20"), (0.0, "stood still")])
def test_a_counter_that_disagrees_fails(monkeypatch: pytest.MonkeyPatch, factor: float, says: str) -> None:
    result = on_board(Board(factor), monkeypatch)
    assert result.status == "failed" and says in str(result.reason)


def test_no_library_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    module = board.module()

    def missing() -> None:
        raise board.NVMLError("NVML Shared Library Not Found")

    module.__dict__["nvmlInit"] = missing
    monkeypatch.setitem(sys.modules, "pynvml", module)
    (result,) = energy.check(1.0)
    assert result.status == "not run" and "Shared Library" in str(result.reason)


@pytest.fixture(scope="module")
def null_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    engine, spec = registry.get("null"), catalog.backend("null")
    with engine.start(engine.prepare(None, spec, print), spec, tmp_path_factory.mktemp("n") / "log", lambda line: None) as running:
        yield running


def test_the_null_server_keeps_the_contract(null_server: RunningEngine) -> None:
    assert contract.check(null_server) == []


class Meddler:
    """The null server behind a proxy that spoils one thing in every answer."""

    def __init__(self, real: RunningEngine, old: bytes, new: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from profiler.engines import http_client

                asked = self.rfile.read(int(self.headers["Content-Length"]))
                status, body = http_client.request(real.endpoint, "POST", self.path, asked)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.replace(old, new))

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.running = types.SimpleNamespace(**{k: getattr(real, k) for k in ("start_id", "pid", "ready_s", "versions", "device_source")})
        self.running.endpoint = type(real.endpoint)("127.0.0.1", self.server.server_port, real.endpoint.model)
        self.running.alive, self.running.peak_memory_bytes = real.alive, real.peak_memory_bytes

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("token ids and usage agree", b'"prompt_tokens":4', b'"prompt_tokens":5'),
        ("the length is pinned", b'"completion_tokens":40', b'"completion_tokens":39'),
        ("wrong requests are told", b'"message"', b'"massage"'),
        ("token ids and usage agree", b"[DONE]", b"[GONE]"),
    ],
)
def test_a_broken_rule_is_found(null_server: RunningEngine, rule: str, old: bytes, new: bytes) -> None:
    meddler = Meddler(null_server, old, new)
    try:
        with pytest.raises((contract.Broken, KeyError, ValueError)):
            contract.RULES[rule](meddler.running)  # type: ignore[arg-type]
    finally:
        meddler.stop()


def ladder(tps: dict[int, float], errors: int = 0) -> Result:
    def at(users: int) -> dict[str, object]:
        return {"output_tps": tps[users], "ttft_p50_s": 0.1, "tpot_p50_s": 0.1, "n_requests": 9, "n_errors": errors}

    return load.knee(at, "knee x", lambda line: None)


def test_the_ladder_stops_where_throughput_does() -> None:
    result = ladder({1: 10, 2: 20, 4: 39, 8: 41, 16: 0})
    assert result.status == "passed" and result.figures["knee_users"] == 4 and len(result.figures["ladder"]) == 4


def test_a_ladder_without_an_end_or_with_errors_fails() -> None:
    endless = ladder({2**k: 10.0 * 2**k for k in range(12)})
    assert endless.status == "failed" and "still rises" in str(endless.reason)
    assert ladder({1: 10}, errors=1).status == "failed"


def test_an_engine_that_cannot_start_fails_every_check_and_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise EngineError("it cannot", hint="buy one")

    monkeypatch.setattr(type(registry.get("null")), "prepare", broken)
    results = list(check(catalog.backend("null"), None, tmp_path, 1.0, True, lambda line: None, ()))
    assert [r.name.split()[0] for r in results] == ["contract", "knee", "starts", "stop"]
    assert all(r.status == "failed" and r.reason == "it cannot" for r in results)


def test_selftest_on_the_null_engine(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    done = CliRunner().invoke(program.cli, ["selftest", "--engine", "null", "--quick", "--out", str(out), "--json"])
    made = json.loads(out.read_text())
    assert json.loads(done.stdout) == made
    status = {c["name"]: c["status"] for c in made["checks"]}
    assert {"calibration", "contract null", "knee null", "starts null", "stop null"} <= set(status)
    assert status["contract null"] == status["starts null"] == status["stop null"] == "passed", done.output
    assert done.exit_code == (1 if "failed" in status.values() else 0)
    text = out.read_text()
    assert str(Path.home()) + "/" not in text and str(tmp_path) not in text and str(ROOT) not in text


def test_an_unknown_engine_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        program.main(["selftest", "--engine", "openvin"])
    assert stop.value.code == 2 and "did you mean 'openvino'" in capsys.readouterr().err


def test_one_failure_fails_and_not_run_does_not() -> None:
    assert record.verdict([of("a", []), not_run("b", "no GPU")]) == "passed"
    assert record.verdict([of("a", []), of("b", ["x"])]) == "failed"


def test_docs_list_the_records_and_no_record_shows_a_host() -> None:
    page = (ROOT / "docs" / "verified.md").read_text()
    assert record.table(ROOT / "docs" / "verified") in page
    for path in (ROOT / "docs" / "verified").glob("*.json"):
        assert not [word for word in ("/work", "/tmp", "/root", "/home") if word in path.read_text()]

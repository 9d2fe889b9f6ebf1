"""Meters outside this program: an exporter and a Prometheus server that really answer, CSV files, and each way they can be wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from profiler.analyse import energy
from profiler.errors import SpecError
from profiler.machine.telemetry import meter as outside
from profiler.machine.telemetry import recording as module
from profiler.machine.telemetry.exporter import parse
from profiler.machine.telemetry.source import Absent
from profiler.spec import MeterSpec, SweepSpec, validate_spec

W = 250.0
# As DCGM's exporter writes it.
DCGM = """# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",modelName="NVIDIA H100, 80GB",Hostname="n1"} 250.5
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-b",modelName="NVIDIA H100, 80GB",Hostname="n1"} 90
DCGM_FI_DEV_POWER_USAGE{gpu="2",UUID="GPU-c",modelName="x",Hostname="n2"} NaN
DCGM_FI_DEV_GPU_TEMP{gpu="0"} 60
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/metrics":  # an energy counter in mJ, as DCGM's
            text = f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0"}} {W * time.monotonic() * 1e3:.3f}\nother 1\n'
        elif url.path == "/api/v1/query":
            asked = parse_qs(url.query)
            self.server.asked.append(asked["query"][0])  # type: ignore[attr-defined]
            until = float(asked["time"][0])
            values = [[until - k * 0.25, str(W)] for k in range(400, -1, -1)]
            text = json.dumps(
                {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"outlet": "3"}, "values": values}]}}
            )
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def url_of(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def recorded(folder: Path, meter: MeterSpec, monkeypatch: pytest.MonkeyPatch) -> tuple[energy.Telemetry, int, int]:
    monkeypatch.setattr(module, "IDLE_S", 0.5)
    folder.mkdir()
    with module.recording(folder, (), 0.05, meter):
        begin = time.monotonic_ns()
        time.sleep(1.0)
        end = time.monotonic_ns()
    telemetry = energy.load(folder / "telemetry.parquet")
    assert telemetry is not None
    return telemetry, begin, end


def test_an_exporter_is_scraped_through_the_run(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = MeterSpec(scope="gpu_board", url=f"{url_of(server)}/metrics", metric="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")
    telemetry, begin, end = recorded(tmp_path / "run", meter, monkeypatch)
    row, _ = energy.columns(telemetry, begin, end, "remote", False, 10.0, 1.0)
    assert row["energy_source"] == "meter counter" and row["energy_scope"] == "gpu_board", row["energy_reason"]
    # A busy machine puts some 10 ms between the exporter's reading and the sample's stamp, on a window of a second.
    assert row["energy_j"] == pytest.approx(W * (end - begin) / 1e9, rel=0.05)
    assert row["idle_power_w"] == pytest.approx(W, rel=0.05)


def test_a_prometheus_server_is_asked_after_the_run_and_joined_by_clock(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = MeterSpec(scope="wall", url=url_of(server), metric="pdu_watts", labels={"outlet": "3"})
    telemetry, begin, end = recorded(tmp_path / "run", meter, monkeypatch)
    row, _ = energy.columns(telemetry, begin, end, "cpu", True, 10.0, 1.0)
    assert row["energy_scope"] == "wall" and row["energy_j"] == pytest.approx(W * (end - begin) / 1e9, rel=0.01), row["energy_reason"]
    assert server.asked[0].startswith('pdu_watts{outlet="3"}[')


@pytest.mark.parametrize("iso", [True, False])
def test_a_csv_is_joined_by_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iso: bool) -> None:
    path = tmp_path / "watts.csv"
    now = time.time()
    # 100 W before, 300 W from 5 s before now on: a reading joined at the wrong time gives another energy.
    times = [now - 30 + k * 0.25 for k in range(600)]
    rows = [f"{datetime.fromtimestamp(t, UTC).isoformat() if iso else t},{100 if t < now - 5 else 300}" for t in times]
    path.write_text("time,watts\n" + "\n".join(rows) + "\n")
    # A logger that writes ahead does not exist; here it spares the test a thread. What lies past the end of the run is left out.
    telemetry, begin, end = recorded(tmp_path / "run", MeterSpec(scope="wall", csv=str(path)), monkeypatch)
    row, _ = energy.columns(telemetry, begin, end, "cpu", True, 10.0, 1.0)
    assert row["energy_j"] == pytest.approx(300 * (end - begin) / 1e9, rel=0.01), row["energy_reason"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("when,power\n1,2\n", "must name the columns time and watts"),
        ("time,watts\n5,100\n", "no readings of the time of this run"),
        ("time,watts\nyesterday,100\n", "yesterday"),
        (None, "cannot be read"),
    ],
)
def test_a_csv_that_does_not_do_says_why(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "watts.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Absent, match=says):
        outside.read(MeterSpec(scope="wall", csv=str(path)), time.time() - 10, time.time())


def test_a_meter_that_is_not_there_is_null_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:9/metrics", "http://127.0.0.1:9"):
        telemetry, begin, end = recorded(tmp_path / str(len(url)), MeterSpec(scope="wall", url=url, metric="watts"), monkeypatch)
        row, _ = energy.columns(telemetry, begin, end, "cpu", True, 10.0, 1.0)
        assert row["energy_j"] is None and "did not answer" in row["energy_reason"], row


def test_prometheus_text_is_read_by_name_and_labels() -> None:
    assert parse(DCGM, "DCGM_FI_DEV_POWER_USAGE", {}) == [("gpu=0", 250.5), ("gpu=1", 90.0)]
    assert parse(DCGM, "DCGM_FI_DEV_POWER_USAGE", {"UUID": "GPU-b"}) == [("gpu=1", 90.0)]
    assert parse(DCGM, "DCGM_FI_DEV_POWER", {}) == []


@pytest.mark.parametrize(
    ("meter", "says"),
    [
        ({"scope": "wall"}, "either a url or a csv"),
        ({"scope": "wall", "url": "http://x"}, "url and metric go together"),
        ({"scope": "wall", "url": "x:9", "metric": "w"}, "must begin with http"),
        ({"csv": "a.csv"}, "missing"),
        ({"scope": "room", "csv": "a.csv"}, "gpu_board"),
    ],
)
def test_a_meter_in_a_sweep_is_checked(meter: dict[str, str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        validate_spec({"name": "s", "meter": meter}, SweepSpec, "sweep.toml")

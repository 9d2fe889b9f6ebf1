"""A meter outside this program whose readings are read after the run and joined by wall clock: a Prometheus server, or a CSV file."""

from __future__ import annotations

import csv
import json
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiler.machine.telemetry.exporter import KNOWN, device_of
from profiler.machine.telemetry.source import Absent
from profiler.spec import MeterSpec

TIMEOUT_S = 10.0
Row = tuple[float, str, str, float]  # wall time in s since the epoch, device, metric, value


def is_exporter(meter: MeterSpec) -> bool:
    """Whether the URL shows readings as they are now, to be scraped through the run; else it is a Prometheus server that remembers."""
    return meter.url is not None and urllib.parse.urlsplit(meter.url).path.rstrip("/").endswith("/metrics")


def unit(meter: MeterSpec) -> tuple[str, float]:
    """("power" | "energy", what one unit is in W or J)."""
    kind, scale = KNOWN.get(meter.metric or "", ("power", 1.0))
    return meter.kind or kind, scale if meter.scale is None else meter.scale


def read(meter: MeterSpec, since_s: float, until_s: float) -> list[Row]:
    """Its readings between two wall times. Raises Absent."""
    kind, scale = unit(meter)
    metric = "energy_j" if kind == "energy" else "power_w"
    found = _csv(Path(meter.csv)) if meter.csv is not None else _prometheus(meter, since_s, until_s)
    rows = [(t, device, metric, value * scale) for t, device, value in found if since_s <= t <= until_s]
    if not rows:
        raise Absent(f"meter: {meter.csv or meter.url} has no readings of the time of this run; are both clocks set (UTC)?")
    return rows


def _prometheus(meter: MeterSpec, since_s: float, until_s: float) -> list[tuple[float, str, float]]:
    """The raw samples, with the times at which they were scraped: an instant query with a range selector (Prometheus HTTP API)."""
    labels = ",".join(f'{key}="{value}"' for key, value in meter.labels.items())
    query = f"{meter.metric}{{{labels}}}[{max(1, int(until_s - since_s) + 1)}s]"
    url = f"{str(meter.url).rstrip('/')}/api/v1/query?" + urllib.parse.urlencode({"query": query, "time": f"{until_s:.3f}"})
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            series: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Absent(f"meter: {meter.url} did not answer as a Prometheus server does: {reason}") from None
    return [(float(t), device_of(one["metric"]), float(value)) for one in series for t, value in one["values"]]


def _csv(path: Path) -> list[tuple[float, str, float]]:
    """Columns `time` (seconds since the epoch, or ISO 8601; UTC where it has no zone) and `watts`; `device` if there are several."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            if not {"time", "watts"} <= set(table.fieldnames or ()):
                raise Absent(f"meter: {path}: its first line must name the columns time and watts")
            return [(_time(row["time"]), row.get("device") or "meter", float(row["watts"])) for row in table]
    except OSError as error:
        raise Absent(f"meter: {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise Absent(f"meter: {path}: {error}") from None


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

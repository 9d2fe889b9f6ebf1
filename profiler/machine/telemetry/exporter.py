"""A meter that shows its readings as Prometheus text at a URL, such as DCGM's exporter: scraped at the sampler's own period."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping

from profiler.machine.telemetry.source import Absent, Reading

TIMEOUT_S = 2.0
# Prometheus text exposition format 0.0.4: name{label="value",...} number [time].
_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
# DCGM's exporter, file default-counters.csv: power in W, energy in mJ since boot.
KNOWN = {"DCGM_FI_DEV_POWER_USAGE": ("power", 1.0), "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("energy", 1e-3)}
TARGET_LABELS = ("gpu", "UUID", "device", "outlet", "instance")  # the first of these names the device


class Exporter:
    """Readings of `metric` whose labels are at least `labels`; times `scale` they are W, or J of a counter. Raises Absent."""

    name = "meter"

    def __init__(self, url: str, metric: str, kind: str, scale: float, labels: Mapping[str, str]) -> None:
        self._url, self._metric, self._labels, self._scale = url, metric, labels, scale
        self._as = "energy_j" if kind == "energy" else "power_w"
        self.missing: dict[str, str] = {}
        if not self._scrape():
            raise Absent(f"meter: {url} shows no {metric}" + (f" with {dict(labels)}" if labels else ""))

    def _scrape(self) -> list[tuple[str, float]]:
        try:
            with urllib.request.urlopen(self._url, timeout=TIMEOUT_S) as answer:
                return parse(answer.read().decode("utf-8", "replace"), self._metric, self._labels)
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise Absent(f"meter: {self._url} did not answer: {reason}") from None

    def sample(self, t_ns: int) -> Iterable[Reading]:
        try:
            found = self._scrape()
        except Absent as why:
            self.missing["scrape"] = str(why)  # this once: a gap is judged when the energy is added up
            return
        for device, value in found:
            yield device, self._as, value * self._scale

    def close(self) -> None:
        pass


def parse(text: str, metric: str, labels: Mapping[str, str]) -> list[tuple[str, float]]:
    """(device, value) of each sample of `metric` that has these labels; NaN left out."""
    found: list[tuple[str, float]] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match[1] != metric:
            continue
        own = dict(_LABEL.findall(match[2] or ""))
        try:
            value = float(match[3])
        except ValueError:
            continue
        if value == value and all(own.get(key) == wanted for key, wanted in labels.items()):
            found.append((device_of(own), value))
    return found


def device_of(labels: Mapping[str, str]) -> str:
    return next((f"{key}={labels[key]}" for key in TARGET_LABELS if key in labels), "meter")

"""How far the client's times are off on this machine, by token rate: measured against the paced server, kept in the cache.

Later runs on the same machine carry the error bar of their own token rate: `error_bar(load_curve(machine_id), tokens_per_s)`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from profiler import __version__, environments
from profiler.errors import StoreError
from profiler.run import oracle
from profiler.run.burner import burning

Beside = Literal["idle", "busy"]

STREAMS = (1, 5, 16, 64, 256, 1000)  # at 128 tokens, 50 ms and 10 ms: 97 to 97,000 tokens/s
QUICK_STREAMS = (5, 64, 1000)
WINDOW_S, QUICK_WINDOW_S = 4.0, 2.6
VERSION = 1  # of the file


@dataclass(frozen=True)
class Point:
    beside: Beside  # "busy": with a burner on every core
    checked: oracle.Checked


@dataclass(frozen=True)
class Curve:
    machine_id: str
    measured_at: str  # UTC, ISO 8601
    profiler_version: str
    pace: oracle.Pace
    points: tuple[Point, ...]


@dataclass(frozen=True)
class ErrorBar:
    """What the client itself may add to a time, at some token rate. `beyond`: the rate is above any that was calibrated.

    TTFT errors are of a single request (99 in 100 are below), the gap's of a request's mean gap, s. `kept`: share of a closed loop's
    ideal rate that was reached at the calibrated load (1 is all).
    """

    ttft_s: float
    itl_s: float
    kept: float
    tokens_per_s: float  # of the calibrated load it is from
    beside: Beside
    beyond: bool


def calibrate(
    machine_id: str,
    streams: Sequence[int] = STREAMS,
    window_s: float = WINDOW_S,
    on_point: Callable[[Point], None] | None = None,
) -> Curve:
    """Measure the curve: every load with idle cores, then beside a burner. Raises EnvironmentError_, EngineError, LoadError."""
    pace = oracle.Pace()
    points = []
    for beside in ("idle", "busy"):
        with burning(len(os.sched_getaffinity(0)) if beside == "busy" else 0):
            for n in streams:
                with tempfile.TemporaryDirectory(prefix="slm-calibrate-") as folder:
                    point = Point(beside, oracle.check(oracle.closed(n, pace, window_s), pace, Path(folder)))
                points.append(point)
                if on_point is not None:
                    on_point(point)
    return Curve(machine_id, datetime.now(UTC).isoformat(timespec="seconds"), __version__, pace, tuple(points))


def error_bar(curve: Curve, tokens_per_s: float) -> ErrorBar:
    """The error bar of a run that received `tokens_per_s`.

    Of each of the two curves (idle, busy) the two loads around that rate are taken, at its ends the nearest one, and of all of them the
    worst of each figure: between two measured loads nothing better is known. A busy machine that did not reach the rate lends the
    highest load it did reach.
    """
    around = [point for beside in ("idle", "busy") for point in _around([p for p in curve.points if p.beside == beside], tokens_per_s)]
    worst = max(around, key=lambda p: _ttft(p.checked))
    return ErrorBar(
        ttft_s=_ttft(worst.checked),
        itl_s=max(p.checked.itl_error_p99_s or 0.0 for p in around),
        kept=min(p.checked.kept for p in around),
        tokens_per_s=worst.checked.tokens_per_s,
        beside=worst.beside,
        beyond=tokens_per_s > max(p.checked.tokens_per_s for p in curve.points),
    )


def _around(points: Sequence[Point], tokens_per_s: float) -> list[Point]:
    ordered = sorted(points, key=lambda p: p.checked.tokens_per_s)
    below = [p for p in ordered if p.checked.tokens_per_s <= tokens_per_s][-1:]
    above = [p for p in ordered if p.checked.tokens_per_s > tokens_per_s][:1]
    return below + above


def _ttft(checked: oracle.Checked) -> float:
    return max(abs(checked.ttft_error_p50_s or 0.0), abs(checked.ttft_error_p99_s or 0.0))


def curve_path(machine_id: str) -> Path:
    return environments.cache_root() / "calibration" / f"{machine_id}.json"


def save(curve: Curve, path: Path) -> None:
    """Whole or not at all. Raises StoreError."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps({"version": VERSION, **asdict(curve)}, indent=1) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}", hint="name another file with --out, or set SLM_PROFILER_CACHE") from error


def load_curve(machine_id: str) -> Curve | None:
    """What was measured on this machine; None where nothing was, or by a version of this program that kept other figures."""
    try:
        raw: dict[str, Any] = json.loads(curve_path(machine_id).read_text(encoding="utf-8"))
        if raw.pop("version") != VERSION:
            return None
        points = tuple(Point(p["beside"], oracle.Checked(**p["checked"])) for p in raw["points"])
        return Curve(**{**raw, "pace": oracle.Pace(**raw["pace"]), "points": points}) if points else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

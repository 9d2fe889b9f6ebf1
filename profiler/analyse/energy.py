"""Energy of a run's window, by scope, from its telemetry: docs/telemetry.md.

A counter is read off at the window's edges (linear between its samples); power without a counter is integrated by trapezoids. What one
part of a scope did not tell makes the whole scope NULL with the reason: half a machine's energy is nobody's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from profiler.units import NS_PER_S

Scope = Literal["gpu_board", "cpu_package", "dram", "host", "wall"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
METADATA = b"slm_profiler_telemetry"
# Power readings may lie this far apart, or three times their own median gap, before the time between them counts as not measured.
MAX_GAP_S = 5.0
NOT_OURS = "the endpoint is not ours: this machine's sensors do not see the server; a meter that does can be joined (meter in the sweep)"

Series = Sequence[tuple[int, float]]  # (CLOCK_MONOTONIC ns, value), sorted


@dataclass(frozen=True)
class Energy:
    """Of one scope by one source over the window. `energy_j` None: `reason` says why."""

    scope: Scope
    source: str
    devices: tuple[str, ...] = ()
    energy_j: float | None = None
    power_mean_w: float | None = None
    idle_power_w: float | None = None  # before the load, engine ready
    method: str | None = None  # "counter" | "power"
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Telemetry:
    """telemetry.parquet in memory: (source, device, metric) -> series, and what its metadata says."""

    series: Mapping[tuple[str, str, str], Series]
    period_s: float | None = None
    idle_ns: tuple[int, int] | None = None
    missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    meter_scope: Scope | None = None


def load(path: Path) -> Telemetry | None:
    """None where there is no such file, or none that can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    series: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    names = ("source", "device", "metric", "t_ns", "value")
    for source, device, metric, t_ns, value in zip(*(table[name].to_pylist() for name in names), strict=True):
        series.setdefault((source, device, metric), []).append((t_ns, value))
    facts = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
    idle = facts.get("idle_ns")
    return Telemetry(
        {key: sorted(points) for key, points in series.items()},
        facts.get("period_s"),
        (idle[0], idle[1]) if idle else None,
        facts.get("missing", {}),
        facts.get("meter_scope"),
    )


def columns(
    telemetry: Telemetry | None, open_ns: int, close_ns: int, device: str, owned: bool, output_tokens: float | None, requests: float | None
) -> tuple[dict[str, Any], list[Energy]]:
    """The energy columns of `runs`, and a row per scope and source. `device`: the backend's (cpu | cuda | remote).

    The run's own scope is that of a joined meter, else the device's: gpu_board, or cpu_package. `output_tokens` and `requests` are those of
    the window.
    """
    if telemetry is None:
        return {"energy_reason": "no telemetry was recorded"}, []
    found = by_scope(telemetry, open_ns, close_ns, owned)
    main = _main(found, device, telemetry.meter_scope)
    columns: dict[str, Any] = {f"energy_{scope}_j": _best(found, scope).energy_j for scope in SCOPES}
    columns |= {
        "energy_j": main.energy_j,
        "energy_scope": main.scope if main.energy_j is not None else None,
        "energy_reason": main.reason,
        "energy_source": f"{main.source} {main.method}" if main.energy_j is not None else None,
        "power_mean_w": main.power_mean_w,
        "idle_power_w": main.idle_power_w,
        "energy_per_output_token_j": _per(main.energy_j, output_tokens),
        "energy_per_request_j": _per(main.energy_j, requests),
        "telemetry_period_s": telemetry.period_s,
        "telemetry_cpu_cores": _rate(telemetry.series.get(("sampler", "sampler", "cpu_s"), ()), open_ns, close_ns),
    }
    return columns, found


def by_scope(telemetry: Telemetry, open_ns: int, close_ns: int, owned: bool = True) -> list[Energy]:
    """One row per scope and source, measured or with its reason. `owned`: the engine runs on this machine."""
    found = []
    for source, scope, prefix in (
        ("nvml", "gpu_board", "gpu"),
        ("amdsmi", "gpu_board", "gpu"),
        ("rapl", "cpu_package", "package"),
        ("rapl", "dram", "dram"),
        ("rapl", "host", "psys"),
    ):
        if owned:
            found.append(_scope(telemetry, source, scope, prefix, open_ns, close_ns))  # type: ignore[arg-type]
        else:
            found.append(Energy(scope, source, reason=NOT_OURS))  # type: ignore[arg-type]
    if telemetry.meter_scope is not None:
        found.append(_scope(telemetry, "meter", telemetry.meter_scope, "", open_ns, close_ns))
    return found


def _scope(telemetry: Telemetry, source: str, scope: Scope, prefix: str, open_ns: int, close_ns: int) -> Energy:
    """All devices of a source that belong to a scope, added up."""
    empty = Energy(scope, source)
    missing = telemetry.missing.get(source, {})
    devices = _devices(telemetry, source, prefix)
    # A package, DRAM or board that could not be read is not replaced by the others.
    gone = [why for key, why in missing.items() if " " not in key and key.startswith(prefix) and key not in ("", "scrape")]
    if not devices or (prefix and gone):
        reason = (
            missing.get("") or next(iter(gone), None) or _unread(missing, prefix) or _sampler(telemetry) or f"{source}: no such reading"
        )
        return replace(empty, reason=reason)
    parts = [_device(telemetry, source, device, open_ns, close_ns) for device in devices]
    empty = replace(empty, devices=tuple(devices))
    if (bad := next((part.reason for part in parts if part.energy_j is None), None)) is not None:
        return replace(empty, reason=bad)
    idle = [part.idle_power_w for part in parts]
    total = sum(part.energy_j or 0.0 for part in parts)
    return replace(
        empty,
        energy_j=total,
        power_mean_w=total * NS_PER_S / (close_ns - open_ns),
        idle_power_w=None if None in idle else sum(value or 0.0 for value in idle),
        method=", ".join(dict.fromkeys(str(part.method) for part in parts)),
    )


def _devices(telemetry: Telemetry, source: str, prefix: str) -> list[str]:
    """Those with energy or power; of several GPUs the ones on which the engine has memory, where the driver tells."""
    of_source = [(device, metric) for name, device, metric in telemetry.series if name == source and device.startswith(prefix)]
    powered = sorted({device for device, metric in of_source if metric in ("energy_j", "power_w")})
    used = sorted({device for device, metric in of_source if metric == "engine_memory_bytes"})
    return used or powered


def _device(telemetry: Telemetry, source: str, device: str, open_ns: int, close_ns: int) -> Energy:
    counter, power = (telemetry.series.get((source, device, metric), ()) for metric in ("energy_j", "power_w"))
    missing = telemetry.missing.get(source, {})
    part = Energy("host", source)  # the scope is the caller's
    reason = missing.get(f"{device} power_w") or missing.get(f"{device} energy_j") or f"{source}: {device} told no energy and no power"
    for series, method, add_up in ((counter, "counter", counted), (power, "power", integrated)):
        if not series:
            continue
        energy_j, why = add_up(series, open_ns, close_ns)
        if energy_j is not None:
            idle_j = add_up(series, *telemetry.idle_ns)[0] if telemetry.idle_ns else None
            idle_w = _per(idle_j, (telemetry.idle_ns[1] - telemetry.idle_ns[0]) / NS_PER_S) if telemetry.idle_ns else None
            return replace(part, energy_j=energy_j, idle_power_w=idle_w, method=method)
        reason = f"{source}: {device}: {why}"
        if missing.get("scrape"):
            reason += f" ({missing['scrape']})"
    return replace(part, reason=reason)


def counted(series: Series, open_ns: int, close_ns: int) -> tuple[float | None, str | None]:
    """J of a growing counter over [open, close), linear between samples; or None and why."""
    if any(b < a for (_, a), (_, b) in pairwise(series)):
        return None, "its energy counter went back (a reset of the device or its driver)"
    if not series or series[0][0] > open_ns or series[-1][0] < close_ns:
        return None, "its energy counter was not read on both sides of the window"
    return at(series, close_ns) - at(series, open_ns), None


def integrated(series: Series, open_ns: int, close_ns: int) -> tuple[float | None, str | None]:
    """J of power readings over [open, close) by trapezoids; the outermost readings hold for one gap beyond; or None and why."""
    if len(series) < 2:
        return None, "fewer than two power readings"
    usual_ns = median(b - a for (a, _), (b, _) in pairwise(series))
    if series[0][0] - usual_ns > open_ns or series[-1][0] + usual_ns < close_ns:
        return None, "its power readings do not span the window"
    longest_ns = max(3 * usual_ns, MAX_GAP_S * NS_PER_S)
    near = [(a, b) for (a, _), (b, _) in pairwise(series) if b > open_ns and a < close_ns]
    if (gap_ns := max((b - a for a, b in near), default=0)) > longest_ns:
        return None, f"no power reading for {gap_ns / NS_PER_S:.1f} s of the window"
    inside = [(t, value) for t, value in series if open_ns < t < close_ns]
    points = [(open_ns, at(series, open_ns)), *inside, (close_ns, at(series, close_ns))]
    return sum((v + w) / 2 * (u - t) for (t, v), (u, w) in pairwise(points)) / NS_PER_S, None


def at(series: Series, t_ns: int) -> float:
    """Linear between the samples around `t_ns`; the outermost sample beyond the ends."""
    before = [point for point in series if point[0] <= t_ns]
    after = [point for point in series if point[0] > t_ns]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (t, v), (u, w) = before[-1], after[0]
    return v + (w - v) * (t_ns - t) / (u - t)


def _rate(series: Series, open_ns: int, close_ns: int) -> float | None:
    grown = counted(series, open_ns, close_ns)[0]
    return _per(grown, (close_ns - open_ns) / NS_PER_S)


def _main(found: Sequence[Energy], device: str, meter_scope: Scope | None) -> Energy:
    if meter_scope is not None:
        return next(row for row in found if row.source == "meter")
    return _best(found, "cpu_package" if device == "cpu" else "gpu_board")


def _best(found: Sequence[Energy], scope: Scope) -> Energy:
    """Of several sources of a scope: the meter the user joined, then whichever measured; else the first one's reason."""
    rows = sorted((row for row in found if row.scope == scope), key=lambda row: (row.energy_j is None, row.source != "meter"))
    return rows[0] if rows else Energy(scope, "none", reason=f"nothing measures {scope}")


def _unread(missing: Mapping[str, str], prefix: str) -> str | None:
    """Why no device of this kind told its energy: `gpu0 power_w` -> reason."""
    return next((why for key, why in missing.items() if key.startswith(prefix) and key.endswith((" power_w", " energy_j"))), None)


def _sampler(telemetry: Telemetry) -> str | None:
    return telemetry.missing.get("sampler", {}).get("")


def _per(energy_j: float | None, count: float | None) -> float | None:
    return energy_j / count if energy_j is not None and count else None

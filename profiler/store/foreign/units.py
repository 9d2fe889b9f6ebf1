"""Units of foreign tables: factors to ours, and figures or headers that look as if the unit were another one."""

from __future__ import annotations

import re
from collections.abc import Mapping

KINDS: dict[str, dict[str, float]] = {
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0},
    "rate": {"1/s": 1.0, "requests/s": 1.0, "samples/s": 1.0, "1/min": 1 / 60},
    "tokens rate": {"tokens/s": 1.0, "tokens/min": 1 / 60},
    "tokens": {"tokens": 1.0},
    "count": {"count": 1.0, "users": 1.0, "requests": 1.0},
    "power": {"W": 1.0, "mW": 1e-3, "kW": 1e3},
    "energy": {"J": 1.0, "mJ": 1e-3, "Wh": 3600.0, "kWh": 3.6e6},
    "price": {"USD/h": 1.0},
    "bytes": {"bytes": 1.0, "MB": 1e6, "GB": 1e9, "MiB": float(1 << 20), "GiB": float(1 << 30)},
}
# How headers spell units, lower case. "s" and "w" alone are words of too many headers to mean anything outside of brackets.
_SPELT = {
    "ms": "ms", "msec": "ms", "us": "us", "µs": "us", "ns": "ns", "sec": "s", "seconds": "s", "milliseconds": "ms", "s": "s",
    "mw": "mW", "milliwatt": "mW", "milliwatts": "mW", "watt": "W", "watts": "W", "w": "W", "kw": "kW", "kwh": "kWh",
    "samples/s": "samples/s", "samples/sec": "samples/s", "req/s": "requests/s", "requests/s": "requests/s", "qps": "requests/s",
    "tokens/s": "tokens/s", "tok/s": "tokens/s", "tps": "tokens/s", "token/s": "tokens/s", "tokens/min": "tokens/min",
}  # fmt: skip
LEAST_TOKENS = 2.0  # per request; below, a "tokens/s" column counts something else
MOST_POWER_W = 20_000.0  # of one node; beyond, the figure is in milliwatts
TPOT_S = (1e-5, 30.0)  # 100,000 tokens/s for one user, and half a minute for a token: beyond, the time has another unit
TTFT_S = (1e-4, 3600.0)


def kind_of(unit: str) -> str | None:
    return next((kind for kind, units in KINDS.items() if unit in units), None)


def factor(unit: str) -> float:
    return next(units[unit] for units in KINDS.values() if unit in units)


def spelt_in(header: str) -> str | None:
    """The unit that a header names: in brackets, or as its last word of more than one letter; None where it names none."""
    inside = re.findall(r"[\[(]([^\])]+)[\])]", header)
    for text in inside:
        if (unit := _SPELT.get(text.strip().lower())) is not None:
            return unit
    last = re.split(r"[\s_]+", re.sub(r"[\[(].*", "", header).strip().lower())[-1]
    return _SPELT.get(last) if len(last) > 1 else None


def header_flag(header: str, unit: str | None) -> str | None:
    """The header says another unit than the mapping."""
    spelt = spelt_in(header)
    if spelt is None or unit is None or spelt == unit or {spelt, unit} <= {"1/s", "requests/s"}:
        return None
    return f"column {header!r}: its header says {spelt}, the mapping says {unit}"


def value_flags(run: Mapping[str, object]) -> list[str]:
    """What of a row's figures, in our units, looks as if the unit were another one."""

    def number(name: str) -> float | None:
        value = run.get(name)
        return float(value) if isinstance(value, int | float) else None

    flags = []
    for name in (n for n in run if n.startswith("tpot_")):
        if (value := number(name)) is not None and value and not TPOT_S[0] <= value <= TPOT_S[1]:
            flags.append(f"{name} = {value:g} s: not a time per token; is its unit right?")
    for name in (n for n in run if n.startswith(("ttft_", "e2e_"))):
        if (value := number(name)) is not None and value and not TTFT_S[0] <= value <= TTFT_S[1]:
            flags.append(f"{name} = {value:g} s: not a waiting time; is its unit right?")
    power = number("power_mean_w")
    if power is not None and power > MOST_POWER_W:
        flags.append(f"power_mean_w = {power:g} W: more than a node draws; milliwatts?")
    rate = number("request_rate")
    users = number("load") if run.get("load_kind") == "concurrency" else None
    for name in ("output_tps", "total_tps", "imported_tps"):
        tps = number(name)
        if tps is None or tps <= 0:
            continue
        if rate is not None and rate > 0 and tps / rate < LEAST_TOKENS:
            flags.append(f"{name} = {tps:g} tokens/s at {rate:g} requests/s: {tps / rate:.2g} tokens a request; samples/s?")
        tpot = number("tpot_mean_s")
        if users and tpot and tps < users / tpot / 20:
            flags.append(f"{name} = {tps:g} tokens/s, {users:g} users at {tpot:g} s a token make {users / tpot:.3g}; samples/s?")
    return flags

"""One internal unit per quantity (seconds, bytes, tokens, USD, watts, joules); formatting only at the edge."""

from __future__ import annotations

import re

NS_PER_S = 1_000_000_000

# Multipliers to the internal unit. Binary prefixes for memory, as engines report it.
DURATION_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
SIZE_BYTES = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Zµ]+)\s*$")


def parse_duration_s(text: str) -> float:
    """`"500ms"`, `"1.5 s"`, `"2min"` to seconds. Raises ValueError that says which units exist."""
    return _parse(text, DURATION_S, "a duration such as 500ms, 1.5s, 2min")


def parse_size_bytes(text: str) -> int:
    """`"4GiB"`, `"512MiB"` to bytes. Raises ValueError that says which units exist."""
    return int(_parse(text, {k: float(v) for k, v in SIZE_BYTES.items()}, "a size such as 512MiB or 4GiB"))


def _parse(text: str, factors: dict[str, float], example: str) -> float:
    match = _QUANTITY.match(text)
    factor = factors.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not {example}")
    return float(match.group(1)) * factor


def format_duration(seconds: float | None) -> str:
    """Seconds as people read them: `850 µs`, `42.1 ms`, `1.23 s`, `4 min 05 s`; `—` for None."""
    if seconds is None:
        return "—"
    if seconds >= 120:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e6:.0f} µs"


def format_size(size_bytes: float | None) -> str:
    """Bytes with a binary prefix, `—` for None."""
    if size_bytes is None:
        return "—"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024 or unit == "GiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError("unreachable")


def load_label(kind: str, load: float, how: str = "poisson") -> str:
    """`4 users`, `2/s Poisson`, `0.5/s trace conv.csv x0.1`, as tables and progress lines name a load."""
    if kind == "concurrency":
        pauses_too = how.removeprefix("closed") if how.startswith("closed") else ""
        return f"{load:g} user{'s' if load != 1 else ''}{pauses_too}"
    return f"{load:.3g}/s {'Poisson' if how == 'poisson' else how}"

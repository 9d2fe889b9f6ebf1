"""CO2 of 1,000 requests: measured energy x the intensity of a grid. No energy measured, no figure; a maker's TDP is never used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.errors import SpecError

EXAMPLE = '380 g/kWh 2024 "who says so"'
HIGHEST = 2000.0  # g/kWh: above every grid; coal alone is about 1,000


@dataclass(frozen=True)
class Grid:
    """`g_per_kwh`: CO2 or CO2 equivalents, as `source` counts them, in the year or month `as_of`."""

    g_per_kwh: float
    as_of: str
    source: str


@dataclass(frozen=True)
class Carbon:
    """Over the valid runs with measured energy, of lowest and highest: kWh and kg per 1,000 requests. `pue` None: without the building."""

    kwh_lo: float
    kwh_hi: float
    kg_lo: float
    kg_hi: float
    scope: str
    pue: float | None
    grid: Grid

    @property
    def words(self) -> str:
        building = f", PUE {self.pue:g}" if self.pue is not None else ", without the building (no pue)"
        value = f"{self.kg_lo:.3g}" if self.kg_hi <= self.kg_lo * 1.001 else f"{self.kg_lo:.3g} to {self.kg_hi:.3g}"
        return f"{value} kg CO2 per 1,000 requests ({self.scope}{building}, {self.grid.g_per_kwh:g} g/kWh, {self.grid.as_of}, {self.grid.source})"


def parse(text: str) -> Grid:
    """`380 g/kWh 2024 source`, from the command line. Raises SpecError that names the missing part."""
    where = f"--grid {text!r}"
    match = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(kg|g)\s*(?:CO2e?)?\s*/\s*kWh\b\s*", text, re.IGNORECASE)
    if match is None:
        raise SpecError(f"{where}: no intensity", hint=f"write e.g. {EXAMPLE}")
    value = float(match.group(1)) * (1000 if match.group(2).lower() == "kg" else 1)
    if value > HIGHEST:
        raise SpecError(f"{where}: {value:g} g/kWh is above any grid", hint="is the unit right? g and kg are known")
    date = re.match(r"(\d{4}(?:-\d{2}){0,2})\b\s*", text[match.end() :])
    if date is None:
        raise SpecError(f"{where}: no date", hint=f"grids change: write e.g. {EXAMPLE}")
    return Grid(value, date.group(1), text[match.end() + date.end() :].strip() or "the command line")


def carbon(rows: Sequence[Mapping[str, Any]], grid: Grid, pue: float | None) -> Carbon | None:
    """By `kwh_per_1k`; None where no run has energy and a rate."""
    found = kwh_per_1k(rows)
    if found is None:
        return None
    scope, kwh = found
    low, high, factor = min(kwh), max(kwh), (pue or 1.0) * grid.g_per_kwh / 1e3
    return Carbon(low, high, low * factor, high * factor, scope, pue, grid)


def kwh_per_1k(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[float]] | None:
    """(scope, kWh per 1,000 requests of each run of it): of one scope alone, that with the widest reach where several were measured."""
    known = [row for row in rows if row.get("energy_j") is not None and row.get("request_rate") and row.get("window_s")]
    if not known:
        return None
    scope = next((s for s in ("wall", "host") if any(row["energy_scope"] == s for row in known)), known[0]["energy_scope"])
    kwh = [row["energy_j"] / (row["request_rate"] * row["window_s"]) / 3.6e6 * 1e3 for row in known if row["energy_scope"] == scope]
    return str(scope), kwh

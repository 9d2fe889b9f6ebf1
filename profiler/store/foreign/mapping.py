"""What a foreign table's columns are: a TOML of ours beside a file of theirs.

`to` names a column of `runs` that the figure is, by the metric dictionary or by a stated formula of the source; `foreign` names a figure
that is none of ours and is kept apart, in run.json only. A mean never becomes a percentile: the statistic is in the target's name.
"""

from __future__ import annotations

import math
import re
import string
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from profiler import catalog
from profiler.errors import SpecError, UnknownNameError, did_you_mean
from profiler.spec import load_spec
from profiler.store.foreign.units import KINDS, kind_of

TEXTS = ("model", "variant", "backend", "engine", "engine_version", "device", "workload", "load_kind", "energy_scope")
_LATENCIES = tuple(f"{m}_{s}_s" for m in ("ttft", "tpot", "e2e_sched") for s in ("p50", "p90", "p95", "p99"))
NUMBERS: dict[str, str] = {
    "load": "load",
    "isl_mean": "tokens",
    "osl_mean": "tokens",
    "n_requests": "count",
    "device_count": "count",
    "window_s": "time",
    "request_rate": "rate",
    "output_tps": "tokens rate",
    "total_tps": "tokens rate",
    "imported_tps": "tokens rate",
    **dict.fromkeys(("ttft_mean_s", "tpot_mean_s", "e2e_mean_s", *_LATENCIES), "time"),
    "power_mean_w": "power",
    "energy_j": "energy",
    "price_usd_per_hour": "price",
}
FACTS = ("load", "isl_mean", "osl_mean", "n_requests", "device_count", "window_s", "price_usd_per_hour")  # not metrics: no formula asked
NEEDED = ("model", "backend", "device", "workload", "load_kind")
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Whose figures these are. `date` is ISO, or says that the source has none ("not stated: ...")."""

    tool: Text
    published: Text
    licence: Text
    date: Text

    @field_validator("date", mode="before")
    @classmethod
    def _date(cls, value: Any) -> Any:
        text = str(value)
        if not re.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?", text) and not text.startswith("not stated"):
            raise ValueError('give 2025-03-01, 2025-03 or 2025, or "not stated: what is known"')
        return text


class ColumnMap(_Strict):
    """One column of theirs. `formula` is the id of what the source computes; ours keep their own names."""

    to: str | None = None
    foreign: str | None = None
    unit: str | None = None
    formula: str | None = None
    definition: str | None = None
    values: dict[str, str] = {}
    leave_out: tuple[str, ...] = ()  # rows with one of these texts here are not imported, and counted

    @model_validator(mode="after")
    def _whole(self) -> ColumnMap:
        if (self.to is None) == (self.foreign is None):
            raise ValueError("say either to = (a column of ours) or foreign = (its name, kept apart)")
        if self.to is not None and self.to not in TEXTS and self.to not in NUMBERS:
            known = did_you_mean(self.to, (*TEXTS, *NUMBERS)) or f"known: {', '.join((*TEXTS, *NUMBERS))}"
            raise ValueError(f"to = {self.to!r}: not a column that an import fills; {known}")
        if self.to in TEXTS:
            return self
        if self.unit is None or kind_of(self.unit) is None:
            raise ValueError(f"unit = {self.unit!r}: known: {', '.join(u for units in KINDS.values() for u in units)}")
        if self.to is not None and kind_of(self.unit) not in _kinds(NUMBERS[self.to]):
            raise ValueError(f"unit = {self.unit!r} is not one of {self.to}: known: {', '.join(_units(NUMBERS[self.to]))}")
        if self.to not in FACTS and not (self.formula and self.definition):
            raise ValueError("a figure needs formula = (the id of how the source computes it) and definition = (in words)")
        return self


class Mapping(_Strict):
    """A whole mapping file. `constants` fill columns of ours that theirs lack; {Column} in a text stands for that row's cell."""

    name: Text
    description: str = ""
    source: Source
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    constants: dict[str, str | float] = {}
    columns: dict[str, ColumnMap]
    only: dict[str, str] = {}  # rows with another text in this column are left out, and counted

    @model_validator(mode="after")
    def _complete(self) -> Mapping:
        targets = [c.to for c in self.columns.values() if c.to is not None]
        for name, value in self.constants.items():
            if name not in TEXTS and name not in NUMBERS:
                raise ValueError(f"constants.{name}: not a column that an import fills; {did_you_mean(name, (*TEXTS, *NUMBERS)) or ''}")
            if (name in TEXTS) != isinstance(value, str):
                raise ValueError(f"constants.{name}: {'a text' if name in TEXTS else 'a number, in the unit of the column'} is needed")
        if not all(isinstance(v, str) or math.isfinite(v) for v in self.constants.values()):
            raise ValueError("constants: NaN and infinity are no figures")
        _ = self.fields  # braces that do not close are found here
        twice = sorted({t for t in targets if targets.count(t) > 1 or t in self.constants})
        if twice:
            raise ValueError(f"{twice[0]}: filled more than once")
        filled = {*targets, *self.constants}
        absent = [name for name in (*NEEDED, "load") if name not in filled]
        if absent:
            raise ValueError(f"nothing fills {', '.join(absent)}: map a column to it, or give it in [constants]")
        if self.constants.get("load_kind", "rate") not in ("rate", "concurrency"):
            raise ValueError("constants.load_kind: rate (requests/s) or concurrency (users)")
        for name, column in self.columns.items():
            _statistic(name, column.to)
        return self

    @property
    def fields(self) -> set[str]:
        """Columns of theirs that constants quote."""
        texts = [v for v in self.constants.values() if isinstance(v, str)]
        return {field for text in texts for _, field, _, _ in string.Formatter().parse(text) if field}


def load(name_or_path: str) -> Mapping:
    """A mapping that ships, by name, or a file. Raises UnknownNameError or SpecError (file and key)."""
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        return load_spec(Path(name_or_path).expanduser(), Mapping)
    folder = catalog.root() / "mappings"
    path = folder / f"{name_or_path}.toml"
    if not path.is_file():
        raise UnknownNameError("mapping", name_or_path, sorted(p.stem for p in folder.glob("*.toml")))
    return load_spec(path, Mapping)


def shipped() -> list[str]:
    return sorted(path.stem for path in (catalog.root() / "mappings").glob("*.toml"))


def missing_column(where: str, name: str, known: list[str]) -> SpecError:
    return SpecError(f"{where}: no column {name!r}", hint=did_you_mean(name, known) or f"its columns: {', '.join(known)}")


def _statistic(header: str, to: str | None) -> None:
    """A header that names a statistic must not be mapped to another one: means never become percentiles."""
    found = re.search(r"(?<![a-z])(mean|avg|average|median|p50|p90|p95|p99)(?![a-z0-9])", header.lower().replace("_", " "))
    if found is None or to is None or not re.search(r"_(mean|p\d\d)_s$", to):
        return
    said = {"avg": "mean", "average": "mean", "median": "p50"}.get(found[1], found[1])
    if f"_{said}_" not in to:
        raise ValueError(f"columns.{header!r} is a {found[1]} and {to} is not: a mean never becomes a percentile, nor the other way round")


def _kinds(kind: str) -> tuple[str, ...]:
    return ("rate", "count") if kind == "load" else (kind,)


def _units(kind: str) -> list[str]:
    return [unit for one in _kinds(kind) for unit in KINDS[one]]

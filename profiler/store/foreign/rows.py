"""Rows of a foreign table as run.json documents of class `imported`. Pure: reads and writes nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from profiler import __version__
from profiler.errors import StoreError
from profiler.store.foreign.mapping import NEEDED, NUMBERS, TEXTS, ColumnMap, Mapping, missing_column
from profiler.store.foreign.table import Table
from profiler.store.foreign.units import factor, header_flag, value_flags

UNCHECKED = "imported: the raw requests are not known, so nothing of how it was measured can be checked"
ADVICE = "measure the same cell with `profile sweep`"


@dataclass(frozen=True)
class Converted:
    """`documents` in the file's order; `flags` in words, once each, with how many rows have it; `left_out` rows by reason."""

    documents: tuple[dict[str, Any], ...]
    flags: dict[str, int]
    left_out: dict[str, int]
    believed: tuple[str, ...]  # what was taken for what, one line a column


def convert(table: Table, mapping: Mapping) -> Converted:
    """Every row checked before any is returned. Raises StoreError or SpecError naming file, row and column."""
    for name in (*mapping.columns, *mapping.only, *sorted(mapping.fields)):
        if name not in table.header:
            raise missing_column(str(table.path), name, list(table.header))
    headers = [flag for name, column in mapping.columns.items() if (flag := header_flag(name, column.unit))]
    left_out: Counter[str] = Counter()
    flags: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    documents = []
    for number, cells in table.rows:
        if (why := _left_out(cells, mapping)) is not None:
            left_out[why] += 1
            continue
        run, foreign = _row(table, mapping, number, cells)
        own = [*headers, *value_flags(run)]
        flags.update(flag.partition(" = ")[0] + (": " + flag.rpartition("; ")[2] if " = " in flag else "") for flag in own)
        identity = _hash([mapping.model_dump(mode="json"), cells])
        documents.append(_document(table, mapping, number, cells, run, foreign, own, identity, seen[identity]))
        seen[identity] += 1
    if not documents:
        raise StoreError(f"{table.path}: the mapping leaves out every row", hint="see only = and leave_out = of the mapping")
    believed = tuple(_believed(name, column) for name, column in mapping.columns.items())
    return Converted(tuple(documents), dict(flags), dict(left_out), believed)


def _left_out(cells: dict[str, str], mapping: Mapping) -> str | None:
    for name, wanted in mapping.only.items():
        if cells[name] != wanted:
            return f"{name} is not {wanted}"
    for name, column in mapping.columns.items():
        if cells[name] in column.leave_out:
            return f"{name} is {cells[name] or 'empty'}"
    return None


def _row(table: Table, mapping: Mapping, number: int, cells: dict[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    run: dict[str, Any] = {}
    figures: list[dict[str, Any]] = []
    for name, constant in mapping.constants.items():
        run[name] = constant.format_map(cells) if isinstance(constant, str) else constant
    for name, column in mapping.columns.items():
        text = cells[name]
        if column.to in TEXTS:
            run[column.to] = column.values.get(text, text) or None
            continue
        number_ = _number(table, number, name, text)
        value = None if number_ is None else number_ * factor(column.unit or "")
        if column.to is not None:
            run[column.to] = round(value) if value is not None and NUMBERS[column.to] == "count" and column.to != "load" else value
        if column.formula or column.foreign:
            figures.append(
                {
                    "column": name, "is": column.to, "foreign": column.foreign, "value": number_, "unit": column.unit,
                    "formula": column.formula, "definition": column.definition,
                }
            )  # fmt: skip
    for name in (*NEEDED, "load"):
        if run.get(name) in (None, ""):
            column_name = next((c for c, m in mapping.columns.items() if m.to == name), name)
            raise StoreError(f"{table.at(number, column_name)}: empty, and {name} is needed", hint='leave_out = [""] skips such rows')
    if run["load_kind"] not in ("rate", "concurrency"):
        raise StoreError(f"{table.path}, row {number}: load_kind {run['load_kind']!r}", hint="rate or concurrency")
    if run["load"] <= 0:
        column_name = next((c for c, m in mapping.columns.items() if m.to == "load"), "load")
        raise StoreError(f"{table.at(number, column_name)}: a load of {run['load']:g}", hint="a load is above 0")
    return run, figures


def _number(table: Table, row: int, column: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise StoreError(f"{table.at(row, column)}: {text[:40]!r} is not a number", hint="1234.5, without thousands separators") from None
    if not math.isfinite(value):
        raise StoreError(f"{table.at(row, column)}: {text} is no figure", hint=f'leave_out = ["{text}"] under the column skips such rows')
    if value < 0:
        raise StoreError(f"{table.at(row, column)}: {text} is below 0", hint="no column of ours can be")
    return value


def _document(
    table: Table,
    mapping: Mapping,
    number: int,
    cells: dict[str, str],
    run: dict[str, Any],
    figures: list[dict[str, Any]],
    flags: list[str],
    identity: str,
    repeat: int,
) -> dict[str, Any]:
    cell = {name: run.get(name) for name in (*TEXTS, "load", "isl_mean", "osl_mean")}
    source = mapping.source
    columns = {
        "sweep_id": f"import-{_hash([mapping.model_dump(mode='json')])}",
        "sweep_name": mapping.name,
        "cell_id": _hash([source.published, cell]),
        "environment_hash": f"import-{identity}",
        "repeat": repeat,
        "status": "done",
        "validity": "suspect",
        "validity_reasons": [UNCHECKED, *flags],
        "validity_advice": [ADVICE, *("compare the column with its source, then mend the mapping" for _ in flags)],
        "provenance_class": "imported",
        "workload_version": 1,
        "arrivals": "closed" if run["load_kind"] == "concurrency" else "not stated",
        "device_source": "declared",
        "price_source": "declared" if run.get("price_usd_per_hour") is not None else None,
        "energy_reason": "the source does not say" if run.get("energy_j") is None else None,
        "import_tool": source.tool,
        "import_source": source.published,
        "import_licence": source.licence,
        "import_date": source.date,
        "import_formulas": [f"{f['is'] or 'foreign ' + f['foreign']} = {f['formula'] or 'not stated'}" for f in figures],
        "profiler_version": __version__,
    }
    return {
        "run": columns | run,
        "provenance": {"machine": {}, "cells": [], "mapping": mapping.model_dump(mode="json")},
        "imported": {"file": table.path.name, "sha256": table.sha256, "encoding": table.encoding, "row": number, "cells": cells, "figures": figures},
        "quality": {},
        "samples": [],
        "verdicts": [],
    }  # fmt: skip


def _believed(name: str, column: ColumnMap) -> str:
    what = column.to or f"foreign {column.foreign}"
    return f"{name!r} [{column.unit}] is {what}, by {column.formula or 'its name'}" if column.unit else f"{name!r} is {what}"


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]

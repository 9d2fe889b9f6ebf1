"""A pandas frame that knows what its columns mean, and says so where a notebook shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import pandas as pd

from profiler.frames.nulls import Nulls
from profiler.store import schema

ROWS_SHOWN = 20
COLUMNS_SHOWN = 14
# Of `runs`, which has some 190 columns, those that a reader looks for first.
FIRST_OF_RUNS = (
    "run_id", "validity", "backend", "workload", "load_kind", "load", "n_requests", "output_tps",
    "ttft_sched_p95_s", "tpot_p95_s", "qos_result", "provenance_class",
)  # fmt: skip


class Frame(pd.DataFrame):
    """A DataFrame in every respect; in a notebook it shows units under the names and, below, provenance and why values are missing.

    `.attrs`: `table`, `store`, `schema_version`, `units`, `definitions`, `provenance` (rows by class), `null` (column -> reason -> rows),
    and `notes`. They stay with selections of it.
    """

    @property
    def _constructor(self) -> Callable[..., Frame]:
        return Frame

    def _repr_html_(self) -> str:
        return _html(self)


def describe(
    frame: pd.DataFrame,
    table: str,
    store: str,
    nulls: Nulls,
    units: Mapping[str, str],
    definitions: Mapping[str, str],
    notes: list[str] | None = None,
) -> Frame:
    """`frame` with its meaning attached. Attributes are JSON types, so that they survive Parquet."""
    made = Frame(frame)
    columns = [str(name) for name in frame.columns]
    made.attrs = {
        "table": table,
        "store": store,
        "schema_version": schema.SCHEMA_VERSION,
        "units": {name: units[name] for name in columns if units.get(name)},
        "definitions": {name: definitions[name] for name in columns if name in definitions},
        "provenance": _provenance(frame),
        "null": nulls,
        "notes": notes or [],
    }
    return made


def of_table(frame: pd.DataFrame, table: str, store: str, nulls: Nulls, provenance: Mapping[str, int]) -> Frame:
    """A frame with the columns of a table of the store."""
    columns = {c.name: c for c in schema.TABLES[table]}
    units = {name: c.unit for name, c in columns.items()}
    made = describe(frame, table, store, nulls, units, {name: c.definition for name, c in columns.items()})
    made.attrs["provenance"] = made.attrs["provenance"] or dict(provenance)
    return made


def _provenance(frame: pd.DataFrame) -> dict[str, int]:
    if "provenance_class" not in frame:
        return {}
    return {str(name): int(n) for name, n in frame["provenance_class"].value_counts(dropna=False).items()}


def _html(frame: pd.DataFrame) -> str:
    """The first rows; units under names; columns without any value are named below with the reason, not shown."""
    columns = [name for name in frame.columns if len(frame) == 0 or not frame[name].isna().all()]
    if len(columns) > COLUMNS_SHOWN:
        first = [name for name in FIRST_OF_RUNS if name in columns]
        columns = first if len(first) > 5 else columns[:COLUMNS_SHOWN]
    units = frame.attrs.get("units", {})
    definitions = frame.attrs.get("definitions", {})
    head = "".join(
        f'<th style="text-align:left" title="{escape(definitions.get(str(name), ""))}">{escape(str(name))}'
        f'<br><span style="font-weight:normal;opacity:.7">{escape(units.get(str(name), ""))}</span></th>'
        for name in columns
    )
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(shown(value))}</td>' for value in row) + "</tr>"
        for row in frame[columns].head(ROWS_SHOWN).itertuples(index=False, name=None)
    )
    below = "".join(f'<div style="opacity:.8">{escape(line)}</div>' for line in said_below(frame, columns))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def said_below(frame: pd.DataFrame, columns: list[Any]) -> list[str]:
    """What stands under the table: how much is shown, whose figures, what is missing and why."""
    more = [f"{len(frame):,} row{'s' if len(frame) != 1 else ''}"]
    if len(frame) > ROWS_SHOWN:
        more[0] += f", the first {ROWS_SHOWN} shown"
    if len(columns) < frame.shape[1]:
        more.append(f"{len(columns)} of {frame.shape[1]} columns shown")
    # Counted anew where the rows say it: attributes stay those of the whole after a selection.
    counted = _provenance(frame)
    classes = ", ".join(f"{name} {n:,}" for name, n in counted.items()) or ", ".join(frame.attrs.get("provenance", {}))
    lines = ["; ".join(more) + (f". Provenance: {classes}." if classes else ".")]
    empty = [name for name in frame.columns if len(frame) and frame[name].isna().any()]
    whole = len(frame.columns) > COLUMNS_SHOWN  # of a whole table only the columns that are shown are explained
    named = [name for name in empty if not whole or name in columns]
    reasons: dict[str, list[str]] = {}
    for name in named:
        for reason in frame.attrs.get("null", {}).get(str(name), {}):
            reasons.setdefault(reason, []).append(str(name))
    lines += [f"Missing: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return lines + list(frame.attrs.get("notes", []))


def shown(value: Any) -> str:
    """A cell as text: four digits of a float, — for a missing value."""
    if isinstance(value, list | tuple) or (hasattr(value, "__len__") and not isinstance(value, str)):
        return ", ".join(shown(item) for item in list(value)[:5]) + (" …" if len(value) > 5 else "")
    if pd.isna(value):
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

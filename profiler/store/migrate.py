"""From a run of an older schema to the present one, step by step, when it is read. Files are never rewritten.

A version that changes what a column means or where it is adds a Step here and a line to schema.HISTORY; one that only adds columns does
not: of an older run they are NULL. tests/store/old/ keeps a store of every version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.store import schema, stamps

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


@dataclass(frozen=True)
class Change:
    """A column of a table's files that another took the place of. `convert` makes the new from the old, an Arrow array at a time."""

    table: str
    old: str
    new: str
    convert: Callable[[Any], Any]


@dataclass(frozen=True)
class Step:
    """From the version before to this one: what changed in run.json (None: nothing) and in the Parquet files."""

    document: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    changes: tuple[Change, ...] = ()


STEPS: Mapping[int, Step] = {2: Step(changes=(Change("requests", stamps.OFFSETS, stamps.GAPS, stamps.to_gaps),))}
# How the files of the present version are shown: the inverse of schema.STORED.
SHOWN = (Change("requests", stamps.GAPS, stamps.OFFSETS, stamps.to_offsets),)


def document(found: dict[str, Any], version: int) -> dict[str, Any]:
    """run.json of an older version in the present form; its schema_version still says what the files are."""
    for step in range(version + 1, schema.SCHEMA_VERSION + 1):
        change = STEPS[step].document
        found = change(found) if change else found
    return found


def changes(table: str, version: int) -> list[Change]:
    """What turns a file of that version into what readers see, in order."""
    steps = [change for step in range(version + 1, schema.SCHEMA_VERSION + 1) for change in STEPS[step].changes]
    return [change for change in (*steps, *SHOWN) if change.table == table]


def columns_in_file(table: str, version: int, wanted: list[str]) -> list[str]:
    """The names under which a file of that version has the wanted columns."""
    names = list(wanted)
    for change in reversed(changes(table, version)):
        names = [change.old if name == change.new else name for name in names]
    return names


def shown(found: pa.Table, table: str, version: int) -> pa.Table:
    """A table as a file of that version has it (all columns or some), in the form readers see."""
    import pyarrow as pa

    for change in changes(table, version):
        place = found.schema.get_field_index(change.old)
        if place >= 0:
            old = found.column(place)
            new = pa.chunked_array([change.convert(chunk) for chunk in old.chunks], old.type)
            found = found.set_column(place, change.new, new)
    return found


def select_sql(connection: duckdb.DuckDBPyConnection, table: str, version: int, source: str) -> str:
    """A SELECT over `source` (files of one version) that gives what readers see. Registers the functions it needs."""
    query = f"SELECT * FROM {source}"
    kind = "INTEGER[]"
    for number, change in enumerate(changes(table, version)):
        name = f"migrated_{table}_{version}_{number}"
        connection.create_function(name, _over_chunks(change.convert), [kind], kind, type="arrow")  # type: ignore[call-overload]
        query = f'SELECT * EXCLUDE ("{change.old}"), {name}("{change.old}") AS "{change.new}" FROM ({query})'
    return query


def _over_chunks(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """DuckDB hands a function of Arrow arrays a chunked one."""

    def function(given: Any) -> Any:
        import pyarrow as pa

        array = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
        return convert(array.chunk(0) if isinstance(array, pa.ChunkedArray) else array)

    return function

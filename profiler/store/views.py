"""DuckDB views over the files of a set of runs. An empty store gives empty, typed views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import StoreError
from profiler.store import migrate, schema

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

TOKENS = "SELECT run_id, request_id, unnest(arrival_offsets_us) AS t_offset_us, unnest(arrival_tokens) AS tokens FROM requests"


class Views:
    """The views runs, requests, tokens, telemetry, engine_metrics of `heads` ({"folder", "run", "files"} per run)."""

    def __init__(self, heads: Sequence[Mapping[str, Any]], warn: Callable[[str], None], sound: dict[Path, bool]) -> None:
        """`sound` is the caller's memory of which files have been compared with their checksum, and how that went."""
        self._heads = heads
        self._warn = warn
        self._sound = sound

    def query(self, query: str) -> pd.DataFrame:
        """One SELECT as a DataFrame. Raises StoreError in one line for what is not a SELECT or does not run."""
        import duckdb

        connection = duckdb.connect(config={"python_enable_replacements": "false", "autoinstall_known_extensions": "false"})
        with connection:
            self._check(connection, query)
            try:
                self._create(connection, query)
                return connection.execute(query).df()
            except duckdb.Error as error:
                raise StoreError(f"SQL: {_one_line(error)}", hint=_HINT) from error

    def requests(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All requests, all columns or those named, with nullable integers (DuckDB's own frames turn a NULL nanosecond column into floats)."""
        import pandas as pd
        import pyarrow as pa

        empty = schema.arrow_schema("requests").empty_table()
        tables = [empty if columns is None else empty.select(list(columns)), *self.request_tables(columns)]
        types = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
        frame: pd.DataFrame = pa.concat_tables(tables, promote_options="default").to_pandas(types_mapper=types.get)
        return frame

    def request_tables(self, columns: Sequence[str] | None = None) -> list[pa.Table]:
        """The requests of each run as an Arrow table, all columns or those named; runs without a readable file are left out."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = list(columns) if columns is not None else [c.name for c in schema.REQUESTS]

        def read(path: Path, version: int) -> pa.Table | str:
            names = migrate.columns_in_file("requests", version, wanted)
            try:
                # Not pq.read_table: it loads pyarrow.dataset, which loads pandas, a second on a small machine.
                with pq.ParquetFile(path) as file:
                    known = set(file.schema_arrow.names)
                    return migrate.shown(file.read(columns=[name for name in names if name in known]), "requests", version)
            except (OSError, pa.ArrowException) as error:
                return f"is not readable as Parquet ({_one_line(error)})"

        files = self._files("requests.parquet")
        tables = []
        with ThreadPoolExecutor() as pool:  # pyarrow reads, decompresses and decodes without the interpreter's lock
            for (path, _), found in zip(files, pool.map(lambda file: read(*file), files), strict=True):
                if isinstance(found, str):
                    self._skip(path, found)
                else:
                    tables.append(found)
        return tables

    def _check(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        import duckdb

        try:
            statements = connection.extract_statements(query)
        except duckdb.Error as error:
            raise StoreError(f"SQL: {_one_line(error)}", hint=_HINT) from error
        # Not EXPLAIN either: EXPLAIN ANALYZE runs what it explains, a COPY to a file included.
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise StoreError("SQL: only one SELECT at a time: the store is read-only", hint=_HINT)

    def _create(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        """The views; of a table that the query does not name without its files, as comparing these with their checksums takes its time."""
        import pyarrow as pa

        rows = [{c.name: head["run"].get(c.name) for c in schema.RUNS} for head in self._heads]
        connection.register("runs", pa.Table.from_pylist(rows, schema=schema.arrow_schema("runs")))
        named = query.lower().replace("tokens", "requests")
        for table in ("requests", "telemetry", "engine_metrics"):
            parts = [schema.empty_view_sql(table)]
            by_version: dict[int, list[Path]] = {}
            for path, version in self._files(f"{table}.parquet") if table in named else ():
                by_version.setdefault(version, []).append(path)
            for version, paths in by_version.items():
                listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
                parts.append(migrate.select_sql(connection, table, version, f"read_parquet([{listed}], union_by_name=true)"))
            connection.execute(f"CREATE OR REPLACE VIEW {table} AS {' UNION ALL BY NAME '.join(parts)}")
        connection.execute(f"CREATE OR REPLACE VIEW tokens AS {TOKENS}")

    def _files(self, name: str) -> list[tuple[Path, int]]:
        """The files of that name that are as their run wrote them, and the schema version of each.

        Compared by checksum, once in the life of a Store: a Parquet reader takes one flipped byte in five for another number.
        """
        found = [(head["folder"] / name, head["files"][name], head["version"]) for head in self._heads if name in head["files"]]
        unknown = [(path, recorded) for path, recorded, _ in found if path not in self._sound]
        with ThreadPoolExecutor() as pool:  # hashing and reading leave the interpreter's lock to others
            for (path, _), fault in zip(unknown, pool.map(lambda file: _fault(*file), unknown), strict=True):
                self._sound[path] = fault is None or self._skip(path, fault)
        return [(path, version) for path, _, version in found if self._sound[path]]

    def _skip(self, path: Path, why: str) -> bool:
        self._warn(f"{path}: {why}; file skipped")
        return False


def _fault(path: Path, recorded: Mapping[str, Any]) -> str | None:
    """In what a file differs from what its run wrote; None when it does not."""
    try:
        size = path.stat().st_size
        if size != recorded["bytes"]:
            return f"is {size} bytes long and was written with {recorded['bytes']}"
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == recorded["sha256"]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if same else "does not have the checksum it was written with"


_HINT = "views: runs, requests, tokens, telemetry, engine_metrics; docs/schema.md lists their columns"


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

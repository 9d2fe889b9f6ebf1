"""DuckDB views over the files of a set of runs. An empty store gives empty, typed views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import StoreError
from profiler.store import schema

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
                self._create(connection)
                return connection.execute(query).df()
            except duckdb.Error as error:
                raise StoreError(f"SQL: {_one_line(error)}", hint=_HINT) from error

    def requests(self) -> pd.DataFrame:
        """All requests, with nullable integers (DuckDB's own frames turn a NULL nanosecond column into floats)."""
        import pandas as pd
        import pyarrow as pa

        tables = [schema.arrow_schema("requests").empty_table(), *self.request_tables()]
        types = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
        frame: pd.DataFrame = pa.concat_tables(tables, promote_options="default").to_pandas(types_mapper=types.get)
        return frame

    def request_tables(self, columns: Sequence[str] | None = None) -> list[pa.Table]:
        """The requests of each run as an Arrow table, all columns or those named; runs without a readable file are left out."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = []
        for path in self._files("requests.parquet"):
            try:
                # Not pq.read_table: it loads pyarrow.dataset, which loads pandas, a second on a small machine.
                with pq.ParquetFile(path) as file:
                    known = set(file.schema_arrow.names)
                    tables.append(file.read(columns=[name for name in columns if name in known] if columns is not None else None))
            except (OSError, pa.ArrowException) as error:
                self._skip(path, f"is not readable as Parquet ({_one_line(error)})")
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

    def _create(self, connection: duckdb.DuckDBPyConnection) -> None:
        import pyarrow as pa

        rows = [{c.name: head["run"].get(c.name) for c in schema.RUNS} for head in self._heads]
        connection.register("runs", pa.Table.from_pylist(rows, schema=schema.arrow_schema("runs")))
        for table in ("requests", "telemetry", "engine_metrics"):
            files = self._files(f"{table}.parquet")
            parts = [schema.empty_view_sql(table)]
            if files:
                listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
                parts.append(f"SELECT * FROM read_parquet([{listed}], union_by_name=true)")
            connection.execute(f"CREATE OR REPLACE VIEW {table} AS {' UNION ALL BY NAME '.join(parts)}")
        connection.execute(f"CREATE OR REPLACE VIEW tokens AS {TOKENS}")

    def _files(self, name: str) -> list[Path]:
        """The files of that name that are as their run wrote them.

        Compared by checksum, once in the life of a Store: a Parquet reader takes one flipped byte in five for another number.
        """
        found = []
        for head in self._heads:
            recorded, path = head["files"].get(name), head["folder"] / name
            if recorded is None:
                continue
            if path not in self._sound:
                self._sound[path] = self._is_sound(path, recorded)
            if self._sound[path]:
                found.append(path)
        return found

    def _is_sound(self, path: Path, recorded: Mapping[str, Any]) -> bool:
        try:
            size = path.stat().st_size
            if size != recorded["bytes"]:
                return self._skip(path, f"is {size} bytes long and was written with {recorded['bytes']}")
            with path.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == recorded["sha256"]
        except OSError as error:
            return self._skip(path, f"cannot be read: {error.strerror}")
        return same or self._skip(path, "does not have the checksum it was written with")

    def _skip(self, path: Path, why: str) -> bool:
        self._warn(f"{path}: {why}; file skipped")
        return False


_HINT = "views: runs, requests, tokens, telemetry, engine_metrics; results/README.md lists their columns"


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

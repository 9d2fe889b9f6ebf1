"""Reading a results folder: typed frames and SQL over every readable run. What cannot be read is named and skipped.

Reading never waits for a writer: runs appear whole, by rename.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import StoreError
from profiler.records import RequestRecord
from profiler.store import index, migrate, schema
from profiler.store.draft import RunDraft, check_writable, new_run_id, set_aside_leftovers
from profiler.store.views import Views

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["RunDraft", "Store", "new_run_id"]

_FIELDS = tuple(field.name for field in fields(RequestRecord))
_UNREAD: dict[str, Any] = {"arrival_offsets_us": (), "arrival_tokens": (), "text": None}


class NewerSchema(StoreError):
    """A run, or a whole store, that a newer version of this program wrote."""

    def __init__(self, path: Path, version: int) -> None:
        super().__init__(
            f"{path}: written in schema version {version}, this program reads up to {schema.SCHEMA_VERSION}", hint="update slm-profiler"
        )
        self.version = version


class Store:
    """A results folder. It need not exist yet: reading gives empty frames, the first draft creates it.

    `warnings` names what was skipped so far (corrupt files, runs of a newer schema, leftovers of killed sweeps), each once.
    Raises StoreError when the path is a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        self._read: dict[Path, dict[str, Any] | None] = {}  # runs are immutable: what was read once stays true
        self._read_of: dict[str, Path] = {}  # the folder of each run that could be read
        self._stamps: dict[Path, index.Stamp] = {}
        self._sound: dict[Path, bool] = {}  # and what was compared with its checksum once
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path}: is a file, not a results folder", hint="give another --results FOLDER")
        interrupted = set_aside_leftovers(self.path)
        if interrupted:
            cells = "1 interrupted cell" if interrupted == 1 else f"{interrupted} interrupted cells"
            self._warn(f"{self.path / '.interrupted'}: {cells} kept aside; `profile results verify` recovers them or says why not")

    def check_writable(self) -> None:
        """Raise StoreError now if a run could not be kept later: no permission, no space. Creates the folder."""
        check_writable(self.path)

    def draft(self, run_id: str | None = None) -> RunDraft:
        """Begin a run; see RunDraft. Raises StoreError when the folder cannot be written."""
        return RunDraft(self.path, run_id or new_run_id())

    def keep(self, document: Mapping[str, Any], requests: Sequence[RequestRecord] = ()) -> Path:
        """Write a run in one go, such as a cell that failed before it was measured. Returns the run's folder."""
        return self.draft().commit(document, requests)

    def runs(self) -> pd.DataFrame:
        """All columns of `runs`, one row per run, oldest first. Reads the run.json files only."""
        frame: pd.DataFrame = schema.pandas_frame("runs", [head["run"] for head in self._heads()])
        return frame

    def rows(self) -> list[dict[str, Any]]:
        """`runs` as plain rows, oldest first: for commands that must not wait for pandas to load."""
        return [dict(head["run"]) for head in self._heads()]

    def records(self, run_ids: Iterable[str]) -> dict[str, list[RequestRecord]]:
        """The requests of the named runs by run, without arrival stamps and texts. A run without a readable file is left out."""
        found: dict[str, list[RequestRecord]] = {}
        for table in self._views(self._heads(run_ids)).request_tables(_RECORD):
            # Column by column: half the time of a dict for each row. A column that came later than the run is NULL.
            columns = [table[name].to_pylist() if name in table.column_names else repeat(_UNREAD.get(name)) for name in _FIELDS]
            if len(table):
                found[table["run_id"][0].as_py()] = [RequestRecord(*values) for values in zip(*columns, strict=False)]
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        """run.json of one run; an unambiguous beginning of its id will do. Raises StoreError."""
        known = self._read_of.get(run_id)  # a whole id of a run that was read
        found = [known] if known is not None else [folder for folder in self._folders() if folder.name.startswith(run_id)]
        exact = [folder for folder in found if folder.name == run_id] or found
        if len(exact) != 1:
            what = "no run" if not exact else f"{len(exact)} runs"
            raise StoreError(f"{self.path}: {what} called {run_id!r}", hint="`profile results ls` shows the ids")
        return read_document(exact[0])

    def documents(self, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """run.json of the named runs, oldest first; of those that could be read."""
        return [read_document(head["folder"]) for head in self._heads(run_ids)]

    def requests(self, run_ids: Iterable[str] | None = None, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All columns of `requests` or those named, of the named runs or of all; runs in their order, requests as they were sent.

        Of many runs name the columns: the arrival stamps are most of what there is to read.
        """
        return self._views(self._heads(run_ids)).requests(columns)

    def request_columns(self, run_ids: Iterable[str], columns: Sequence[str]) -> dict[str, pa.Table]:
        """These columns of `requests` by run; a run without a readable file is left out."""
        tables = self._views(self._heads(run_ids)).request_tables(["run_id", *columns])
        return {table["run_id"][0].as_py(): table.select(list(columns)) for table in tables if len(table)}

    def telemetry(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """All columns of `telemetry`, of the named runs or of all."""
        return self._views(self._heads(run_ids)).query("SELECT * FROM telemetry ORDER BY run_id, t_ns")

    def sql(self, query: str) -> pd.DataFrame:
        """One SELECT over the views runs, requests, tokens, telemetry (DuckDB). Raises StoreError, one line, on anything else."""
        return self._views(self._heads()).query(query)

    def measured(self) -> set[tuple[str, str, int]]:
        """(cell_id, environment_hash, repeat) of every run that need not be measured again: done and not invalid."""
        rows = (head["run"] for head in self._heads())
        return {
            (row["cell_id"], row["environment_hash"], row["repeat"])
            for row in rows
            if row["status"] == "done" and row["validity"] != "invalid"
        }

    def next_repeat(self, cell_ids: Iterable[str]) -> int:
        """The first repeat number that no run of these cells has taken."""
        wanted = set(cell_ids)
        return max((head["run"]["repeat"] + 1 for head in self._heads() if head["run"]["cell_id"] in wanted), default=0)

    def _views(self, heads: Sequence[Mapping[str, Any]]) -> Views:
        return Views(heads, self._warn, self._sound)

    def _heads(self, run_ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """run, files, version and folder of each readable run (of those named), oldest first."""
        wanted = None if run_ids is None else set(run_ids)
        folders = self._folders()
        self._read_in([folder for folder in folders if folder not in self._read])
        heads = (self._read[folder] for folder in folders if wanted is None or folder.name in wanted)
        return [head for head in heads if head is not None]

    def _read_in(self, folders: Sequence[Path]) -> None:
        """Read what run.json says in these folders: from the index where it knows the file as it is now."""
        known = index.load(self.path) if len(folders) >= index.WORTH else {}
        newer: dict[int, list[Path]] = {}
        missed = 0
        for folder in folders:
            seen = index.stamp(folder)  # before it is read: what changes afterwards does not match
            remembered = known.get(folder.name)
            if remembered is not None and remembered[0] == seen:
                head: dict[str, Any] | None = {"folder": folder, **remembered[1]}
            else:
                head, missed = self._head(folder, newer), missed + 1
            self._read[folder] = head
            if head is not None:
                self._read_of[folder.name] = folder
                if seen is not None:
                    self._stamps[folder] = seen
        for version, found in newer.items():
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            self._warn(f"{NewerSchema(found[0], version).message}{more}; run skipped")
        if missed >= index.WORTH:
            index.save(self.path, [(seen, head) for folder, seen in self._stamps.items() if (head := self._read[folder]) is not None])
        if newer and not self._read_of:
            raise NewerSchema(self.path, max(newer))

    def _head(self, folder: Path, newer: dict[int, list[Path]]) -> dict[str, Any] | None:
        try:
            document = read_document(folder)
        except NewerSchema as error:
            newer.setdefault(error.version, []).append(folder / "run.json")
            return None
        except StoreError as error:
            self._warn(f"{error.message}; run skipped")
            return None
        return {"folder": folder, "run": document["run"], "files": document.get("files", {}), "version": document["schema_version"]}

    def _folders(self) -> list[Path]:
        try:
            with os.scandir(self.path / "runs") as days:
                names = [(entry.name, day.name) for day in days if day.is_dir() for entry in os.scandir(day) if entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror}", hint="give a results folder you may read") from error
        return [self.path / "runs" / day / name for name, day in sorted(names)]

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def read_document(folder: Path) -> dict[str, Any]:
    """run.json of a run's folder. Raises StoreError naming the file: missing, not JSON, not ours, or of a newer schema."""
    path = folder / "run.json"
    try:
        document = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not valid JSON ({error})", hint="restore it, or remove the run's folder") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version < 1:
        raise StoreError(f"{path}: not a run of this program: no schema_version")
    if version > schema.SCHEMA_VERSION:
        raise NewerSchema(path, version)
    found: dict[str, Any] = migrate.document(document, version)
    run: Any = found.get("run")
    missing = [key for key in _NEEDED if not isinstance(run, dict) or key not in run]
    if missing or run["run_id"] != folder.name:
        raise StoreError(
            f"{path}: " + (f"no {', '.join(missing)} in it" if missing else f"its run_id {run['run_id']!r} is not its folder's")
        )
    wrong = [c.name for c in schema.RUNS if (value := run.get(c.name)) is not None and not _fits(value, c.type)]
    if wrong or not isinstance(run["repeat"], int):
        raise StoreError(f"{path}: {', '.join(wrong) or 'repeat'}: not of the column's type")
    files = found.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(f, dict) and {"bytes", "sha256"} <= f.keys() for f in files.values()):
        raise StoreError(f"{path}: files: not the sizes and checksums of the run's files")
    # A column that came later than the run is missing, which is NULL.
    return {**found, "run": {c.name: None for c in schema.RUNS} | run}


def _no_constant(name: str) -> None:
    """JSON has no NaN and no infinity; Python's reader would take them."""
    raise ValueError(f"{name} is no JSON")


def _fits(value: Any, kind: schema.Type) -> bool:
    """Whether a JSON value can stand in a column of this type."""
    if kind.startswith("list<"):
        return isinstance(value, list) and all(isinstance(item, str if kind == "list<string>" else int) for item in value)
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    return isinstance(value, _JSON_TYPES[kind])


_RECORD = tuple(c.name for c in schema.REQUESTS if c.name == "run_id" or (c.name in _FIELDS and c.name not in _UNREAD))
_JSON_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "int64": (int,), "int32": (int,), "float64": (int, float)}
_NEEDED = ("run_id", "cell_id", "environment_hash", "repeat", "status", "validity")

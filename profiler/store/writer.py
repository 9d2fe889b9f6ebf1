"""What goes into a run's files: run.json and requests.parquet, typed and JSON-safe."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiler.errors import StoreError, did_you_mean
from profiler.records import RequestRecord
from profiler.store import schema, stamps


def run_document(document: Mapping[str, Any], run_id: str, files: Mapping[str, Any]) -> dict[str, Any]:
    """run.json in full: every column of `runs` present and of its type, JSON-safe throughout. Raises StoreError on unknown columns."""
    given = dict(document["run"]) | {"run_id": run_id}
    known = {column.name: column for column in schema.RUNS}
    for name in given:
        if name not in known:
            raise StoreError(
                f"run.json: {name!r} is not a column of runs", hint=did_you_mean(name, known) or "see profiler/store/schema.py"
            )
    if given.get("provenance_class") != "imported":  # whose load began some day that nobody told
        given["started_at"] = given.get("started_at") or datetime.now(UTC).isoformat(timespec="milliseconds")
    row = {name: _typed(column, given.get(name)) for name, column in known.items()}
    if given.get("provenance_class") == "imported":  # a few figures each, and many of them: reading fills the rest with NULL
        row = {name: value for name, value in row.items() if value is not None}
    rest = {key: value for key, value in document.items() if key not in ("run", "schema_version", "files")}
    safe: dict[str, Any] = json_safe({"schema_version": schema.SCHEMA_VERSION, "run": row, **rest, "files": files})
    return safe


def write_requests(path: Path, run_id: str, requests: Sequence[RequestRecord]) -> None:
    """requests.parquet; answers' texts are not kept in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = []
    for column, field in zip(schema.REQUESTS, schema.arrow_schema("requests"), strict=True):
        if column.type == "list<int32>":
            lists = stamps.int_lists([getattr(request, column.name) for request in requests])
            columns.append(stamps.to_gaps(lists) if column.name == stamps.OFFSETS else lists)
        else:
            values = [run_id] * len(requests) if column.name == "run_id" else [getattr(request, column.name) for request in requests]
            columns.append(pa.array([_text(value) for value in values] if column.type == "string" else values, field.type))
    table = pa.table(columns, schema=schema.arrow_schema("requests", schema.stored("requests")))
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=[c.name for c in schema.REQUESTS if c.type == "string" and c.name != "request_id"],
        column_encoding={f"{stamps.GAPS}.list.element": "BYTE_STREAM_SPLIT"},
    )


def json_safe(value: Any) -> Any:
    """The same value in plain JSON types; NaN and infinity become None, because JSON has neither."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_safe(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return json_safe(value.item())
    if isinstance(value, float):
        return value if value - value == 0 else None
    return _text(str(value))


def _text(value: str | None) -> str | None:
    """Text that UTF-8 can hold: a server that cuts an emoji in two sends half a surrogate pair, and neither JSON nor Parquet takes it."""
    return value if value is None or value.isascii() else value.encode("utf-8", "replace").decode()


def _typed(column: schema.Column, value: Any) -> Any:
    value = json_safe(value)
    if value is None:
        return [] if column.name == "validity_reasons" else None
    if column.type in ("int64", "int32"):
        return int(value)
    if column.type == "float64":
        return float(value)
    return value


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """run.json with a checksum of itself, in `sha256`: of all its other keys, as JSON without spaces and with sorted keys."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return {**rest, "sha256": seal_of(rest)}


def seal_of(document: Mapping[str, Any]) -> str:
    """The checksum that belongs into a run.json. Raises ValueError on NaN."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def checksum(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


@contextlib.contextmanager
def storing(root: Path) -> Iterator[None]:
    """Turn what the file system says into one line and a hint."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"{root}: no space left on its disk", hint="finished runs are kept; free some space and go on") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST) and not root.is_dir():
            raise StoreError(f"{root}: is not a folder", hint="give another --results FOLDER") from error
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(
            f"{root}: cannot be written: {error.strerror or error}{where}", hint="give --results a folder you may write"
        ) from error

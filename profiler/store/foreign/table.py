"""Reading a foreign table: CSV or a JSON summary in UTF-8 or UTF-16, with or without a byte-order mark, or Parquet. Cells are texts, as the file has them."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import StoreError

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """`rows` are (number in the file, cells by header); an empty cell is ""."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    encoding: str  # "utf-8", "utf-16-le", ... or "parquet"
    sha256: str

    def at(self, row: int, column: str) -> str:
        """`figures.csv, row 7, column 'TPOT'`."""
        return f"{self.path}, row {row}, column {column!r}"


def read(path: Path, delimiter: str | None = None) -> Table:
    """Raises StoreError, one line naming file and row."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}", hint="give a CSV or Parquet file") from error
    digest = hashlib.sha256(raw).hexdigest()
    if raw[:4] == b"PAR1":
        header, rows, encoding = *_parquet(path), "parquet"
    else:
        text, encoding = decode(path, raw)
        header, rows = _json(path, text) if text.lstrip()[:1] == "{" else _csv(path, text, delimiter)
    if not rows:
        raise StoreError(f"{path}: no rows", hint="a header and at least one row are needed")
    return Table(path, tuple(header), tuple(rows), encoding, digest)


def decode(path: Path, raw: bytes) -> tuple[str, str]:
    """By the mark, else by where the zero bytes are (UTF-16 without a mark), else UTF-8."""
    marked = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), None)
    if marked is not None:
        encoding, raw = marked[1], raw[len(marked[0]) :]
    else:
        head = raw[:200]
        odd, even = head[1::2].count(0), head[0::2].count(0)
        encoding = "utf-8" if odd + even < len(head) // 4 or not head else "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        hint = "save it as UTF-8 or UTF-16"
        raise StoreError(f"{path}, row {row}: neither UTF-8 nor UTF-16 (byte {error.start}: {error.reason})", hint=hint) from error
    if "\0" in text:
        raise StoreError(
            f"{path}, row {text[: text.index(chr(0))].count(chr(10)) + 1}: a zero byte: not a text table", hint="CSV or Parquet"
        )
    return text, encoding


def _csv(path: Path, text: str, delimiter: str | None) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or max(DELIMITERS, key=first.count), strict=True)
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                _check_header(path, header)
                continue
            if len(cells) != len(header):
                last = header[min(len(cells), len(header)) - 1]
                raise StoreError(
                    f"{path}, row {line}, column {last!r}: {len(cells)} cells, the header has {len(header)}",
                    hint="is the file cut off, or the delimiter another one (delimiter = in the mapping)?",
                )
            rows.append((line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}))
    except csv.Error as error:
        raise StoreError(f"{path}, row {reader.line_num}: not CSV: {error}", hint="is the file cut off?") from error
    return header, rows


def _json(path: Path, text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """One row, its nested keys joined by dots; or a row for each object in `benchmarks`. Lists, such as a figure per request, are left out."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON ({error})", hint="is the file cut off?") from error
    inside = whole.get("benchmarks")
    found = [dict(_flat(one, "")) for one in (inside if isinstance(inside, list) and inside else [whole])]
    header = list(dict.fromkeys(name for cells in found for name in cells))
    return header, [(n, {name: cells.get(name, "") for name in header}) for n, cells in enumerate(found, 1)]


def _flat(value: object, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif not isinstance(value, list):
        yield prefix, _text(value)


def _check_header(path: Path, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice:
        raise StoreError(f"{path}, row 1, column {twice[0]!r}: two columns of one name", hint="rename one of them")


def _parquet(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]})", hint="is the file cut off?") from error
    header = list(table.column_names)
    _check_header(path, header)
    rows = [(n, {name: _text(value) for name, value in row.items()}) for n, row in enumerate(table.to_pylist(), 1)]
    return header, rows


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)

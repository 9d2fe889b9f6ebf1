"""Reading recorded traces, one row per request. Formats, each told by its first line:

* azure: CSV `TIMESTAMP,ContextTokens,GeneratedTokens`, ISO times (Azure/AzurePublicDataset; Splitwise, ISCA'24; DynamoLLM, HPCA'25)
* burstgpt: CSV `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`, seconds (HPMLL/BurstGPT); other columns are left out
* mooncake: JSONL `timestamp` in ms, `input_length`, `output_length`, `hash_ids` of its 512-token blocks (kvcache-ai/Mooncake, FAST'25)
* jsonl: our own: `t_s`, `isl`, `osl`, and where wanted `session`, `turn`, `after_s` in place of `t_s`, `prefix` {"id", "tokens"}
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from profiler.errors import SpecError, did_you_mean

MOONCAKE_BLOCK_TOKENS = 512
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")
MOONCAKE = ("timestamp", "input_length", "output_length", "hash_ids")
OWN = ("t_s", "after_s", "isl", "osl", "session", "turn", "prefix")


@dataclass(frozen=True)
class Row:
    """One request as recorded. `t_s` from the trace's own zero; None: sent `after_s` after its session's turn before was answered."""

    line: int
    t_s: float | None
    isl: int
    osl: int
    session: str | None = None
    turn: int = 0
    after_s: float | None = None
    blocks: tuple[int, ...] = ()
    prefix: tuple[str, int] | None = None  # name and tokens


@dataclass(frozen=True)
class Trace:
    """`skipped`: rows that asked for no output (requests that failed in the recorded service)."""

    kind: str
    sha256: str
    rows: tuple[Row, ...]
    skipped: int


def read(path: Path, kind: str = "auto") -> Trace:
    """Read a whole trace. Raises SpecError naming file:line for the first row that cannot be used."""
    try:
        stat = path.stat()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}", hint="give the path of a trace file") from None
    return _read(path, kind, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)  # a plan, its dry run and its cells ask for the same file
def _read(path: Path, kind: str, _mtime_ns: int, _size: int) -> Trace:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}", hint="give the path of a trace file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text", hint="unpack it first if it is compressed") from None
    lines = text.splitlines()
    if not lines:
        raise SpecError(f"{path}: an empty file")
    if kind == "auto":
        kind = _kind_of(lines[0], path)
    parse = {"azure": _azure, "burstgpt": _burstgpt, "mooncake": _mooncake, "jsonl": _own}[kind]
    rows = [row for row in parse(path, lines) if row is not None]
    kept = tuple(row for row in rows if row.osl > 0)
    if not kept:
        raise SpecError(f"{path}: no requests in it")
    return Trace(kind, hashlib.sha256(data).hexdigest(), kept, len(rows) - len(kept))


def _kind_of(first: str, path: Path) -> str:
    if first.lstrip().startswith("{"):
        return "mooncake" if '"hash_ids"' in first or '"input_length"' in first else "jsonl"
    header = [name.strip() for name in first.split(",")]
    for name, columns in (("azure", AZURE), ("burstgpt", BURSTGPT)):
        if set(columns) <= set(header):
            return name
    raise SpecError(
        f"{path}:1: not a trace format this program knows", hint="give format: azure, mooncake, burstgpt or jsonl; see docs/workloads.md"
    )


def _csv(path: Path, lines: list[str], columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader)]
    missing = [name for name in columns if name not in header]
    if missing:
        raise SpecError(f"{path}:1: no column {', '.join(missing)}", hint=f"the header has {', '.join(header)}")
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            raise SpecError(f"{path}:{reader.line_num}: {len(cells)} cells, the header has {len(header)}")
        yield reader.line_num, dict(zip(header, cells, strict=True))


def _azure(path: Path, lines: list[str]) -> Iterator[Row]:
    first: datetime | None = None
    for line, cells in _csv(path, lines, AZURE):
        try:
            stamp = datetime.fromisoformat(cells["TIMESTAMP"].strip())
            first = first or stamp
            t_s = (stamp - first).total_seconds()
        except (ValueError, TypeError):  # no time, or one with and one without a time zone
            raise SpecError(f"{path}:{line}: TIMESTAMP: {cells['TIMESTAMP']!r} is not a time like the others") from None
        yield Row(line, t_s, _count(path, line, cells, "ContextTokens", 1), _count(path, line, cells, "GeneratedTokens", 0))


def _burstgpt(path: Path, lines: list[str]) -> Iterator[Row]:
    for line, cells in _csv(path, lines, BURSTGPT):
        t_s = _seconds(path, line, cells, "Timestamp")
        osl = _count(path, line, cells, "Response tokens", 0)
        yield Row(line, t_s, _count(path, line, cells, "Request tokens", 1 if osl else 0), osl)


def _mooncake(path: Path, lines: list[str]) -> Iterator[Row]:
    for line, row in _json(path, lines, None):
        isl = _count(path, line, row, "input_length", 1)
        blocks = row.get("hash_ids")
        needed = -(-isl // MOONCAKE_BLOCK_TOKENS)
        if not isinstance(blocks, list) or not all(isinstance(block, int) for block in blocks) or len(blocks) != needed:
            raise SpecError(f"{path}:{line}: hash_ids: {isl} tokens need a list of {needed} block ids")
        yield Row(
            line, _seconds(path, line, row, "timestamp") / 1e3, isl, _count(path, line, row, "output_length", 0), blocks=tuple(blocks)
        )


def _own(path: Path, lines: list[str]) -> Iterator[Row]:
    turns: dict[str, int] = {}
    for line, row in _json(path, lines, OWN):
        session = row.get("session")
        if session is not None and not isinstance(session, str):
            raise SpecError(f"{path}:{line}: session: must be a text, not {session!r}")
        turn = _count(path, line, row, "turn", 0) if "turn" in row else turns.get(session or "", 0)
        if ("t_s" in row) == ("after_s" in row):
            raise SpecError(f"{path}:{line}: give one of t_s and after_s")
        if session is None and ("after_s" in row or "turn" in row):
            raise SpecError(f"{path}:{line}: turn and after_s need a session")
        if session is not None and turn != turns.get(session, 0):
            raise SpecError(f"{path}:{line}: turn: {turn} of session {session!r} comes before its turn {turns.get(session, 0)}")
        if session is not None:
            turns[session] = turn + 1
        if "after_s" in row and turn == 0:
            raise SpecError(f"{path}:{line}: after_s: the first turn of a session has nothing to wait for", hint="give it t_s")
        t_s = _seconds(path, line, row, "t_s") if "t_s" in row else None
        after_s = _seconds(path, line, row, "after_s") if "after_s" in row else None
        isl, osl = _count(path, line, row, "isl", 1), _count(path, line, row, "osl", 0)
        yield Row(line, t_s, isl, osl, session, turn, after_s, prefix=_prefix(path, line, row.get("prefix")))


def _prefix(path: Path, line: int, prefix: Any) -> tuple[str, int] | None:
    if prefix is None:
        return None
    if not isinstance(prefix, dict) or set(prefix) != {"id", "tokens"} or not isinstance(prefix["id"], str):
        raise SpecError(f"{path}:{line}: prefix: not of the form " + '{"id": "NAME", "tokens": N}')
    return prefix["id"], _count(path, line, prefix, "tokens", 1)


def _json(path: Path, lines: list[str], known: tuple[str, ...] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpecError(f"{path}:{line}: not JSON: {error.msg} at character {error.pos + 1}") from None
        if not isinstance(row, dict):
            raise SpecError(f"{path}:{line}: not a JSON object")
        for key in row if known else ():
            if known and key not in known:
                raise SpecError(f"{path}:{line}: {key}: unknown key", hint=did_you_mean(key, known) or f"known keys: {', '.join(known)}")
        yield line, row


def _count(path: Path, line: int, row: Mapping[str, Any], key: str, least: int) -> int:
    value = row.get(key)
    try:
        if isinstance(value, float | bool) or value is None:
            raise ValueError
        count = int(value)
    except ValueError:
        raise SpecError(
            f"{path}:{line}: {key}: {value!r} is not a number of tokens" if key != "turn" else f"{path}:{line}: turn: {value!r}"
        ) from None
    if count < least:
        raise SpecError(f"{path}:{line}: {key}: {count} is less than {least}")
    return count


def _seconds(path: Path, line: int, row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        seconds = float(value)
    except (TypeError, ValueError):
        raise SpecError(f"{path}:{line}: {key}: {value!r} is not a time") from None
    if not 0 <= seconds < 1e12:
        raise SpecError(f"{path}:{line}: {key}: {value!r} is negative or not finite")
    return seconds

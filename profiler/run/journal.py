"""A cell's folder as its journal: what is noted before the load, and what can be told from it when the cell never came to its end.

The client's spool holds what happened (spool.py). What was asked is noted beside it before the first send, in prompts.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiler.errors import LoadError
from profiler.records import DriveResult, RequestRecord
from profiler.run import spool
from profiler.run.clocks import clock_step_s
from profiler.run.decode import RequestMeta, decode, spools

PROMPTS = "prompts.json"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Left:
    """What a cell that was broken off has measured. `finished` requests had ended; the others are `cancelled` and not of the cohort.

    The window closes at the latest when the first of those that never ended was to be sent: of the ones after it only the quick ones
    had ended, and a cohort of quick ones would flatter.
    """

    requests: list[RequestRecord]
    drive: DriveResult
    finished: int


def note(folder: Path, meta: Sequence[RequestMeta], tokenizer_json: Path | None) -> None:
    """Keep what the spool alone does not tell: which request each body is. Raises LoadError."""
    content = {"tokenizer_json": str(tokenizer_json) if tokenizer_json else None, "requests": [astuple(m) for m in meta]}
    try:
        (folder / PROMPTS).write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise LoadError(f"{folder}: {error.strerror}", hint="the results folder's disk is full or not writable") from error


def has_spool(folder: Path) -> bool:
    """Whether a load client wrote anything in the cell's folder."""
    return any(path.is_file() and path.stat().st_size for path in spools(folder))


def salvage(folder: Path) -> Left | None:
    """What the journal in `folder` holds; None where no request had ended. Raises OSError, ValueError or KeyError on a foreign one."""
    if not has_spool(folder) or not (folder / PROMPTS).is_file():
        return None
    noted = json.loads((folder / PROMPTS).read_text(encoding="utf-8"))
    meta = [RequestMeta(*row) for row in noted["requests"]]
    seen = [_look(path) for path in spools(folder)]
    finished = sum(one.finished for one in seen)
    if not finished:
        return None
    last_ns = max(one.last_ns for one in seen)
    opened = max((one.open_ns or last_ns for one in seen), default=last_ns)
    closed = min([one.close_ns for one in seen if one.close_ns] or [last_ns])
    closed = max(opened, min([closed, *(one.first_unended_ns for one in seen if one.first_unended_ns is not None)]))
    why = "cancelled: the run was broken off"
    decoded = decode(folder, meta, _counter(noted["tokenizer_json"]), (opened, closed), why)
    first = seen[0].clock[0] if seen[0].clock else (opened, 0)
    result = _result(folder)
    switches = result.get("context_switches")
    drive = DriveResult(
        started_ns=first[0],
        window_open_ns=opened,
        window_close_ns=closed,
        ended_ns=last_ns,
        started_at=datetime.fromtimestamp(sum(first) / 1e9, UTC).isoformat(timespec="milliseconds"),
        stop_reason=result.get("stop_reason", INTERRUPTED),
        client_cpu_s=result.get("client_cpu_s", math.nan),  # unknown where the client died with it
        stamps="kernel" if decoded.read_delay_p50_s is not None else "user",
        read_delay_p50_s=decoded.read_delay_p50_s,
        read_delay_p99_s=decoded.read_delay_p99_s,
        clock_step_s=max(clock_step_s(one.clock) for one in seen),
        repeated_prompts=sum("#" in request.request_id for request in decoded.requests),
        client_processes=len(seen),
        abandoned=result.get("abandoned", 0),
        context_switches=tuple(switches) if switches else None,
    )
    return Left(decoded.requests, drive, finished)


def _result(folder: Path) -> dict[str, Any]:
    """What a client said that came to its end although its cell did not; {} otherwise."""
    path = folder / "result.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


@dataclass(frozen=True)
class _Seen:
    """One spool in one pass, nothing decoded."""

    finished: int
    first_unended_ns: int | None  # when it was to be sent
    open_ns: int
    close_ns: int
    last_ns: int
    clock: list[tuple[int, int]]


def _look(path: Path) -> _Seen:
    intended: dict[int, int] = {}
    unended: dict[int, int] = {}
    finished = open_ns = close_ns = last_ns = 0
    clock: list[tuple[int, int]] = []
    for kind, seq, t_a, t_b, payload in spool.read(path):
        last_ns = max(last_ns, t_b)
        if kind == spool.SENT:
            intended[seq] = t_a
        elif kind == spool.CLOCK:
            clock.append((t_b, t_a))
        elif kind == spool.WINDOW:
            open_ns, close_ns = t_a, t_b
        elif kind == spool.END or (kind == spool.ERROR and not payload.startswith(b"cancelled")):
            finished += intended.pop(seq, None) is not None
        elif kind == spool.ERROR:
            unended[seq] = intended.pop(seq)
    unended |= intended
    return _Seen(finished, min(unended.values(), default=None), open_ns, close_ns, last_ns, clock)


def _counter(tokenizer_json: str | None) -> Any:
    """Counts the tokens of a text, as the cell would have; None without the tokenizer (most servers count for themselves)."""
    if tokenizer_json is None or not Path(tokenizer_json).is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_json)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

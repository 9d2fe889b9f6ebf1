"""A slice of a trace as calls and send times, with every factor by which it differs from the record."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from profiler.errors import SpecError
from profiler.spec import TraceSpec
from profiler.units import NS_PER_S, parse_duration_s
from profiler.workload.calls import Call, Piece, shorten
from profiler.workload.trace import MOONCAKE_BLOCK_TOKENS, Row, Trace, read

# Prompts tell themselves apart within their first tokens, a serial number among them; a shorter block would not hold it.
LEAST_BLOCK_TOKENS = 16
# All bodies are made before the clock starts; more than these would not fit a usual memory.
MAX_REQUESTS = 50_000


@dataclass(frozen=True)
class Replay:
    """`offsets_ns`: send times of the calls without parents, from the start. `duration_s`: length of the slice as replayed."""

    calls: tuple[Call, ...]
    offsets_ns: tuple[int, ...]
    duration_s: float
    facts: Mapping[str, Any]

    @property
    def rate(self) -> float:
        """Mean offered rate, 1/s."""
        return len(self.calls) / self.duration_s


def load(spec: TraceSpec) -> Replay:
    """The replay that `spec` describes; a pure function of it and of the file. Raises SpecError, naming file:line for a bad row.

    Rows are sorted by time. A thinned request is kept with probability `thin`, all turns of a session together. Lengths are divided
    and rounded to the nearest token, at least 1. The replay lasts as long as its slice (divided by `speed`), or to one mean gap after
    its last request where the slice has no end.
    """
    return _load(spec, _Read(read(Path(spec.file).expanduser(), spec.format)))


class _Read:
    """A trace that is hashed by its content's digest, not by its rows."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def __hash__(self) -> int:
        return hash(self.trace.sha256)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Read) and other.trace.sha256 == self.trace.sha256


@lru_cache(maxsize=4)  # a plan asks several times for each of its cells
def _load(spec: TraceSpec, content: _Read) -> Replay:
    trace = content.trace
    _check_blocks(spec, trace)
    inside = _slice(spec, trace)
    kept = _thin(inside, spec)
    if not kept:
        where = f"{spec.file}: {len(inside)} requests in the slice, none kept by thin = {spec.thin:g}"
        raise SpecError(where if inside else f"{spec.file}: no requests in the slice", hint="change start, length or thin")
    if len(kept) > MAX_REQUESTS:
        raise SpecError(f"{spec.file}: {len(kept)} requests, more than {MAX_REQUESTS}", hint="give trace.length or trace.thin")
    calls, times = _calls(kept, spec)
    # Nothing that is sent after the answer before it has a time of its own.
    last_s = max(times)
    gap_s = last_s / max(1, len(times) - 1) or 1.0
    duration_s = parse_duration_s(spec.length) / spec.speed if spec.length is not None else last_s + gap_s
    facts = {
        "file": Path(spec.file).name,
        "sha256": trace.sha256,
        "format": trace.kind,
        "rows": len(trace.rows),
        "rows_without_output": trace.skipped,
        "start": spec.start,
        "length": spec.length,
        "rows_in_slice": len(inside),
        "speed": spec.speed,
        "thin": spec.thin,
        "thin_seed": spec.thin_seed,
        "divide_lengths": spec.divide_lengths,
        "requests": len(calls),
        "duration_s": duration_s,
        "mean_rate": len(calls) / duration_s,
    }
    offsets = tuple(round(t_s * NS_PER_S) for t_s in times)
    return Replay(calls, offsets, duration_s, facts)


def describe(spec: TraceSpec) -> str:
    """`trace NAME x0.1 from 5min for 10min thin=0.05 lengths/16`: file and factors, those that change nothing left out."""
    parts = [f"trace {Path(spec.file).name} x{spec.speed:g}"]
    if parse_duration_s(spec.start):
        parts.append(f"from {spec.start}")
    if spec.length is not None:
        parts.append(f"for {spec.length}")
    if spec.thin < 1:
        parts.append(f"thin={spec.thin:g}")
    if spec.divide_lengths > 1:
        parts.append(f"lengths/{spec.divide_lengths}")
    return " ".join(parts)


def _check_blocks(spec: TraceSpec, trace: Trace) -> None:
    if trace.kind != "mooncake":
        return
    if MOONCAKE_BLOCK_TOKENS % spec.divide_lengths or MOONCAKE_BLOCK_TOKENS // spec.divide_lengths < LEAST_BLOCK_TOKENS:
        raise SpecError(
            f"trace.divide_lengths: {spec.divide_lengths} does not divide Mooncake's blocks of {MOONCAKE_BLOCK_TOKENS} tokens into whole "
            f"ones of at least {LEAST_BLOCK_TOKENS}",
            hint="give 1, 2, 4, 8, 16 or 32",
        )


def _slice(spec: TraceSpec, trace: Trace) -> list[tuple[float, Row]]:
    """Rows of the slice with their times from its start, s, sorted. A turn that waits for another has the time of its session's start."""
    zero = min(row.t_s for row in trace.rows if row.t_s is not None)
    start = zero + parse_duration_s(spec.start)
    end = start + parse_duration_s(spec.length) if spec.length is not None else float("inf")
    inside: list[tuple[float, Row]] = []
    sessions: dict[str, float] = {}
    for row in trace.rows:
        t_s = row.t_s if row.t_s is not None else sessions.get(row.session or "")
        if t_s is None or not start <= t_s < end:
            continue
        if row.session is not None:
            sessions[row.session] = t_s
        inside.append((t_s - start, row))
    return sorted(inside, key=lambda pair: pair[0])


def _thin(rows: Sequence[tuple[float, Row]], spec: TraceSpec) -> list[tuple[float, Row]]:
    if spec.thin >= 1:
        return list(rows)

    def keep(row: Row) -> bool:
        name = f"session {row.session}" if row.session is not None else f"line {row.line}"
        return random.Random(f"{spec.thin_seed}/{name}").random() < spec.thin

    return [(t_s, row) for t_s, row in rows if keep(row)]


def _calls(rows: Sequence[tuple[float, Row]], spec: TraceSpec) -> tuple[tuple[Call, ...], list[float]]:
    """Calls in order of time, and the send times of those that wait for nobody, s."""
    calls: list[Call] = []
    times: list[float] = []
    latest: dict[str, int] = {}
    prefixes: dict[str, int] = {}
    for t_s, row in rows:
        number = len(calls)
        isl, osl = _divided(row.isl, spec), _divided(row.osl, spec)
        before = latest.get(row.session) if row.session is not None else None
        known: tuple[Piece, ...] = ()
        if row.blocks:
            size = MOONCAKE_BLOCK_TOKENS // spec.divide_lengths
            known = tuple(Piece("block", block, size) for block in row.blocks)
        elif before is not None:
            known = (*calls[before].pieces, Piece("answer", before, calls[before].osl))
        elif row.prefix is not None:
            known = (Piece("group", prefixes.setdefault(row.prefix[0], len(prefixes)), _divided(row.prefix[1], spec)),)
        pieces = shorten(known, isl if row.blocks else isl - 1)
        own = isl - sum(piece.tokens for piece in pieces)
        if own > 0:  # beyond what it shares
            pieces = (*pieces, Piece("own", number, own))
        if row.after_s is not None and before is None:
            continue  # the turn before is not in the slice
        waits = row.after_s is not None and before is not None
        parents = (before,) if waits and before is not None else ()
        delay_ns = int((row.after_s or 0.0) / spec.speed * NS_PER_S) if waits else 0
        calls.append(Call(pieces, osl, row.session, row.turn, parents, delay_ns))
        if not waits:
            times.append(t_s / spec.speed)
        if row.session is not None:
            latest[row.session] = number
    return tuple(calls), times


def _divided(tokens: int, spec: TraceSpec) -> int:
    return max(1, int(tokens / spec.divide_lengths + 0.5))

"""What a tool's file says of one run: facts, its own figures with formulas, and its requests where it has them.

The tool's figures stay beside ours and are never mixed with them. What the file does not say is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from profiler.records import ErrorKind, LoadKind, RequestRecord
from profiler.store.foreign.payload import at, number
from profiler.units import NS_PER_S

STATISTICS = ("mean", "p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Figure:
    """`place` in the file; `to` a column of ours that it is by `formula`, else `foreign`, its own name."""

    place: str
    to: str | None
    foreign: str | None
    unit: str
    formula: str
    definition: str


@dataclass(frozen=True)
class ForeignRun:
    """`figures` as in run.json (`imported.figures`). `clock`: whose the request times are. `notes` go into validity_reasons."""

    model: str | None
    load_kind: LoadKind | None
    load: float | None
    figures: tuple[dict[str, Any], ...]
    requests: tuple[RequestRecord, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # further columns of `runs`
    clock: str | None = None
    notes: tuple[str, ...] = ()
    arrivals: str = "not stated"
    date: str | None = None  # ISO, of the measurement


def spread(place: str, to: str | None, foreign: str, unit: str, formula: str, definition: str, keys: dict[str, str]) -> tuple[Figure, ...]:
    """A figure for each statistic. `keys`: the source's key of it. `to` "ttft" makes ttft_mean_s and ttft_p50_s."""
    return tuple(
        Figure(
            f"{place}.{key}", f"{to}_{stat}_s" if to else None, None if to else f"{foreign}_{stat}", unit, formula, f"{definition}, {stat}"
        )
        for stat, key in keys.items()
    )


def read_figures(tree: Any, specs: Sequence[Figure]) -> tuple[dict[str, Any], ...]:
    """Those that the file has, raw and in its unit."""
    return tuple(
        {"column": s.place, "is": s.to, "foreign": s.foreign, "value": value, "unit": s.unit, "formula": s.formula, "definition": s.definition}
        for s in specs
        if (value := number(at(tree, s.place))) is not None
    )  # fmt: skip


def request(
    request_id: str,
    *,
    sent_s: float,
    intended_s: float | None = None,
    first_s: float | None = None,
    last_s: float | None = None,
    done_s: float | None = None,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
    arrivals_s: Sequence[float] = (),
    error_kind: ErrorKind | None = None,
    error: str | None = None,
    warmup: bool = False,
    in_window: bool = True,
    token_count_source: str | None = None,
) -> RequestRecord:
    """One request by our definitions; times in s of one clock, arrivals counted from the send, one token each. The first read is taken to
    have had one token. Without `intended_s` nothing is said of what the user waited."""
    first = None if first_s is None else first_s - sent_s
    tpot = None
    if first_s is not None and last_s is not None and output_tokens is not None and output_tokens > 1:
        tpot = (last_s - first_s) / (output_tokens - 1)
    gaps = [later - earlier for earlier, later in pairwise(arrivals_s)]
    sent_ns = _ns(sent_s)
    failed = error_kind is not None
    return RequestRecord(
        request_id=request_id,
        session_id=None,
        turn=0,
        intended_ns=sent_ns if intended_s is None else _ns(intended_s),
        sent_ns=sent_ns,
        first_token_ns=None if first_s is None else _ns(first_s),
        last_token_ns=None if last_s is None else _ns(last_s),
        done_ns=None if done_s is None else _ns(done_s),
        ttft_s=first,
        ttft_sched_s=None if first_s is None or intended_s is None else first_s - intended_s,
        tpot_s=tpot,
        e2e_s=None if done_s is None or failed else done_s - sent_s,
        e2e_sched_s=None if done_s is None or failed or intended_s is None else done_s - intended_s,
        max_icl_s=max(gaps, default=None),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        asked_output_tokens=None,
        finish_reason=None,
        error_kind=error_kind,
        error=error,
        http_status=None,
        warmup=warmup,
        in_window=in_window and not warmup,
        connection_reused=None,
        token_count_source=token_count_source,
        arrival_offsets_us=tuple(round(offset * 1e6) for offset in arrivals_s),
        arrival_tokens=(1,) * len(arrivals_s),
    )


def whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else round(found)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)

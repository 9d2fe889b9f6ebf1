"""Synthetic runs: records of known times, without an engine."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from profiler.records import DriveResult, RequestRecord

MS = 1_000_000


def record(
    number: int, *, intended_ms: int = 0, ttft_ms: int = 100, gaps_ms: tuple[int, ...] = (20, 20, 20), **changes: Any
) -> RequestRecord:
    """A request that was answered: sent 1 ms late, one token at `ttft_ms` after the send, one more after each gap."""
    sent = intended_ms * MS + MS
    offsets_ms = [ttft_ms]
    for gap in gaps_ms:
        offsets_ms.append(offsets_ms[-1] + gap)
    first, last = sent + offsets_ms[0] * MS, sent + offsets_ms[-1] * MS
    values: dict[str, Any] = {
        "request_id": f"r{number:04d}",
        "session_id": None,
        "turn": 0,
        "intended_ns": intended_ms * MS,
        "sent_ns": sent,
        "first_token_ns": first,
        "last_token_ns": last,
        "done_ns": last + MS,
        "ttft_s": ttft_ms / 1e3,
        "ttft_sched_s": (ttft_ms + 1) / 1e3,
        "tpot_s": sum(gaps_ms) / len(gaps_ms) / 1e3 if gaps_ms else None,
        "e2e_s": (offsets_ms[-1] + 1) / 1e3,
        "e2e_sched_s": (offsets_ms[-1] + 2) / 1e3,
        "max_icl_s": max(gaps_ms) / 1e3 if gaps_ms else None,
        "prompt_tokens": 128,
        "output_tokens": len(offsets_ms),
        "asked_output_tokens": len(offsets_ms),
        "finish_reason": "length",
        "error_kind": None,
        "error": None,
        "http_status": 200,
        "warmup": False,
        "in_window": True,
        "connection_reused": True,
        "token_count_source": "token_ids",
        "arrival_offsets_us": tuple(offset * 1000 for offset in offsets_ms),
        "arrival_tokens": (1,) * len(offsets_ms),
        "text": "kept out of the Parquet file",
    }
    return RequestRecord(**values | changes)


def document(**run: Any) -> dict[str, Any]:
    """What `profile sweep` hands to the store for one cell."""
    columns = {
        "sweep_id": "s1",
        "cell_id": "c1",
        "environment_hash": "e1",
        "repeat": 0,
        "status": "done",
        "validity": "valid",
        "validity_reasons": [],
        "backend": "null",
        "load_kind": "concurrency",
        "load": 4.0,
        "started_at": "2026-11-24T01:00:00.000+00:00",
    }
    return {"run": columns | run, "provenance": {"git_commit": None}, "quality": {}, "samples": [], "verdicts": []}


def drive(**changes: Any) -> DriveResult:
    """A load client without a fault; its window is the second after the start."""
    values: dict[str, Any] = {
        "started_ns": 0,
        "window_open_ns": 0,
        "window_close_ns": 1000 * MS,
        "ended_ns": 2000 * MS,
        "started_at": "2026-11-24T01:00:00.000+00:00",
        "stop_reason": "cohort complete",
        "client_cpu_s": 0.1,
        "stamps": "kernel",
        "read_delay_p50_s": 1e-5,
        "read_delay_p99_s": 1e-4,
        "clock_step_s": 0.0,
        "repeated_prompts": 0,
    }
    return DriveResult(**values | changes)


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: a write fails midway, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def make_record() -> Callable[..., RequestRecord]:
    return record


@pytest.fixture
def make_document() -> Callable[..., dict[str, Any]]:
    return document


@pytest.fixture
def make_drive() -> Callable[..., DriveResult]:
    return drive

"""Journals as a killed sweep leaves them, written byte by byte from the table in docs/store.md: no code of the product's spool."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from synthetic import document

RECORD = struct.Struct("<B3xIqqI")
SENT, READ, END, EOF, ERROR, CLOCK, WINDOW = range(1, 8)
MS = 1_000_000
WALL_OFFSET_NS = 1_795_000_000_000_000_000  # a day in November 2026 at monotonic 0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def record(kind: int, seq: int, first_ns: int, second_ns: int, content: bytes = b"") -> bytes:
    return RECORD.pack(kind, seq, first_ns, second_ns, len(content)) + content


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(number: int, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": "a", "token_ids": [number], "finish_reason": finish}
    return chunk(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


def sent(seq: int, intended_ms: int) -> bytes:
    return record(SENT, seq, intended_ms * MS, intended_ms * MS + MS, struct.pack("<IB", seq, 0))


def answered(seq: int, first_ms: int, tokens: int = 3) -> bytes:
    """Three reads, 10 ms apart, and the end."""
    reads = [record(READ, seq, 0, (first_ms + 10 * k) * MS, (HEAD if k == 0 else b"") + token(k)) for k in range(tokens - 1)]
    last_ms = first_ms + 10 * (tokens - 1)
    last = token(tokens - 1, "length") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return b"".join([*reads, record(READ, seq, 0, last_ms * MS, last), record(END, seq, 0, last_ms * MS)])


def spool(ended: int, under_way: int = 1) -> bytes:
    """Requests intended every 100 ms from 0 on, each answered within the next 100 ms; the window opened at 100 ms; then the kill."""
    parts = [record(CLOCK, 0, WALL_OFFSET_NS, 0), record(WINDOW, 0, 100 * MS, 0)]
    for seq in range(ended):
        parts += [sent(seq, 100 * seq), answered(seq, 100 * seq + 20)]
    for seq in range(ended, ended + under_way):
        parts += [sent(seq, 100 * seq), record(READ, seq, 0, (100 * seq + 20) * MS, HEAD + token(0))]
    return b"".join(parts)


def fill(folder: Path, content: bytes, n_prompts: int = 50, **run: Any) -> None:
    """A draft's folder as it is while its cell is measured."""
    facts = document(status="failed", **run)
    facts["provenance"]["sweep"] = {"telemetry_period_s": 1.0}
    (folder / "record.json").write_text(json.dumps(facts))
    rows = [[f"r{i}", None, 0, 16, 3, None] for i in range(n_prompts)]
    (folder / "prompts.json").write_text(json.dumps({"tokenizer_json": None, "requests": rows}))
    (folder / "bodies.bin").write_bytes(b"{}")
    (folder / "spool.bin").write_bytes(content)

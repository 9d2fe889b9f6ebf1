"""What the paced server really sent, as it wrote it down.

A request is paired with a client's record by the hash of its body (bodies are different), or by X-Request-Id where the client sends one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SentChunk:
    """A send() and its tokens. Before it no client can have had them; after it the kernel of the same machine has delivered them."""

    before_ns: int  # CLOCK_MONOTONIC
    after_ns: int
    tokens: int


@dataclass(frozen=True)
class SentRequest:
    """One request as the server saw it. `ended`: "done", "client gone", "server stopped", or what its fault did."""

    index: int
    stream_index: int | None  # None: not a stream
    connection: int
    body_fnv1a: str
    request_id: str | None
    received_ns: int  # the read that completed it had returned
    waited_ns: int | None  # for a place; None: it never got one
    prompt_tokens: int
    asked_tokens: int
    tokens: int
    blocked: int  # chunks that waited in the server because the client did not read
    fault: str
    ended: str
    chunks: tuple[SentChunk, ...]

    @property
    def began_ns(self) -> int | None:
        """When its service began: times are counted from here."""
        return None if self.waited_ns is None else self.received_ns + self.waited_ns


def read(path: Path) -> Iterator[SentRequest]:
    """All whole lines, in the order the requests ended."""
    with path.open(encoding="ascii") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            raw = json.loads(line)
            at = raw["received_ns"]
            raw["chunks"] = tuple(SentChunk(at + before, at + after, tokens) for before, after, tokens in raw["chunks"])
            raw["stream_index"] = None if raw["stream_index"] < 0 else raw["stream_index"]
            raw["waited_ns"] = None if raw["waited_ns"] < 0 else raw["waited_ns"]
            raw["request_id"] = raw["request_id"] or None
            yield SentRequest(**raw)


def fnv1a(body: bytes) -> str:
    """FNV-1a, 64 bits, as the server writes it (Fowler, Noll, Vo: draft-eastlake-fnv)."""
    value = 0xCBF29CE484222325
    for byte in body:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"

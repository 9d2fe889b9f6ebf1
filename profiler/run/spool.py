"""The client's spool: what was sent and every raw read with its stamps, in the order it happened. It is the journal of a run.

A record is a fixed header and a payload. `seq` numbers the requests of a run in the order they were sent.

| kind | t_a_ns | t_b_ns | payload |
|---|---|---|---|
| SENT | intended (monotonic) | first byte given to the kernel (monotonic) | body index u32, reused u8 |
| READ | kernel receive stamp (realtime), 0 without one | after the read returned (monotonic) | the bytes |
| END | 0 | the response was complete (monotonic) | |
| EOF | 0 | the server closed the connection (monotonic) | |
| ERROR | 0 | when (monotonic) | "kind: message" |

Standard library only: the load client imports this.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEADER = struct.Struct("<BxxxIqqI")
SENT_PAYLOAD = struct.Struct("<IB")
SENT, READ, END, EOF, ERROR = 1, 2, 3, 4, 5

NAME = "spool.bin"
_BATCH_BYTES = 1 << 18
_BATCH_BUFFERS = 512  # well below IOV_MAX (1024), two buffers a record


class Record(NamedTuple):
    kind: int
    seq: int
    t_a_ns: int
    t_b_ns: int
    payload: bytes


class Writer:
    """Appends records; hands them to the kernel in batches by one writev, which is cheaper than any copy."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._buffers: list[bytes] = []
        self._size = 0

    def add(self, kind: int, seq: int, t_a_ns: int, t_b_ns: int, payload: bytes = b"") -> None:
        self._buffers.append(HEADER.pack(kind, seq, t_a_ns, t_b_ns, len(payload)))
        if payload:
            self._buffers.append(payload)
            self._size += len(payload)
        if self._size > _BATCH_BYTES or len(self._buffers) >= _BATCH_BUFFERS:
            self.flush()

    def flush(self) -> None:
        """Give everything to the kernel: from then on a killed process loses nothing. Raises OSError (disk full)."""
        buffers, self._buffers, self._size = self._buffers, [], 0
        while buffers:
            written = os.writev(self._fd, buffers)
            while buffers and written >= len(buffers[0]):
                written -= len(buffers.pop(0))
            if written:
                buffers[0] = buffers[0][written:]

    def close(self) -> None:
        self.flush()
        os.close(self._fd)


def read(path: Path) -> Iterator[Record]:
    """All whole records; a record that a crash cut short ends the iteration."""
    with path.open("rb") as file:
        while len(head := file.read(HEADER.size)) == HEADER.size:
            kind, seq, t_a_ns, t_b_ns, length = HEADER.unpack(head)
            payload = file.read(length)
            if len(payload) < length:
                return
            yield Record(kind, seq, t_a_ns, t_b_ns, payload)

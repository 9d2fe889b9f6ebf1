"""The client's spool: what was sent and every raw read with its stamps, in the order it happened. It is the journal of a run.

A record is a fixed header and a payload. `seq` numbers the requests of a run in the order they were sent.

| kind | t_a_ns | t_b_ns | payload |
|---|---|---|---|
| SENT | intended (monotonic) | first byte given to the kernel (monotonic) | body index u32, reused + 2 × replica u8 |
| READ | kernel receive stamp (realtime), 0 without one | after the read returned (monotonic) | the bytes |
| END | 0 | the response was complete (monotonic) | |
| EOF | 0 | the server closed the connection (monotonic) | |
| ERROR | 0 | when (monotonic) | "kind: message" |
| CLOCK | realtime − monotonic | when (monotonic) | |

CLOCK records tie the two clocks together from there on; the first one comes before the first READ.

Standard library only: the load client imports this.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

HEADER = struct.Struct("<BxxxIqqI")
SENT_PAYLOAD = struct.Struct("<IB")
SENT, READ, END, EOF, ERROR, CLOCK = 1, 2, 3, 4, 5, 6

NAME = "spool.bin"
_BATCH_BUFFERS = 512  # well below IOV_MAX (1024); two buffers a record, and a read is 16 KiB at most
_READ_BYTES = 1 << 20


class Writer:
    """Appends records; hands them to the kernel in batches by one writev, which is cheaper than any copy."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._buffers: list[bytes] = []

    def add(self, kind: int, seq: int, t_a_ns: int, t_b_ns: int, payload: bytes = b"") -> None:
        self._buffers.append(HEADER.pack(kind, seq, t_a_ns, t_b_ns, len(payload)))
        if payload:
            self._buffers.append(payload)
        if len(self._buffers) >= _BATCH_BUFFERS:
            self.flush()

    def flush(self) -> None:
        """Give everything to the kernel: from then on a killed process loses nothing. Raises OSError (disk full)."""
        buffers, self._buffers = self._buffers, []
        while buffers:
            written = os.writev(self._fd, buffers)
            if written == sum(map(len, buffers)):
                return
            while buffers and written >= len(buffers[0]):
                written -= len(buffers.pop(0))
            if written:
                buffers[0] = buffers[0][written:]

    def close(self) -> None:
        self.flush()
        os.close(self._fd)


def read(path: Path) -> Iterator[tuple[int, int, int, int, bytes]]:
    """All whole records as (kind, seq, t_a_ns, t_b_ns, payload); a record that a crash cut short ends the iteration."""
    unpack, header = HEADER.unpack_from, HEADER.size
    data = b""
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            data += piece
            at, whole = 0, len(data)
            while at + header <= whole:
                kind, seq, t_a_ns, t_b_ns, length = unpack(data, at)
                end = at + header + length
                if end > whole:
                    break
                yield kind, seq, t_a_ns, t_b_ns, data[at + header : end]
                at = end
            data = data[at:]

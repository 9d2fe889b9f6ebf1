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
| WINDOW | opens (monotonic), 0 if not known yet | closed (monotonic), 0 if not yet | |

CLOCK records tie the two clocks together from there on; the first one comes before the first READ. The last WINDOW record holds.

Whoever writes a spool holds its lock (flock) until the end, however that comes. Nobody else may take it for a leftover before.

Standard library only: the load client imports this.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

HEADER = struct.Struct("<BxxxIqqI")
SENT_PAYLOAD = struct.Struct("<IB")
SENT, READ, END, EOF, ERROR, CLOCK, WINDOW = 1, 2, 3, 4, 5, 6, 7

NAME = "spool.bin"
RESERVE = "spool.reserve"  # given back when the disk is full, so that what was read until then still fits
_RESERVE_BYTES = 4 << 20  # a tick's reads (0.1 s) at the 100,000 tokens/s a client can take in, 300 bytes each
_BATCH_BUFFERS = 512  # well below IOV_MAX (1024); two buffers a record, and a read is 16 KiB at most
_READ_BYTES = 1 << 20


class SpoolError(Exception):
    """The spool cannot be written any more, in one line. What was added until then is in it, if the disk only was full."""


class Writer:
    """Appends records; hands them to the kernel in batches by one writev, which is cheaper than any copy.

    Syncs nothing: that would hold up the loop that stamps. See drive.Syncing.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._reserve = path.with_name(RESERVE)
        self._buffers: list[bytes] = []
        with contextlib.suppress(OSError):  # a file system that cannot: the last batch before the disk was full is then lost
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(fd, 0, _RESERVE_BYTES)
            finally:
                os.close(fd)

    def add(self, kind: int, seq: int, t_a_ns: int, t_b_ns: int, payload: bytes = b"") -> None:
        self._buffers.append(HEADER.pack(kind, seq, t_a_ns, t_b_ns, len(payload)))
        if payload:
            self._buffers.append(payload)
        if len(self._buffers) >= _BATCH_BUFFERS:
            self.flush()

    def flush(self) -> None:
        """Give everything to the kernel: from then on a killed process loses nothing. Raises SpoolError (disk full)."""
        buffers, self._buffers = self._buffers, []
        try:
            self._write(buffers)
        except OSError as error:
            with contextlib.suppress(OSError):
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    self._reserve.unlink()
                    self._write(buffers)
            raise SpoolError(f"its journal cannot be written: {error.strerror or error}") from error

    def _write(self, buffers: list[bytes]) -> None:
        """Takes from the front of `buffers` what is written, so that a second try goes on where the first one ended."""
        while buffers:
            written = os.writev(self._fd, buffers)
            if written == sum(map(len, buffers)):
                buffers.clear()
                return
            while buffers and written >= len(buffers[0]):
                written -= len(buffers.pop(0))
            if written:
                buffers[0] = buffers[0][written:]

    def close(self) -> None:
        try:
            self.flush()
        finally:
            with contextlib.suppress(OSError):
                self._reserve.unlink()
            os.close(self._fd)


def read(path: Path) -> Iterator[tuple[int, int, int, int, bytes]]:
    """All whole records as (kind, seq, t_a_ns, t_b_ns, payload).

    What a crash left at the end ends the iteration: a record cut short, or (after a power cut) blocks that were never written, zeros.
    """
    unpack, header = HEADER.unpack_from, HEADER.size
    data = b""
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            data += piece
            at, whole = 0, len(data)
            while at + header <= whole:
                kind, seq, t_a_ns, t_b_ns, length = unpack(data, at)
                end = at + header + length
                if not SENT <= kind <= WINDOW:
                    return
                if end > whole:
                    break
                yield kind, seq, t_a_ns, t_b_ns, data[at + header : end]
                at = end
            data = data[at:]

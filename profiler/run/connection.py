"""One connection of the load client: non-blocking send, stamped reads, and just enough HTTP to know when an answer is complete.

Standard library only. Nothing is decoded here: the header of each answer is looked at once, for its framing.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time

from profiler.run.clocks import SO_TIMESTAMPNS, STAMP, STAMP_SPACE, enable_kernel_stamps

READ_BYTES = 1 << 14
_CHUNKED_END = b"0\r\n\r\n"


class ConnectionLost(Exception):
    """The peer went away or refused. `kind` is an ErrorKind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Framing:
    """Says when one HTTP/1.1 answer is complete.

    The last bytes of a chunked body are CR LF 0 CR LF CR LF. JSON escapes CR and LF and server-sent events hold JSON, so these bytes
    do not occur inside; the decoder parses every chunk afterwards and would show a wrong guess as a bad stream.
    """

    __slots__ = ("_head", "_left", "_tail", "close", "complete", "started")

    def __init__(self) -> None:
        self.started = False  # a byte of the answer has come
        self.complete = False
        self.close = False  # the server will close the connection after this answer
        self._head: bytes | None = b""
        self._left: int | None = None  # content-length bytes to come; None: chunked, or until the end
        self._tail = b""

    def feed(self, data: bytes) -> bool:
        """True when the answer is complete."""
        self.started = True
        if self._head is not None:
            body = self._header(data)
            if body is None:
                return False
            data = body
        if self._left is not None:
            self._left -= len(data)
            self.complete = self._left <= 0
        else:
            tail = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
            self._tail = tail
            self.complete = tail.endswith(_CHUNKED_END) and (len(tail) < 7 or tail.startswith(b"\r\n"))
        return self.complete

    def _header(self, data: bytes) -> bytes | None:
        """The part of `data` after the header, None while the header is incomplete."""
        assert self._head is not None
        head = self._head + data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            self._head = head
            return None
        self._head = None
        lines = head[:end].lower().split(b"\r\n")
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                self._left = int(value) if value.strip().isdigit() else 0
            elif name == b"connection" and value.strip() == b"close":
                self.close = True
            elif name == b"transfer-encoding" and b"chunked" in value:
                self._left = None
                self._tail = b"\r\n"
                return head[end + 4 :]
        if self._left is None:
            self.close = True  # neither length nor chunks: the end of the connection is the end of the answer
        return head[end + 4 :]


class Connection:
    """A socket that carries one request at a time. `seq` is the request it carries, None when idle."""

    __slots__ = (
        "_incoming",
        "_outgoing",
        "_secure",
        "_tls",
        "_unsent",
        "connected",
        "framing",
        "kernel_stamps",
        "sent",
        "seq",
        "sock",
        "used",
    )

    def __init__(self, address: tuple[object, ...], family: int, tls: ssl.SSLContext | None, host: str) -> None:
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kernel_stamps = enable_kernel_stamps(self.sock)
        self.seq: int | None = None
        self.framing = Framing()
        self.used = False  # has carried an answer before
        self.connected = False
        self.sent = False  # has been given a request
        self._unsent = b""
        self._secure = False
        self._tls: ssl.SSLObject | None = None
        if tls is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        code = self.sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self.sock.close()
            raise ConnectionLost("connect", errno.errorcode.get(code, str(code)))

    def fileno(self) -> int:
        return self.sock.fileno()

    def finish_connect(self) -> None:
        """Call when the socket became writable for the first time. Raises ConnectionLost."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise ConnectionLost("connect", errno.errorcode.get(code, str(code)))
        self.connected = True
        if self._tls is not None:
            self._handshake()

    def send(self, seq: int, data: bytes) -> int:
        """Start a request; returns the monotonic ns at which its first byte was given to the kernel. Raises ConnectionLost."""
        self.seq = seq
        self.sent = True
        self.framing = Framing()
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._unsent += data
        now = time.monotonic_ns()
        self.flush()
        return now

    def flush(self) -> bool:
        """Send what is left; True when nothing is. Raises ConnectionLost."""
        if self._unsent:
            try:
                sent = self.sock.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError as error:
                raise ConnectionLost("send", error.strerror or str(error)) from error
            self._unsent = self._unsent[sent:]
        return not self._unsent

    @property
    def ready(self) -> bool:
        """Can carry a request now."""
        return self.connected and (self._tls is None or self._secure)

    def read(self) -> tuple[bytes, int, bool] | None:
        """(bytes, kernel stamp in CLOCK_REALTIME ns or 0, whether the server closed) of one read; None when there is nothing.

        Over TLS the bytes are the decrypted ones and may be empty. Raises ConnectionLost on a reset.
        """
        try:
            data, control, _, _ = self.sock.recvmsg(READ_BYTES, STAMP_SPACE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ConnectionLost("reset", error.strerror or str(error)) from error
        stamp = 0
        for level, kind, value in control:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = STAMP.unpack(value[: STAMP.size])
                stamp = seconds * 1_000_000_000 + nanoseconds
        if self._tls is None or not data:
            return data, stamp, not data
        return self._decrypt(data), stamp, False

    def _handshake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
            self._secure = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise ConnectionLost("connect", f"TLS: {error.reason or error}") from error
        self._unsent += self._outgoing.read()
        self.flush()

    def _decrypt(self, data: bytes) -> bytes:
        assert self._tls is not None
        self._incoming.write(data)
        if not self._secure:
            self._handshake()
            if not self._secure:
                return b""
        plain = []
        try:
            while piece := self._tls.read(READ_BYTES):
                plain.append(piece)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError as error:
            raise ConnectionLost("reset", f"TLS: {error.reason or error}") from error
        return b"".join(plain)

    def close(self) -> None:
        self.sock.close()

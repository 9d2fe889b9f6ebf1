"""One connection of the load client: non-blocking send, stamped reads, and just enough HTTP to know when an answer is complete.

Standard library only. Nothing is decoded here: the header of each answer is looked at once, for its framing.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from email.utils import parsedate_to_datetime

from profiler.run.clocks import STAMP, STAMP_SPACE, enable_kernel_stamps
from profiler.units import NS_PER_S

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

    __slots__ = ("_head", "_last", "_left", "close", "retry_after_s", "started", "status", "until_eof")

    def __init__(self) -> None:
        self.started = False  # a byte of the answer has come
        self.close = False  # the server will close the connection after this answer
        self.until_eof = False  # and only that ends the answer
        self.status = 0
        self.retry_after_s: float | None = None
        self._head: bytes | None = b""
        self._left: int | None = None  # content-length bytes to come; None: chunked, or until the end
        self._last = b""  # the previous read of a chunked body, or the end of it

    def feed(self, data: bytes) -> bool:
        """True when the answer is complete."""
        if self._head is not None:
            self.started = True
            body = self._header(data)
            if body is None:
                return False
            data = body
        if self._left is not None:
            self._left -= len(data)
            self.close |= self._left < 0  # more than was announced: what comes next on this connection cannot be told
            return self._left <= 0
        if len(data) < 7:
            data = self._last[-7:] + data  # the end may be cut anywhere
        self._last = data
        return data.endswith(_CHUNKED_END) and data[-7:-5] == b"\r\n" and not self.until_eof

    def _header(self, data: bytes) -> bytes | None:
        """The part of `data` after the header, None while the header is incomplete."""
        assert self._head is not None
        head = self._head + data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            self._head = head
            return None
        self._head = None
        chunked = False
        first, *lines = head[:end].lower().split(b"\r\n")
        parts = first.split()
        self.status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
        self.close = first.startswith(b"http/1.0")
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.strip()
            if name == b"content-length":
                self._left = int(value) if value.isdigit() else 0
            elif name == b"connection":
                self.close = value == b"close" or (self.close and value != b"keep-alive")
            elif name == b"transfer-encoding":
                chunked = b"chunked" in value
            elif name == b"retry-after":
                self.retry_after_s = _retry_after_s(value)
        if chunked:
            self._left, self._last = None, b"\r\n"
        elif self._left is None:
            self.close = self.until_eof = True
        return head[end + 4 :]


def _retry_after_s(value: bytes) -> float | None:
    """Seconds of a Retry-After header: a number or a date (RFC 9110, 10.2.3). None when it is neither."""
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - time.time())
    except ValueError:
        return None


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
        "send_error",
        "sent",
        "seq",
        "sock",
        "to",
        "used",
    )

    def __init__(self, address: tuple[object, ...], family: int, tls: ssl.SSLContext | None, host: str, to: int = 0) -> None:
        try:
            self.sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # no descriptors left
            raise ConnectionLost("connect", error.strerror or str(error)) from error
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kernel_stamps = enable_kernel_stamps(self.sock)
        self.seq: int | None = None
        self.to = to  # which of several servers
        self.framing = Framing()
        self.used = False  # has carried an answer before
        self.connected = False
        self.sent = False  # has been given a request
        self.send_error: str | None = None  # the server took no more of a request; it may have said why
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
        """Start a request; returns the monotonic ns at which its first byte was given to the kernel."""
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
        """Send what is left; True when nothing is."""
        if self._unsent:
            try:
                sent = self.sock.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError as error:
                # Not the end yet: a server that refuses a body half-way (413, 503) has answered before it closed.
                self.send_error = error.strerror or str(error)
                self._unsent = b""
                return True
            self._unsent = self._unsent[sent:]
        return not self._unsent

    @property
    def ready(self) -> bool:
        """Can carry a request now."""
        return self.connected and (self._tls is None or self._secure)

    @property
    def reusable(self) -> bool:
        """Whether the next request may use it, after a complete answer."""
        return not (self.framing.close or self._unsent or self.send_error)

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
        if control:  # nothing else was asked for
            seconds, nanoseconds = STAMP.unpack(control[0][2])
            stamp = seconds * NS_PER_S + nanoseconds
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

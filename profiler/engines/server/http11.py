"""HTTP/1.1 over raw sockets on an asyncio loop: as much as a model server needs.

asyncio's own streams need three turns of the loop from a new connection to its first byte, and each turn waits for a `step()` of up
to hundreds of milliseconds. Here one readiness event accepts, reads and dispatches in the same turn.
"""

from __future__ import annotations

import asyncio
import json
import socket
import traceback
from collections.abc import Callable
from typing import Any

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
REASONS = {
    100: "Continue",
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class BadRequest(Exception):
    """Ends a request with `status` and an OpenAI-shaped JSON error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Connection:
    """One client connection; at most one request at a time, the next one waits in the buffer (keep-alive, pipelining)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, handler: Handler) -> None:
        self.loop, self.sock, self.handler = loop, sock, handler
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.busy = False
        self.continued = False  # "100 Continue" was sent for the request in the inbox
        self.closing = False  # close once the outbox is empty
        self.closed = False
        self.keep_alive = True
        self.on_disconnect: Callable[[], None] | None = None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(sock, self.readable)
        self.readable()

    def readable(self) -> None:
        try:
            data = self.sock.recv(256 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.inbox += data
        if len(self.inbox) > MAX_HEAD_BYTES + MAX_BODY_BYTES:
            self.close()
            return
        self.parse()

    def parse(self) -> None:
        """Dispatch the next complete request of the inbox, if there is one and none is running."""
        while not self.busy and not self.closing and not self.closed:
            try:
                request = self._next_request()
            except BadRequest as error:
                self.keep_alive = False
                self.busy = True
                self.fail(error.status, error.message)
                return
            if request is None:
                return
            self.busy = True
            try:
                self.handler(self, *request)
            except BadRequest as error:
                self.fail(error.status, error.message)
            except Exception:  # a fault of ours must not leave the client waiting
                traceback.print_exc()
                self.fail(500, "the server failed on this request; its log says why")

    def _next_request(self) -> tuple[str, str, dict[str, str], bytes] | None:
        end = self.inbox.find(b"\r\n\r\n")
        if end < 0:
            if len(self.inbox) > MAX_HEAD_BYTES:
                raise BadRequest(431, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")
            return None
        lines = self.inbox[:end].decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadRequest(400, "not an HTTP/1.1 request")
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
        if "transfer-encoding" in headers:
            raise BadRequest(411, "send the body with Content-Length")
        length_text = headers.get("content-length", "0")
        if not length_text.isdigit():
            raise BadRequest(400, "Content-Length is not a number")
        length = int(length_text)
        if length > MAX_BODY_BYTES:
            raise BadRequest(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        if len(self.inbox) < end + 4 + length:
            if headers.get("expect", "").lower() == "100-continue" and not self.continued:
                self.continued = True
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body = bytes(self.inbox[end + 4 : end + 4 + length])
        del self.inbox[: end + 4 + length]
        self.continued = False
        connection = headers.get("connection", "").lower()
        self.keep_alive = connection != "close" and (words[2] == "HTTP/1.1" or connection == "keep-alive")
        return words[0], words[1].partition("?")[0], headers, body

    def send(self, data: bytes) -> None:
        """Write now what the kernel takes, the rest when it can."""
        if self.closed:
            return
        if not self.outbox:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data = data[sent:]
            self.loop.add_writer(self.sock, self.writable)
        self.outbox += data

    def writable(self) -> None:
        try:
            sent = self.sock.send(self.outbox)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self.outbox[:sent]
        if not self.outbox:
            self.loop.remove_writer(self.sock)
            if self.closing:
                self.close()

    def respond(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """A whole response; ends the request."""
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        self.send(head.encode() + self._connection_header() + b"\r\n" + body)
        self.finish()

    def respond_json(self, status: int, content: Any) -> None:
        self.respond(status, json.dumps(content, separators=(",", ":")).encode())

    def fail(self, status: int, message: str) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.respond_json(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})

    def stream_head(self) -> bytes:
        """The head of a streamed response; chunks follow, then `last_chunk` and finish()."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n"
        return head + self._connection_header() + b"\r\n"

    def _connection_header(self) -> bytes:
        return b"Connection: keep-alive\r\n" if self.keep_alive else b"Connection: close\r\n"

    def finish(self) -> None:
        """The request is answered: take the next one, or close."""
        self.busy = False
        self.on_disconnect = None
        if not self.keep_alive:
            self.closing = True
            if not self.outbox:
                self.close()
        elif self.inbox:
            self.loop.call_soon(self.parse)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.loop.remove_reader(self.sock)
        self.loop.remove_writer(self.sock)
        self.sock.close()
        if self.on_disconnect is not None:
            self.on_disconnect()


Handler = Callable[[Connection, str, str, dict[str, str], bytes], None]

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: a taken port is known before minutes of loading. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.setblocking(False)
    return sock


def serve(loop: asyncio.AbstractEventLoop, sock: socket.socket, handler: Handler) -> None:
    """Accept on `sock` from now on."""
    sock.listen(1024)

    def accept() -> None:
        while True:
            try:
                client, _ = sock.accept()
            except OSError:  # none left, or no file descriptors: the backlog keeps the rest
                return
            Connection(loop, client, handler)

    loop.add_reader(sock, accept)

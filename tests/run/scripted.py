"""A small server that does what a test tells it, request by request, and writes down when it sent what. Shares no code with the product.

A script is a function of (Peer, Request); it runs in a thread of its own per connection.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from profiler.records import DriveResult, Endpoint, LoadPlan, RequestRecord
from profiler.run.decode import Decoded, RequestMeta, decode
from profiler.run.drive import drive

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


@dataclass
class Request:
    number: int  # in the order the server read them
    connection: int
    read_ns: int  # when the server had read it
    body: dict[str, Any]
    size: int

    @property
    def index(self) -> int:
        """Which prepared body it was."""
        return int(self.body["index"])


@dataclass
class Peer:
    """The server's end of one connection."""

    sock: socket.socket
    sends: list[tuple[int, int, bytes]]  # request number, when the send returned (CLOCK_MONOTONIC ns), bytes
    request: Request | None = None
    open: bool = True

    def send(self, data: bytes) -> int:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)
        now = time.monotonic_ns()
        assert self.request is not None
        self.sends.append((self.request.number, now, data))
        return now

    def close(self) -> None:
        """An orderly end. Over TLS without its closing alert, as many servers do."""
        self.open = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def reset(self) -> None:
        self.open = False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer, Request], None]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(token_ids: list[int] | None, text: str, used: int | None = None, finish: str | None = None) -> bytes:
    """One completions chunk as a server-sent event."""
    choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": finish}
    if token_ids is not None:
        choice["token_ids"] = token_ids
    content: dict[str, Any] = {"id": "x", "object": "text_completion", "choices": [choice]}
    if used is not None:
        content["usage"] = {"prompt_tokens": 3, "completion_tokens": used, "total_tokens": 3 + used}
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def answer(tokens: int = 3, gap_s: float = 0.0, ttft_s: float = 0.0) -> Script:
    """A well-behaved stream: one token a chunk, each in a send of its own."""

    def script(peer: Peer, request: Request) -> None:
        time.sleep(ttft_s)
        for i in range(tokens):
            last = i == tokens - 1
            data = chunk(event([i], f" t{i}", i + 1, "length" if last else None))
            peer.send((HEAD if i == 0 else b"") + data + (chunk(DONE) + END if last else b""))
            if gap_s and not last:
                time.sleep(gap_s)

    return script


def status(code: int, text: str = "no", *headers: str) -> Script:
    """An error with a JSON body and a content length."""

    def script(peer: Peer, request: Request) -> None:
        body = json.dumps({"error": {"message": text, "code": code}}).encode()
        lines = [f"HTTP/1.1 {code} Because", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
        peer.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return script


@dataclass
class Server:
    script: Script
    tls: ssl.SSLContext | None = None
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    sends: list[tuple[int, int, bytes]] = field(default_factory=list)
    connections: int = 0
    most_at_once: int = 0
    _at_once: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._peers: list[Peer] = []
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(host="127.0.0.1" if self.tls is None else "localhost", port=self.port, model="m", tls=self.tls is not None)

    def stop(self) -> None:
        """Gone for good: new connections are refused, old ones reset."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            peers = [peer for peer in self._peers if peer.open]
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        if self.tls is not None:
            try:
                sock = self.tls.wrap_socket(sock, server_side=True)
            except OSError:
                sock.close()
                return
        with self._lock:
            self.connections += 1
            number = self.connections
            peer = Peer(sock, self.sends)
            self._peers.append(peer)
        with contextlib.suppress(OSError), sock:
            rest = b""
            while peer.open:
                got = self._read(sock, rest)
                if got is None:
                    break
                body, rest = got
                with self._lock:
                    now = time.monotonic_ns()
                    request = Request(len(self.requests), number, now, json.loads(body), len(body))
                    self.requests.append(request)
                    self._at_once += 1
                    self.most_at_once = max(self.most_at_once, self._at_once)
                peer.request = request
                try:
                    self.script(peer, request)
                finally:
                    with self._lock:
                        self._at_once -= 1
            peer.open = False

    @staticmethod
    def _read(sock: socket.socket, data: bytes) -> tuple[bytes, bytes] | None:
        """One request's body, and what came behind it."""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, data = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        while len(data) < length:
            piece = sock.recv(65536)
            if not piece:
                return None
            data += piece
        return data[:length], data[length:]


@contextlib.contextmanager
def serving(script: Script, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Server]:
    server = Server(script, tls, port)
    try:
        yield server
    finally:
        server.stop()


def bodies(count: int, padding: int = 0) -> list[bytes]:
    return [json.dumps({"index": i, "padding": "x" * padding}).encode() for i in range(count)]


def plan(**given: Any) -> LoadPlan:
    """A short closed loop, unless told otherwise."""
    usual: dict[str, Any] = {
        "kind": "concurrency",
        "load": 2,
        "warmup_s": 0.0,
        "warmup_requests": 0,
        "window_min_s": 0.1,
        "window_max_s": 10.0,
        "cohort_min": 6,
        "request_timeout_s": 5.0,
    }
    return LoadPlan(**usual | given)


@dataclass(frozen=True)
class Run:
    drive: DriveResult
    decoded: Decoded

    @property
    def requests(self) -> list[RequestRecord]:
        return self.decoded.requests

    @property
    def cohort(self) -> list[RequestRecord]:
        return [r for r in self.requests if r.in_window]

    def kinds(self) -> dict[str | None, int]:
        """How many requests ended in which way; those cancelled at the end left out."""
        counts: dict[str | None, int] = {}
        for r in self.requests:
            if r.error_kind != "cancelled":
                counts[r.error_kind] = counts.get(r.error_kind, 0) + 1
        return counts


def run(endpoint: Endpoint, load: LoadPlan, folder: Path, count: int = 50, padding: int = 0, asked: int = 3, **options: Any) -> Run:
    """Drive `load` and decode what came."""
    result = drive(endpoint, "/completions", bodies(count, padding), load, folder, **options)
    return Run(result, decode(folder, meta(count, asked), None))


def meta(count: int, asked: int = 3) -> list[RequestMeta]:
    return [RequestMeta(f"r{i}", None, 0, 3, asked) for i in range(count)]


def clients_below() -> list[psutil.Process]:
    """The load clients that this process has started: other tests keep servers running below it."""
    return [child for child in psutil.Process().children() if "profiler.run.client" in child.cmdline()]

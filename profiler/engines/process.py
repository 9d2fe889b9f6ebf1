"""An engine's server as a process: a free port, a log, ready when it has generated, stopped always."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from profiler.engines import http_client, slot
from profiler.engines.guarded import Guarded
from profiler.engines.guardian import members
from profiler.engines.protocol import Progress
from profiler.errors import EngineError, ProfilerError
from profiler.records import Endpoint
from profiler.units import format_duration

EXIT_PORT_IN_USE = 98  # our own servers' exit code for it (server/options.py); others only say it in words
PORT_ATTEMPTS = 5
PORT_WORDS = ("address already in use", "port is already in use", "errno 98")
POLL_S = 0.05
MAX_LOG_BYTES = 1 << 20  # of a start, that are searched for a cause: it stands before what follows from it


@dataclass(frozen=True)
class Launch:
    """How to start one server."""

    name: str  # of the backend, for messages
    command: Callable[[int], list[str]]  # by port
    model: str  # the name it serves
    log_path: Path
    host: str = "127.0.0.1"
    port: int | None = None  # fixed by the user; None takes a free one
    variables: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    env_hash: str | None = None
    load_metric: str | None = None  # the gauge on /metrics that holds the engine's own load time, s
    load_line: str | None = None  # or a pattern of the log line that says it; group 1 is the time in s
    cause: Callable[[str], tuple[str, str | None] | None] | None = None  # finds cause and way out in a log whose last line does not say
    timeout_s: float = 600.0  # until ready: a large model on a slow disk


class Server:
    """A RunningEngine that is our own process."""

    def __init__(self, launch: Launch, port: int, command: Sequence[str], guarded: Guarded) -> None:
        self.endpoint = Endpoint(host=launch.host, port=port, model=launch.model)
        self.start_id = new_start_id()
        self.command: Sequence[str] = list(command)
        self.pid: int | None = guarded.pid
        self.ready_s: float | None = None
        self.load_s: float | None = None
        self.versions: Mapping[str, str] = launch.versions
        self.env_hash: str | None = launch.env_hash
        self.device_source: Literal["observed", "declared"] | None = "observed"
        self._launch = launch
        self._guarded = guarded
        self._log_begins = launch.log_path.stat().st_size  # what an earlier attempt wrote is not ours
        self._peak_bytes: int | None = None

    def alive(self) -> bool:
        return self._guarded.alive()

    def log_tail(self, n: int = 20) -> str:
        return tail(self._launch.log_path, n)

    def cause(self) -> tuple[str | None, str | None]:
        """What the log gives as the cause, and what helps; None where that is not known."""
        if self._launch.cause is None:
            return None, None
        with self._launch.log_path.open("rb") as file:
            file.seek(self._log_begins)
            return self._launch.cause(file.read(MAX_LOG_BYTES).decode(errors="replace")) or (None, None)

    def metrics(self) -> dict[str, float]:
        return http_client.metrics(self.endpoint)

    def reset_prefix_cache(self) -> None:
        status, body = http_client.request(self.endpoint, "POST", "/reset_prefix_cache", b"", timeout_s=300)
        if status != 200:
            raise EngineError(f"{self._launch.name}: the prefix cache cannot be reset: {http_client.error_text(status, body)}")
        if http_client.says_no(body):
            raise EngineError(f"{self._launch.name}: the prefix cache was not reset: requests still hold blocks of it")

    def peak_memory_bytes(self) -> int | None:
        """Sum of each process's own peak (VmHWM), kept by the kernel, so no thread of ours samples beside a measurement.

        Exact for one process; for several an upper bound, as they need not peak together and shared pages count twice.
        """
        leader = self.pid
        peaks = [_peak_bytes(pid) for pid in members(self._guarded.token, leader)] if self.alive() else []
        now = sum(peaks)
        if now:
            self._peak_bytes = max(now, self._peak_bytes or 0)
        return self._peak_bytes

    def stop(self) -> None:
        self.peak_memory_bytes()
        self._guarded.stop()


@contextmanager
def serve(launch: Launch, progress: Progress) -> Iterator[Server]:
    """Start, wait until ready, yield, stop. Raises EngineError with the log's last lines."""
    server = _start(launch, progress)
    try:
        yield server
    finally:
        server.stop()


def _start(launch: Launch, progress: Progress) -> Server:
    if launch.port is not None and not _is_free(launch.host, launch.port):
        raise EngineError(
            f"{launch.name}: port {launch.port} of {launch.host} is in use",
            hint="choose another port, or leave the option out for a free one",
        )
    try:
        launch.log_path.parent.mkdir(parents=True, exist_ok=True)
        with launch.log_path.open("ab") as log:
            for attempt in range(PORT_ATTEMPTS):
                port = launch.port or free_port(launch.host)
                try:
                    return _start_on(launch, port, log, progress)
                except _PortTakenError:  # somebody took it between our look and the server's bind
                    if launch.port is not None or attempt == PORT_ATTEMPTS - 1:
                        raise
    except OSError as error:
        raise EngineError(f"{launch.name}: cannot write {launch.log_path}: {error.strerror}") from error
    raise AssertionError("unreachable")


class _PortTakenError(EngineError):
    pass


def _start_on(launch: Launch, port: int, log: IO[bytes], progress: Progress) -> Server:
    command = [*slot.prefix(), *launch.command(port)]
    began_s = time.monotonic()
    with slot.pinned():
        guarded = Guarded(command, log, secrets.token_hex(8), launch.variables)
    try:
        server = Server(launch, port, command, guarded)
        _wait_until_ready(server, launch, began_s, progress)
        server.ready_s = time.monotonic() - began_s
        if launch.load_metric:
            server.load_s = server.metrics().get(launch.load_metric)
        if launch.load_line:
            found = re.search(launch.load_line, launch.log_path.read_text(encoding="utf-8", errors="replace"))
            server.load_s = float(found.group(1)) if found else None
        return server
    except BaseException:
        guarded.stop()
        raise


def _wait_until_ready(server: Server, launch: Launch, began_s: float, progress: Progress) -> None:
    """Ready is a real generation: a server can be healthy and die on its first request."""
    body = json.dumps({"model": launch.model, "prompt": "Hello, I am", "max_tokens": 4, "temperature": 0}).encode()
    told_s = began_s
    while True:
        slot.check_wanted()
        if not server.alive():
            raise _death(server, launch)
        now_s = time.monotonic()
        if now_s - began_s > launch.timeout_s:
            raise EngineError(
                f"{launch.name} was not ready after {format_duration(launch.timeout_s)}",
                hint=f"its log: {launch.log_path}",
                detail=server.log_tail(),
            )
        if now_s - told_s > 5:
            told_s = now_s
            progress(f"{launch.name}: waiting for the first answer, {format_duration(now_s - began_s)}")
        if not _listens(server):
            time.sleep(POLL_S)  # still loading
            continue
        try:
            status, answer = http_client.request(
                server.endpoint, "POST", "/completions", body, prefix=True, timeout_s=max(1.0, began_s + launch.timeout_s - now_s)
            )
        except (OSError, http.client.HTTPException):
            time.sleep(POLL_S)
            continue
        if status == 200 and _generated(answer):
            return
        if status not in (404, 503):  # routes may come late
            reason, way_out = server.cause()
            text = reason or http_client.error_text(status, answer)
            raise EngineError(f"{launch.name} cannot generate: {text}", hint=_hint(way_out, launch), detail=server.log_tail())
        time.sleep(POLL_S)


def _listens(server: Server) -> bool:
    """Whether it is our own process that listens: another program's server on the same port would answer as readily."""
    import psutil

    for pid in members(server._guarded.token, server.pid):
        with suppress(psutil.Error):
            for socket_ in psutil.Process(pid).net_connections("tcp"):
                if socket_.status == psutil.CONN_LISTEN and socket_.laddr.port == server.endpoint.port:
                    return True
    return False


def _generated(answer: bytes) -> bool:
    with suppress(ValueError, KeyError, TypeError):
        content: dict[str, Any] = json.loads(answer)
        return int(content["usage"]["completion_tokens"]) > 0
    return False


def _death(server: Server, launch: Launch) -> ProfilerError:
    code = server._guarded.process.returncode
    lines = server.log_tail()
    last = lines.lower()
    if code == EXIT_PORT_IN_USE or any(words in last for words in PORT_WORDS):
        return _PortTakenError(f"{launch.name}: port {server.endpoint.port} was taken by another program", detail=lines)
    how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    reason, way_out = server.cause()
    reason = reason or next((line for line in reversed(lines.splitlines()) if line.strip()), "")
    if code == -9 and way_out is None:
        way_out = "signal 9 is often the kernel out of memory (see dmesg)"
    hint = _hint(way_out, launch)
    return EngineError(f"{launch.name} {how} before it was ready{': ' + reason if reason else ''}", hint=hint, detail=lines)


def _hint(way_out: str | None, launch: Launch) -> str:
    return (f"{way_out}; " if way_out else "") + f"its log: {launch.log_path}"


def new_start_id() -> str:
    """Unique, sorts by time (UTC)."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(3)


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def tail(path: Path, n: int) -> str:
    """The last `n` lines of a file, reading at most its last 64 KiB; "" if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 65536))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-n:])
    except OSError:
        return ""


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)

"""The load client: `python -m profiler.run.client FOLDER`, a process of its own with the standard library and nothing else in it.

The folder holds job.json (endpoints, plan, and this client's part in it) and bodies.bin. Standard input brings the headers (they may hold
a key, so they are never on disk), then the parent's commands, one a line:

    close               what was measured is precise enough: close the window as soon as it has its least length
    open NS             several clients share a window: it opens at CLOCK_MONOTONIC NS
    close NS REASON     ... and closes at NS
    stop REASON         end now

It stays open as a lifeline: when the parent dies, it closes and the client stops. Progress goes to standard output as JSON lines, about
twice a second. It leaves spool.bin and result.json.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import struct
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiler.records import Endpoint, LoadPlan
from profiler.run import spool
from profiler.run.clocks import clock_step_s
from profiler.run.loop import Loop, Peer, Usage

PROGRESS_NS = 500_000_000
LENGTH = struct.Struct("<I")


def main() -> None:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    headers = json.loads(_first_line(0))
    if job["cpus"]:
        os.sched_setaffinity(0, job["cpus"])
    endpoints = [Endpoint(**where) for where in job["endpoints"]]
    heads = [request_head(endpoint, job["path"], headers) for endpoint in endpoints]
    several = len(endpoints) > 1
    # To one server whole requests, made before the clock starts; to several what they share, so that the bodies are held once.
    requests = [(b"" if several else heads[0]) + request_rest(body, headers) for body in read_bodies(folder / job["bodies"])]
    peers = [Peer(endpoint, *_resolve(endpoint), head if several else b"") for endpoint, head in zip(endpoints, heads, strict=True)]
    plan = read_plan(job["plan"])
    writer = spool.Writer(folder / spool.NAME)
    led = job["share"][1] > 1 or job["told"]
    # Everything made so far lives until the end: the collector need not look at it, and a collection must not delay a stamp.
    gc.collect()
    gc.freeze()
    gc.disable()
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    loop = Loop(
        peers,
        requests,
        plan,
        writer,
        (0, Commands()),
        Reporter(0 if led else PROGRESS_NS).tick,
        share=tuple(job["share"]),
        led=led,
        told=job["told"],
        start_ns=_common_start() if led else None,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(loop, "stop_reason", "interrupted"))
    try:
        window = loop.run()
    except spool.SpoolError as error:
        sys.exit(str(error))
    gc.enable()
    open_ns = window.open_ns if window.open_ns is not None else loop.ended_ns
    before, after = loop.usage_open or Usage.now(), loop.usage_close or Usage.now()
    result = {
        "started_ns": loop.started_ns,
        "window_open_ns": min(open_ns, loop.ended_ns),
        "window_close_ns": max(window.close_ns or loop.ended_ns, min(open_ns, loop.ended_ns)),
        "ended_ns": loop.ended_ns,
        "started_at": started_at,
        "stop_reason": loop.stop_reason,
        "client_cpu_s": after.cpu_s - before.cpu_s,
        "context_switches": [after.voluntary - before.voluntary, after.involuntary - before.involuntary],
        "stamps": "kernel" if loop.kernel_stamps else "user",
        "clock_step_s": clock_step_s(loop.clock_samples),
        "repeated_prompts": loop.schedule.repeated,
        "abandoned": loop.schedule.abandoned,
    }
    (folder / "result.json.new").write_text(json.dumps(result), encoding="utf-8")
    (folder / "result.json.new").rename(folder / "result.json")


class Commands:
    """What the parent says on standard input, applied to the loop."""

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, loop: Loop) -> None:
        data = os.read(0, 4096)
        if not data:
            loop.stop_reason = loop.stop_reason or "parent gone"
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, *rest = line.decode().split(" ", 2)
            if word == "close" and not rest:
                loop.window.ask_to_close()
            elif word == "close":
                loop.window.close_at(int(rest[0]), rest[1])
            elif word == "open":
                loop.window.open_at(int(rest[0]))
            elif word == "stop":
                loop.stop_reason = loop.stop_reason or " ".join(rest)


class Reporter:
    """Progress lines; a reader that is slow or gone never holds the loop up."""

    def __init__(self, every_ns: int) -> None:
        self._every_ns = every_ns
        self._last = 0
        os.set_blocking(1, False)

    def tick(self, loop: Loop) -> None:
        now = time.monotonic_ns()
        if now - self._last < self._every_ns:
            return
        self._last = now
        window = loop.window
        line: dict[str, Any] = {
            "elapsed_s": (now - loop.started_ns) / 1e9,
            "phase": window.phase,
            "sent": window.sent,
            "done": loop.ended,
            "cohort_sent": window.cohort_sent,
            "cohort_done": window.cohort_done,
            "errors": loop.errors,
            "in_flight": loop.in_flight,
        }
        try:
            os.write(1, json.dumps(line).encode() + b"\n")
        except OSError:
            pass


def read_plan(raw: dict[str, Any]) -> LoadPlan:
    """A LoadPlan from its JSON."""
    exact = {name: tuple(raw[name]) for name in ("offsets_ns", "delays_ns", "thinks_ns")}
    return LoadPlan(**{**raw, **exact, "parents": tuple(map(tuple, raw["parents"]))})


def request_head(endpoint: Endpoint, path: str, headers: dict[str, str]) -> bytes:
    """The beginning of an HTTP/1.1 request: what depends on the server it goes to. A user's own Host header replaces ours."""
    host = endpoint.host if ":" not in endpoint.host else f"[{endpoint.host}]"
    name = next((value for key, value in headers.items() if key.lower() == "host"), f"{host}:{endpoint.port}")
    return f"POST {endpoint.path_prefix}{path} HTTP/1.1\r\nHost: {name}\r\n".encode("latin-1")


def request_rest(body: bytes, headers: dict[str, str]) -> bytes:
    """All behind the head. Compression is refused: unpacking would hide when each token arrived."""
    headers = {key: value for key, value in headers.items() if key.lower() != "host"}
    fixed = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "User-Agent": "slm-profiler",
    }
    lines = [f"{name}: {value}" for name, value in {**fixed, **headers, "Content-Length": str(len(body))}.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def read_bodies(path: Path) -> list[bytes]:
    data = path.read_bytes()
    bodies, at = [], 0
    while at < len(data):
        (length,) = LENGTH.unpack_from(data, at)
        bodies.append(data[at + LENGTH.size : at + LENGTH.size + length])
        at += LENGTH.size + length
    return bodies


def _resolve(endpoint: Endpoint) -> tuple[int, tuple[object, ...]]:
    """One address for the whole run: asking for it each time would be part of the measurement."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        sys.exit(f"cannot resolve {endpoint.host}: {error.strerror or error}")
    # A name with several addresses: take the first that accepts, as browsers do.
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(5)
            if probe.connect_ex(address) == 0:
                return family, address
    return found[0][0], found[0][4]


def _common_start() -> int:
    """Say that this client is ready; wait for the time at which all of them start."""
    os.write(1, b"{}\n")
    return int(_first_line(0))


def _first_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(fd, 1)
        if not piece:
            sys.exit("the parent process went away")
        line += piece
    return line


if __name__ == "__main__":
    main()

"""The part of the engine contract that every measurement rests on, asked of a running engine over the wire.

Small on purpose: the whole contract is tests/engines/test_contract.py, which shares no code with this. Counts of tokens, pinned lengths,
a stream that says what the whole answer says, errors that are told, a request that ends with its client, counters that count.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from profiler.engines import http_client
from profiler.engines.protocol import RunningEngine
from profiler.records import Endpoint

PROMPT = [100, 101, 102, 103]
TOKENS = 12
WAIT_S = 30.0
# Requests running, and tokens written: as our own servers name them, and vLLM.
RUNNING = ("slm_server_requests_running", "vllm:num_requests_running")
WRITTEN = ("slm_server_generation_tokens_total", "vllm:generation_tokens_total")


class Broken(Exception):
    """One line: what the engine did instead."""


def check(running: RunningEngine) -> list[str]:
    """`name: what is wrong` for each broken rule; [] if all hold."""
    problems = []
    for name, rule in RULES.items():
        try:
            rule(running)
        except Broken as error:
            problems.append(f"{name}: {error}")
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
    return problems


def _token_counts(running: RunningEngine) -> None:
    chunks, last = _stream(running, max_tokens=TOKENS, ignore_eos=True)
    ids = [i for chunk in chunks for i in chunk["choices"][0].get("token_ids") or ()]
    _must(len(ids) == TOKENS, f"{len(ids)} token ids for {TOKENS} tokens asked")
    usage = last["usage"]
    _must(usage["completion_tokens"] == TOKENS, f"usage says {usage['completion_tokens']} tokens")
    _must(usage["prompt_tokens"] == len(PROMPT), f"usage says {usage['prompt_tokens']} prompt tokens, {len(PROMPT)} were sent")
    reason = chunks[-1]["choices"][0]["finish_reason"]
    _must(reason == "length", f"the last chunk ends by {reason!r}, not by length")


def _stream_and_whole(running: RunningEngine) -> None:
    chunks, _ = _stream(running, max_tokens=TOKENS)
    whole = _json(running, max_tokens=TOKENS)
    streamed = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    _must(streamed == whole["choices"][0]["text"], "a greedy answer differs between stream and whole")


def _pinned_length(running: RunningEngine) -> None:
    got = _json(running, max_tokens=40, min_tokens=40, ignore_eos=True)["usage"]["completion_tokens"]
    _must(got == 40, f"{got} tokens where exactly 40 were asked")


def _errors(running: RunningEngine) -> None:
    for fields, wanted in (({"model": "another"}, 404), ({"max_tokens": 0}, 400), ({"prompt": []}, 400), ({"max_tokens": 10_000_000}, 400)):
        status, body = _post(running.endpoint, {"model": running.endpoint.model, "prompt": PROMPT, "max_tokens": 1, **fields})
        _must(status == wanted, f"{fields} answers {status}, not {wanted}")
        _must(bool(json.loads(body)["error"]["message"]), f"{fields}: no error message")


def _leaving(running: RunningEngine) -> None:
    _until(lambda: _counter(running, RUNNING) == 0, "requests are running before the check")
    endpoint = running.endpoint
    body = json.dumps({"model": endpoint.model, "prompt": PROMPT, "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
    head = f"POST {endpoint.path_prefix}/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with closing(socket.create_connection((endpoint.host, endpoint.port), timeout=WAIT_S)) as sock:
        sock.sendall(head.encode() + body)
        _must(sock.recv(4096).startswith(b"HTTP/1.1 200"), "a long stream is refused")
        _until(lambda: _counter(running, RUNNING) == 1, "a running request is not counted")
    _until(lambda: _counter(running, RUNNING) == 0, "a request outlives its client")


def _counters(running: RunningEngine) -> None:
    _until(lambda: _counter(running, RUNNING) == 0, "requests are running before the check")
    before = _counter(running, WRITTEN)
    _json(running, max_tokens=7, ignore_eos=True)
    _until(lambda: _counter(running, WRITTEN) == before + 7, "the counter of written tokens did not grow by the 7 that were written")


def _itself(running: RunningEngine) -> None:
    _must(running.alive() and bool(running.start_id), "it is not alive")
    if running.pid is not None:
        _must((running.peak_memory_bytes() or 0) > 1_000_000, "its memory cannot be seen")
        _must((running.ready_s or 0) > 0 and running.device_source == "observed" and bool(running.versions), "it does not tell of itself")


RULES: dict[str, Callable[[RunningEngine], None]] = {
    "token ids and usage agree": _token_counts,
    "stream and whole say the same": _stream_and_whole,
    "the length is pinned": _pinned_length,
    "wrong requests are told": _errors,
    "a client that leaves frees its request": _leaving,
    "counters count": _counters,
    "it tells about itself": _itself,
}


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        _must(time.monotonic() < end, otherwise)
        time.sleep(0.02)


def _counter(running: RunningEngine, names: tuple[str, ...]) -> float:
    values = [value for name, value in running.metrics().items() if name.split("{")[0] in names]
    _must(bool(values), f"no counter {' or '.join(names)}")
    return sum(values)


def _post(endpoint: Endpoint, fields: dict[str, Any]) -> tuple[int, bytes]:
    return http_client.request(endpoint, "POST", "/completions", json.dumps(fields).encode(), prefix=True, timeout_s=120)


def _json(running: RunningEngine, **fields: Any) -> Any:
    status, body = _post(running.endpoint, {"model": running.endpoint.model, "prompt": PROMPT, "temperature": 0, **fields})
    _must(status == 200, http_client.error_text(status, body))
    return json.loads(body)


def _stream(running: RunningEngine, **fields: Any) -> tuple[list[Any], Any]:
    """Events with a choice, and the last event."""
    options = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "return_token_ids": True}
    fixed = {"model": running.endpoint.model, "prompt": PROMPT, "temperature": 0}
    status, body = _post(running.endpoint, {**fixed, **options, **fields})
    _must(status == 200, http_client.error_text(status, body))
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    _must(lines[-1:] == ["[DONE]"], "the stream does not end with [DONE]")
    events = [json.loads(line) for line in lines[:-1]]
    return [event for event in events if event.get("choices")], events[-1]

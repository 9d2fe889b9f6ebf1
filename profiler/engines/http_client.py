"""Small blocking HTTP for the control plane: readiness, metrics, resets. Never on the measured path."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing, suppress

from profiler.records import Endpoint

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{.*\})?)\s+(\S+)")


def request(
    endpoint: Endpoint, method: str, path: str, body: bytes | None = None, *, prefix: bool = False, timeout_s: float = 10.0
) -> tuple[int, bytes]:
    """Status and body. `prefix` puts the endpoint's path prefix (/v1) before `path`. Raises OSError, http.client.HTTPException."""
    status, _, answer = exchange(endpoint, method, path, body, prefix=prefix, timeout_s=timeout_s)
    return status, answer


def exchange(
    endpoint: Endpoint, method: str, path: str, body: bytes | None = None, *, prefix: bool = False, timeout_s: float = 10.0
) -> tuple[int, dict[str, str], bytes]:
    """As `request`, with the answer's headers, their names in lower case."""
    kind = http.client.HTTPSConnection if endpoint.tls else http.client.HTTPConnection
    with closing(kind(endpoint.host, endpoint.port, timeout=timeout_s)) as connection:
        headers = {**endpoint.headers, "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, (endpoint.path_prefix if prefix else "") + path, body, headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def metrics(endpoint: Endpoint) -> dict[str, float]:
    """`/metrics` in Prometheus text: `name{labels}` to value; {} where there is none."""
    try:
        status, body = request(endpoint, "GET", "/metrics")
    except (OSError, http.client.HTTPException):
        return {}
    return parse_metrics(body.decode(errors="replace")) if status == 200 else {}


def parse_metrics(text: str) -> dict[str, float]:
    """Prometheus text format; lines that are none, and NaN, are left out."""
    values = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match:
            with suppress(ValueError):
                value = float(match.group(2))
                if value == value:
                    values[match.group(1)] = value
    return values


def error_text(status: int, body: bytes) -> str:
    """One line from an error answer: OpenAI's error.message if it is there."""
    with suppress(ValueError, KeyError, TypeError):
        content = json.loads(body)
        message = content["error"]["message"] if "error" in content else content.get("message") or content["detail"]
        return f"HTTP {status}: {message}".encode("utf-8", "replace").decode()  # half a surrogate pair could be neither kept nor shown
    text = " ".join(body.decode(errors="replace").split())
    return f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"


def says_no(body: bytes) -> bool:
    """Whether an answer with status 200 carries `"success": false`, as vLLM's reset does while requests run."""
    with suppress(ValueError, AttributeError):
        return json.loads(body).get("success") is False
    return False

"""A server's counters from where somebody else keeps them: a Prometheus text page, or one query of Prometheus's HTTP API.

The key of the endpoint is never sent here: it is another server. Source of the answer's form: prometheus.io, "HTTP API", instant queries.
"""

from __future__ import annotations

import http.client
import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from profiler.engines import http_client
from profiler.errors import EngineError, SpecError
from profiler.records import Endpoint

EXAMPLES = 'such as http://HOST:9100/metrics, or http://PROMETHEUS:9090/api/v1/query?query={job="vllm"}'


def parse_url(url: str) -> tuple[Endpoint, str]:
    """Where to ask, and the path with its query, percent-encoded where the user wrote PromQL as it is. Raises SpecError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SpecError(f"server_metrics: {url!r} is not a URL: {error}", hint=EXAMPLES) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"server_metrics: {url!r} is not a URL", hint=EXAMPLES)
    if parts.username or parts.password:
        raise SpecError("server_metrics: the URL carries a user name or password, which results would show", hint=EXAMPLES)
    tls = parts.scheme == "https"
    path = quote(parts.path or "/metrics", safe="/%")
    query = f"?{quote(parts.query, safe='=&%+')}" if parts.query else ""
    return Endpoint(parts.hostname, port or (443 if tls else 80), "", tls, ""), path + query


def fetch(url: str) -> dict[str, float]:
    """`name{labels}` to value. Raises EngineError: nothing answers, it is an error page, or there is not one sample on it."""
    endpoint, path = parse_url(url)
    try:
        status, body = http_client.request(endpoint, "GET", path)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise EngineError(f"server_metrics: nothing answers at {url}: {why}", hint=EXAMPLES) from error
    if status != 200:
        raise EngineError(f"server_metrics: {url}: {http_client.error_text(status, body)}", hint=EXAMPLES)
    text = body.decode(errors="replace")
    found = of_query(text) if text.lstrip().startswith("{") else http_client.parse_metrics(text)
    if not found:
        raise EngineError(f"server_metrics: {url}: no sample in the answer", hint=EXAMPLES)
    return found


def of_query(text: str) -> dict[str, float]:
    """An instant query's vector as a text page would name it; {} for any other answer. Series that differ in a dropped label are kept apart."""
    values: dict[str, float] = {}
    with suppress(ValueError, KeyError, TypeError):
        content: Any = json.loads(text)
        for sample in content["data"]["result"]:
            labels = dict(sample["metric"])
            name = labels.pop("__name__", "")
            inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
            value = float(sample["value"][1])
            if name and value == value:
                values[f"{name}{{{inside}}}" if inside else name] = value
    return values

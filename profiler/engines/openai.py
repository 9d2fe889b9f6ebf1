"""Engine `openai`: attaches to an OpenAI-compatible endpoint that already runs. Starts nothing, stops nothing, owns nothing.

The key and further headers come from the environment and are never stored: OPENAI_API_KEY, and SLM_PROFILER_HEADERS as a JSON object
or as lines `Name: value`.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from profiler.engines import options
from profiler.engines.protocol import Engine, Progress, RunningEngine
from profiler.errors import EngineError, SpecError, did_you_mean
from profiler.records import Endpoint, LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

KNOWN = {"url": options.text, "model": options.text, "device": options.text}


class Attached:
    """A RunningEngine that is somebody else's process."""

    def __init__(self, endpoint: Endpoint, declared: bool) -> None:
        from profiler.engines.process import new_start_id

        self.endpoint = endpoint
        self.start_id = new_start_id()  # of our attachment: how often the server itself was started is not ours to see
        self.command: Sequence[str] = ()
        self.pid: int | None = None
        self.ready_s: float | None = None
        self.load_s: float | None = None
        self.versions: Mapping[str, str] = {}
        self.env_hash: str | None = None
        self.device_source: Literal["observed", "declared"] | None = "declared" if declared else None

    def alive(self) -> bool:
        """Whether anything answers at the URL; an HTTP error is an answer."""
        from profiler.engines import http_client

        try:
            http_client.request(self.endpoint, "GET", "/models", prefix=True)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def log_tail(self, n: int = 20) -> str:
        return ""

    def metrics(self) -> dict[str, float]:
        from profiler.engines import http_client

        return http_client.metrics(self.endpoint)

    def reset_prefix_cache(self) -> None:
        from profiler.engines import http_client

        status, body = http_client.request(self.endpoint, "POST", "/reset_prefix_cache", b"", timeout_s=300)
        if status != 200:
            text = http_client.error_text(status, body)
            raise EngineError(f"{self.endpoint.url} does not reset its prefix cache: {text}", hint="vLLM needs VLLM_SERVER_DEV_MODE=1")
        if http_client.says_no(body):
            raise EngineError(f"{self.endpoint.url} did not reset its prefix cache: requests still hold blocks of it")

    def peak_memory_bytes(self) -> int | None:
        return None


class OpenAIEngine:
    name = "openai"
    summary = "an OpenAI-compatible endpoint that already runs"
    needs_model = False

    def problems(self, backend: BackendSpec) -> list[str]:
        return [] if backend.options.get("url") else ["no endpoint is named: give --url"]

    def validate(self, backend: BackendSpec) -> None:
        options.check(backend, KNOWN)
        if "url" not in backend.options:
            raise SpecError(f"backend {backend.name}: options.url is missing", hint="give --url http://HOST:PORT/v1")
        parse_url(backend.options["url"])
        user_headers()

    def prepare(self, model: LocalModel | None, backend: BackendSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
        self.validate(backend)
        return Variant(variant_id="as-served", path=None, precision=backend.precision, size_bytes=None)

    def command(self, variant: Variant, backend: BackendSpec, port: int) -> list[str]:
        return []

    @contextmanager
    def start(
        self, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, host: str = "127.0.0.1"
    ) -> Iterator[RunningEngine]:
        self.validate(backend)
        tls, name, port, prefix = parse_url(backend.options["url"])
        endpoint = Endpoint(name, port, str(backend.options.get("model") or ""), tls, prefix, user_headers())
        model = _served_model(endpoint, backend.options.get("model"))
        endpoint = Endpoint(name, port, model, tls, prefix, endpoint.headers)
        _generate_once(endpoint)
        progress(f"{backend.name}: attached to {endpoint.url}, model {model}")
        yield Attached(endpoint, declared="device" in backend.options)


def parse_url(url: str) -> tuple[bool, str, int, str]:
    """tls, host, port, path prefix (`/v1` where the URL has no path). Raises SpecError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SpecError(f"{url!r} is not a URL: {error}", hint="such as http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SpecError(f"{url!r} is not the base URL of an endpoint", hint="such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise SpecError("the URL carries a user name or password, which results would show", hint="put the key into OPENAI_API_KEY")
    tls = parts.scheme == "https"
    return tls, parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/") or "/v1"


def user_headers() -> dict[str, str]:
    """Headers from the environment. Raises SpecError without quoting them: they may be secrets."""
    text = os.environ.get("SLM_PROFILER_HEADERS", "").strip()
    headers: dict[str, str] = {}
    if text.startswith("{"):
        try:
            headers = {str(k): str(v) for k, v in json.loads(text).items()}
        except ValueError:
            raise SpecError("SLM_PROFILER_HEADERS is not a valid JSON object", hint='such as {"X-Team": "a"}') from None
    else:
        for line in filter(None, map(str.strip, text.splitlines())):
            name, colon, value = line.partition(":")
            if not colon or not name.strip():
                raise SpecError("SLM_PROFILER_HEADERS has a line that is not `Name: value`", hint="one header per line, or a JSON object")
            headers[name.strip()] = value.strip()
    if any("\n" in part or "\r" in part for pair in headers.items() for part in pair):
        raise SpecError("SLM_PROFILER_HEADERS has a line break inside a header")
    key = os.environ.get("OPENAI_API_KEY")
    if key and "authorization" not in map(str.lower, headers):
        headers["Authorization"] = f"Bearer {key.strip()}"
    return headers


def _served_model(endpoint: Endpoint, wanted: str | None) -> str:
    """The model to ask for: `wanted` if the endpoint has it, or the only one there is. Raises EngineError."""
    from profiler.engines import http_client

    try:
        status, body = http_client.request(endpoint, "GET", "/models", prefix=True)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise EngineError(
            f"nothing answers at {endpoint.url}: {why}", hint="is the server running, and is that its address and port?"
        ) from error
    if status in (401, 403):
        hint = "set OPENAI_API_KEY, or SLM_PROFILER_HEADERS for other headers"
        raise EngineError(f"{endpoint.url} refuses us: {http_client.error_text(status, body)}", hint)
    if status >= 500:
        raise EngineError(f"{endpoint.url} is not able to serve: {http_client.error_text(status, body)}")
    served = _model_ids(body) if status == 200 else []
    if wanted is None:
        if len(served) == 1:
            return served[0]
        hint = f"it serves {', '.join(served[:10])}" if served else "it does not list its models"
        raise EngineError(f"{endpoint.url}: which model?", hint=f"give --model NAME; {hint}")
    # Some gateways list nothing, or aliases only behind the key: without a list the first request decides.
    if served and wanted not in served:
        hint = did_you_mean(wanted, served) or f"it serves {', '.join(served[:10])}"
        raise EngineError(f"{endpoint.url} does not serve {wanted!r}", hint=hint)
    return wanted


def _generate_once(endpoint: Endpoint) -> None:
    """Listed is not served: one token, from completions or, where there is none, from chat. Raises EngineError."""
    from profiler.engines import http_client

    hello = [{"role": "user", "content": "Hello"}]
    for path, prompt in (("/completions", {"prompt": "Hello"}), ("/chat/completions", {"messages": hello})):
        body = json.dumps({"model": endpoint.model, "max_tokens": 1, **prompt}).encode()
        try:
            status, answer = http_client.request(endpoint, "POST", path, body, prefix=True, timeout_s=120)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"{endpoint.url}{path}: no answer to one token: {error or type(error).__name__}") from error
        if status not in (404, 405):
            break
    if status != 200:
        hint = "set OPENAI_API_KEY, or SLM_PROFILER_HEADERS for other headers" if status in (401, 403) else None
        raise EngineError(f"{endpoint.url} cannot generate with {endpoint.model!r}: {http_client.error_text(status, answer)}", hint)


def _model_ids(body: bytes) -> list[str]:
    try:
        content: Any = json.loads(body)
        return [str(entry["id"]) for entry in content["data"]]
    except (ValueError, KeyError, TypeError):
        return []


ENGINE: Engine = OpenAIEngine()

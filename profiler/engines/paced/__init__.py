"""Engine `paced`: a server without a model that sends tokens at set times and writes down when it really sent them.

In C, so that one core gives more than any client takes (`bench/client.py` says how much), compiled on first use. It shares no code
with the client: what it says is the oracle the client is checked against. `null` is the same idea in Python, for a few streams and no
compiler.

Faults and timings per request come from a script: line k is for the k-th streaming request, `ttft_us itl_us tokens_per_chunk fault`,
`-` or nothing for what the options say, lines that start with `#` left out. Faults, K counts chunks of tokens and is 1 if left out:

| fault | what the client sees |
|---|---|
| `refuse=MS` | its connection is reset, and nobody listens for MS ms |
| `reset-before` | a reset instead of an answer, when its first token was due |
| `reset-in=K` | a reset after K chunks |
| `reset-after` | the whole answer, then a reset of the kept connection |
| `stall=K` | K chunks, then silence |
| `half=K` | K chunks, half of the next one, the end of the connection |
| `bad-json=K` | K chunks, one that is cut in the middle of its JSON, the rest |
| `status=N:S` | HTTP status N; 429 and 503 with Retry-After S (1) |
| `longer=N`, `shorter=N` | N tokens more or fewer than asked |
| `die=K` | the server is gone for good after K chunks |
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.engines import options
from profiler.engines.paced import build
from profiler.engines.protocol import Engine, Progress, RunningEngine
from profiler.records import LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

KNOWN: Mapping[str, options.Check] = {
    "ttft_ms": options.number(0),
    "itl_ms": options.number(0),
    "itl_per_running_ms": options.number(0),  # an engine's batching law: the gap is itl_ms + this for each request in service
    "tokens_per_chunk": options.integer(1),
    "distribution": options.one_of("fixed", "lognormal", "exponential", "gamma"),
    "ttft_cv": options.number(0),  # coefficient of variation; exponential has 1 and takes none
    "itl_cv": options.number(0),
    "scale_cv": options.number(0),  # between starts: all times of one start are multiplied by one lognormal draw of mean 1
    "seed": options.integer(0),  # left out: another one at each start; /metrics and the log have the factor
    "capacity": options.integer(1),  # requests in service at once; the others queue
    "script": options.text,  # a file, see above
    "record": options.text,  # a file: what was sent when (record.py reads it)
    "role_first": options.boolean,  # chat: the role-only chunk comes at once, not with the first token
    "port": options.integer(1),
}


class PacedEngine:
    name = "paced"
    summary = "a paced server in C that writes down what it sent: checks the client at 100,000 tokens/s"
    needs_model = False

    def problems(self, backend: BackendSpec) -> list[str]:
        if sys.platform != "linux":
            return [f"the paced server needs Linux (epoll), this is {platform.system()}"]
        return [] if build.compiler() else [build.NO_COMPILER]

    def validate(self, backend: BackendSpec) -> None:
        options.check(backend, KNOWN)

    def prepare(self, model: LocalModel | None, backend: BackendSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
        self.validate(backend)
        return Variant(
            variant_id="none", path=build.binary(progress), precision="none", size_bytes=None, details={"paced": dict(backend.options)}
        )

    def command(self, variant: Variant, backend: BackendSpec, port: int) -> list[str]:
        program = str(variant.path) if variant.path else "<paced>"
        return [program, f"--port={port}", "--served-model-name=paced", *flags(backend.options)]

    @contextmanager
    def start(
        self, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, host: str = "127.0.0.1"
    ) -> Iterator[RunningEngine]:
        from profiler.engines.process import Launch, serve

        self.validate(backend)
        launch = Launch(
            name=backend.name,
            command=lambda port: [*self.command(variant, backend, port), f"--host={host}"],
            model="paced",
            log_path=log_path,
            host=host,
            port=backend.options.get("port"),
            versions={"paced": build.source_hash()},
            load_metric="slm_server_load_seconds",
        )
        with serve(launch, progress) as server:
            yield server


def flags(values: Mapping[str, object]) -> list[str]:
    """Options as the program's flags."""
    return [
        f"--{key.replace('_', '-')}={str(value).lower() if value is True or value is False else value}"
        for key, value in values.items()
        if key != "port"
    ]


ENGINE: Engine = PacedEngine()

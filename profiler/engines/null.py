"""Engine `null`: the paced server without a model. Measures the harness: what it adds, and whether it counts right."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.engines import options
from profiler.engines.protocol import Engine, Progress, RunningEngine
from profiler.records import LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

SERVER = Path(__file__).parent / "server" / "__main__.py"
KNOWN = {
    "ttft_ms": options.number(0),
    "itl_ms": options.number(0),
    "tokens_per_chunk": options.integer(1),
    "capacity": options.integer(1),
    "scale_cv": options.number(0),  # between starts: all times of one start are multiplied by one lognormal draw of mean 1
    "seed": options.integer(0),  # of that draw; left out: another one at each start, /metrics and the log have the factor
    "record": options.text,  # a file: what was sent when
    "port": options.integer(1),
}


class NullEngine:
    name = "null"
    summary = "a paced server without a model: measures the harness"
    needs_model = False

    def problems(self, backend: BackendSpec) -> list[str]:
        return []

    def validate(self, backend: BackendSpec) -> None:
        options.check(backend, KNOWN)

    def prepare(self, model: LocalModel | None, backend: BackendSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
        self.validate(backend)
        return Variant(variant_id="none", path=None, precision="none", size_bytes=None, details={"paced": dict(backend.options)})

    def command(self, variant: Variant, backend: BackendSpec, port: int) -> list[str]:
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in backend.options.items() if key != "port"]
        return [sys.executable, "-I", "-u", str(SERVER), "null", f"--port={port}", "--served-model-name=null", *flags]

    @contextmanager
    def start(
        self, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, host: str = "127.0.0.1"
    ) -> Iterator[RunningEngine]:
        from profiler.engines.process import Launch, serve

        self.validate(backend)
        launch = Launch(
            name=backend.name,
            command=lambda port: [*self.command(variant, backend, port), f"--host={host}"],
            model="null",
            log_path=log_path,
            host=host,
            port=backend.options.get("port"),
            versions={"python": sys.version.split()[0]},
            load_metric="slm_server_load_seconds",
        )
        with serve(launch, progress) as server:
            yield server


ENGINE: Engine = NullEngine()

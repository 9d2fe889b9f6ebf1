"""What an engine is to the rest of the program: a launcher of one OpenAI-compatible server in its own process.

A new engine is one object with this shape, announced by an entry point in the group `slm_profiler.engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from profiler.records import Endpoint, LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec  # pydantic: not at import time

Progress = Callable[[str], None]


class RunningEngine(Protocol):
    """A server that has answered a real generation. All of it stays readable after the server stopped."""

    endpoint: Endpoint
    start_id: str  # one launch; runs carry it
    command: Sequence[str]  # as started; empty for an endpoint we do not own
    pid: int | None  # None for an endpoint we do not own
    ready_s: float | None  # process start to the end of the first generation
    load_s: float | None  # the engine's own model load, as it reports it
    versions: Mapping[str, str]  # packages of the engine's environment
    env_hash: str | None
    device_source: Literal["observed", "declared"] | None

    def alive(self) -> bool: ...

    def log_tail(self, n: int = 20) -> str: ...

    def metrics(self) -> dict[str, float]:
        """The server's Prometheus counters and gauges, `name{labels}` to value; {} where it has none."""
        ...

    def reset_prefix_cache(self) -> None:
        """Raises EngineError where the server cannot."""
        ...

    def peak_memory_bytes(self) -> int | None:
        """Peak resident memory of the whole process tree; None where it is not ours to see."""
        ...


class Engine(Protocol):
    name: str
    summary: str
    needs_model: bool  # False where there is nothing to load: a remote endpoint, the null engine

    def problems(self, backend: BackendSpec) -> list[str]:
        """Why it cannot run here, one sentence each; [] if it can. Cheap, starts nothing."""
        ...

    def validate(self, backend: BackendSpec) -> None:
        """Raises SpecError on an option that does not exist or has a wrong value."""
        ...

    def prepare(self, model: LocalModel | None, backend: BackendSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
        """The model in the backend's precision; made once, cached by content, atomic. Raises ModelError, EnvironmentError_."""
        ...

    def command(self, variant: Variant, backend: BackendSpec, port: int) -> list[str]:
        """What `start` would run; for `--dry-run` and provenance. Placeholders such as `<python>` where something is not built yet."""
        ...

    def start(
        self, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, host: str = "127.0.0.1"
    ) -> AbstractContextManager[RunningEngine]:
        """Starts and waits until ready; leaving the context stops it, always. Raises EngineError with the log's last lines."""
        ...

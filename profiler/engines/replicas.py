"""N servers of one backend behind one workload: started in parallel, ready when all are, dead when one is."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from profiler.engines import slot as place
from profiler.engines.protocol import Engine, Progress, RunningEngine
from profiler.errors import EngineError
from profiler.records import Endpoint, Slot, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec


class Replicated:
    """A RunningEngine that is several. Figures that add up are summed, metrics carry a label `replica`; the rest is of the first one."""

    def __init__(self, parts: Sequence[RunningEngine]) -> None:
        from profiler.engines.process import new_start_id

        first = parts[0]
        self.parts = tuple(parts)
        self.endpoint: Endpoint = first.endpoint
        self.start_id = new_start_id()
        self.command: Sequence[str] = first.command
        self.pid: int | None = first.pid
        self.ready_s: float | None = _most([part.ready_s for part in parts])
        self.load_s: float | None = _most([part.load_s for part in parts])
        self.versions: Mapping[str, str] = first.versions
        self.env_hash: str | None = first.env_hash
        self.device_source: Literal["observed", "declared"] | None = first.device_source

    def alive(self) -> bool:
        return all(part.alive() for part in self.parts)

    def log_tail(self, n: int = 20) -> str:
        """Of the first one that died, else of the first one."""
        return next((part for part in self.parts if not part.alive()), self.parts[0]).log_tail(n)

    def metrics(self) -> dict[str, float]:
        return {labelled(name, k): value for k, part in enumerate(self.parts) for name, value in part.metrics().items()}

    def reset_prefix_cache(self) -> None:
        for part in self.parts:
            part.reset_prefix_cache()

    def peak_memory_bytes(self) -> int | None:
        peaks = [part.peak_memory_bytes() for part in self.parts]
        return sum(peak for peak in peaks if peak is not None) if None not in peaks else None


@contextmanager
def started(
    engine: Engine, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, slots: Sequence[Slot] = ()
) -> Iterator[RunningEngine]:
    """`engine.start` once for each replica, each in its slot; of one replica the engine itself. Raises EngineError when one does not start."""
    slots = slots or (Slot(),) * backend.replicas
    if backend.replicas == 1:
        with place.within(slots[0]), engine.start(variant, backend, log_path, progress) as running:
            yield running
        return
    given_up = threading.Event()
    stacks = [ExitStack() for _ in range(backend.replicas)]

    def start(k: int) -> RunningEngine:
        with place.within(slots[k], given_up):
            return stacks[k].enter_context(engine.start(variant, nth(backend, k), nth_log(log_path, k), progress))

    pool = ThreadPoolExecutor(max_workers=backend.replicas, thread_name_prefix="replica")
    try:
        futures = [pool.submit(start, k) for k in range(backend.replicas)]
        _all_ready(futures, backend)
        progress(f"{backend.name}: {backend.replicas} replicas are ready")
        yield Replicated([future.result() for future in futures])
    finally:
        given_up.set()  # those that still start end now
        pool.shutdown(wait=True)
        # Together, as they were started: each may take its grace to end.
        with ThreadPoolExecutor(max_workers=backend.replicas) as ending:
            list(ending.map(lambda stack: stack.close(), stacks))


def _all_ready(futures: Sequence[Future[RunningEngine]], backend: BackendSpec) -> None:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            error = future.exception()
            if isinstance(error, EngineError):
                where = f"replica {futures.index(future)} of {backend.replicas}: "
                raise EngineError(where + error.message, hint=error.hint, detail=error.detail) from error
            if error is not None:
                raise error


def parts_of(running: RunningEngine) -> Sequence[RunningEngine]:
    """Each server of a running engine."""
    return running.parts if isinstance(running, Replicated) else (running,)


def endpoints_of(running: RunningEngine) -> list[Endpoint]:
    return [part.endpoint for part in parts_of(running)]


def pids_of(running: RunningEngine) -> tuple[int, ...]:
    """Of the servers that are ours."""
    return tuple(part.pid for part in parts_of(running) if part.pid is not None)


def check_alive(running: RunningEngine) -> None:
    """Raises EngineError that names the replica when one of several has died: the others would be measured at a load that is not theirs."""
    parts = parts_of(running)
    for k, part in enumerate(parts):
        if len(parts) > 1 and not part.alive():
            last = next((line for line in reversed(part.log_tail().splitlines()) if line.strip()), "")
            raise EngineError(f"replica {k} of {len(parts)} died{': ' + last if last else ''}", detail=part.log_tail())


def facts_of(running: RunningEngine, slots: Sequence[Slot] = ()) -> list[dict[str, Any]]:
    """What the record says of each server: where it listens and runs, how long it took, what it holds."""
    found = []
    for k, part in enumerate(parts_of(running)):
        reason = place.memory_reason(slots[k]) if k < len(slots) else None
        found.append(
            {"replica": k, "port": part.endpoint.port, "pid": part.pid, "ready_s": part.ready_s, "load_s": part.load_s}
            | {"peak_memory_bytes": part.peak_memory_bytes(), "command": list(part.command), "memory_reason": reason}
            | place.seen(part.pid)
        )
    return found


def nth(backend: BackendSpec, k: int) -> BackendSpec:
    """The backend as its k-th server starts: a port and a record file of its own, and its devices."""
    options = dict(backend.options)
    if "port" in options:
        options["port"] += k
    if "record" in options:
        options["record"] = f"{options['record']}.{k}"
    if backend.placement is not None and backend.placement.devices:
        options["visible_devices"] = backend.placement.devices[k]
    return backend.model_copy(update={"options": options})


def nth_log(log_path: Path, k: int) -> Path:
    """The first one's log is the backend's."""
    return log_path if k == 0 else log_path.with_name(f"{log_path.stem}-{k}{log_path.suffix}")


def labelled(name: str, replica: int) -> str:
    """A metric's name with the label `replica`: `a{b="c"}` becomes `a{replica="1",b="c"}`."""
    plain, brace, labels = name.partition("{")
    return f'{plain}{{replica="{replica}"{"," + labels if brace and labels != "}" else "}"}'


def _most(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None

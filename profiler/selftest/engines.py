"""Which backends the self-test runs on, and its checks of one: contract, knee, spread over starts, nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from profiler import catalog, environments
from profiler.engines import registry
from profiler.errors import ProfilerError, UnknownNameError
from profiler.machine.fingerprint import gpus
from profiler.records import LocalModel
from profiler.selftest import contract, load
from profiler.selftest.result import Result, not_run, of
from profiler.spec import BackendSpec

Say = Callable[[str], None]

NULL_CAPACITY = 4  # answers at once: the null server's knee is known beforehand
STARTS = 3
CELL_USERS = 2  # of the cell that is repeated over starts


def candidates() -> dict[str, str]:
    """Engine to the backend that stands for it on this machine."""
    return {"null": "null", "openvino": "openvino-xeon-int8", "vllm": "vllm-cuda-bf16" if gpus()[0] else "vllm-cpu-bf16"}


def environment_names(engine: str) -> tuple[str, ...]:
    """What has to be built for the engine's candidate backend."""
    cuda = candidates()["vllm"].startswith("vllm-cuda")
    return {"openvino": ("openvino", "openvino-export"), "vllm": ("vllm-cuda" if cuda else "vllm-cpu",)}.get(engine, ())


def choose(asked: Sequence[str]) -> tuple[list[BackendSpec], list[Result]]:
    """The backends to test, and a "not run" for each engine that is not built here. What is asked for by name is built.

    Raises UnknownNameError.
    """
    known = candidates()
    for name in asked:
        if name not in known:
            raise UnknownNameError("engine of the self-test", name, known)
    chosen, left_out = [], []
    for engine, backend in known.items():
        if asked and engine not in asked:
            continue
        missing = [name for name in environment_names(engine) if environments.installed(environments.ENVIRONMENTS[name]) is None]
        if missing and not asked:
            left_out.append(not_run(f"contract {backend}", f"{missing[0]} is not built here: profile selftest --engine {engine}"))
            continue
        spec = catalog.backend(backend)
        if engine == "null":
            spec = spec.model_copy(update={"options": {**spec.options, "capacity": NULL_CAPACITY}})
        chosen.append(spec)
    return chosen, left_out


def check(
    backend: BackendSpec, model: LocalModel | None, work: Path, window_s: float, whole: bool, say: Say, pip_args: Sequence[str]
) -> Iterator[Result]:
    """The contract; with `whole` also the knee and the spread over starts. Never raises a ProfilerError: it fails the check."""
    names = [f"contract {backend.name}", *([f"knee {backend.name}", f"starts {backend.name}"] if whole else []), f"stop {backend.name}"]
    left = list(names)
    columns: list[dict[str, Any]] = []
    pids: list[int] = []
    facts: dict[str, Any] = {}
    try:
        engine = registry.get(backend.engine)
        problems = engine.problems(backend)
        if problems:
            yield from (not_run(name, "; ".join(problems)) for name in left)
            return
        variant = engine.prepare(model, backend, say, pip_args)
        needs = model if engine.needs_model else None
        for start in range(STARTS if whole else 1):
            say(f"{backend.name}: start {start + 1}")
            with engine.start(variant, backend, work / f"{backend.name}-{start}.log", say) as running:
                pids += [running.pid] if running.pid is not None else []

                def at(users: int, seed: int, running: Any = running) -> dict[str, Any]:
                    folder = work / f"{backend.name}-{len(list(work.iterdir()))}"
                    return load.cell_figures(running, backend, needs, users, window_s, seed, folder)

                if start == 0:
                    facts = {"variant": variant.variant_id, "ready_s": running.ready_s, "load_s": running.load_s}
                    yield of(left.pop(0), contract.check(running), rules=list(contract.RULES), **facts)
                    if whole:
                        yield _with_oracle(load.knee(lambda users, at=at: at(users, 100 + users), left[0], say), backend)  # type: ignore[misc]
                        left.pop(0)
                if whole:
                    columns.append(at(CELL_USERS, 7))
        if whole:
            yield load.over_starts(left.pop(0), columns)
        alive = [pid for pid in pids if _alive(pid)]
        yield of(left.pop(0), [f"process {pid} outlives its stop" for pid in alive], starts=len(pids))
    except ProfilerError as error:
        yield from (of(name, [error.message], hint=error.hint, log=_last_lines(error.detail)) for name in left)


def _with_oracle(result: Result, backend: BackendSpec) -> Result:
    """Of the null server the knee is known: as many answers at once as it was told to give."""
    wanted = backend.options.get("capacity") if backend.engine == "null" else None
    if wanted is None or result.status != "passed" or result.figures["knee_users"] == wanted:
        return result
    return of(result.name, [f"the knee is at {result.figures['knee_users']} users where the server takes {wanted}"], **result.figures)


def _alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _last_lines(detail: str | None) -> str | None:
    """Of an engine's log, without the paths of this machine: the record is meant to be published."""
    if detail is None:
        return None
    home = str(environments.cache_root())
    return "\n".join(detail.splitlines()[-3:]).replace(home, "$CACHE").replace(str(Path.home()), "~")

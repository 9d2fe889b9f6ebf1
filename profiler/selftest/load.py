"""Small measured loads on a running engine: the ladder to a knee, and one cell for the spread over starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from profiler import plan
from profiler.analyse.latency import summarise
from profiler.analyse.spread import spread
from profiler.engines.protocol import RunningEngine
from profiler.errors import LoadError
from profiler.records import LocalModel
from profiler.run.cell import measure
from profiler.selftest.result import Result, of
from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec

RISE = 1.10  # a doubled concurrency that gives less than a tenth more is past the knee
LADDER_END = 512
SPREAD_METRICS = ("output_tps", "ttft_p50_s", "tpot_p50_s")


def cell_figures(
    running: RunningEngine, backend: BackendSpec, model: LocalModel | None, users: int, window_s: float, seed: int, folder: Path
) -> dict[str, Any]:
    """Columns of one closed-loop cell of 64 input and 32 output tokens. Raises LoadError."""
    raw: dict[str, Any] = {
        "concurrency": (users,),
        "isl": 64,
        "osl": 32,
        "requests": max(8, 2 * users),
        "window_min_s": window_s,
        "window_max_s": 60.0,
    }
    sweep = SweepSpec(name="selftest", model=model.name if model else "none", warmup_s=0.5, seed=seed, **raw)
    lengths = {"kind": "fixed", "isl": 64, "osl": 32}
    workload = WorkloadSpec.model_validate({"name": "selftest", "version": 1, "summary": "x", "source": "user", "lengths": lengths})
    cell = plan.make_cell(sweep, backend, workload, "concurrency", float(users), None)
    folder.mkdir(parents=True)
    tokenizer = model.folder / "tokenizer.json" if model else None
    limit = model.max_context_tokens if model else None
    measured = measure(cell, running.endpoint, tokenizer, limit, folder, engine_pid=running.pid)
    return summarise(measured.requests, measured.drive)


def knee(measure_at: Callable[[int], dict[str, Any]], name: str, say: Callable[[str], None]) -> Result:
    """Double the users until throughput stops rising; `measure_at` gives the columns of a cell at so many users."""
    ladder: list[dict[str, Any]] = []
    problems: list[str] = []
    for users in (2**k for k in count()):
        try:
            columns = measure_at(users)
        except LoadError as error:
            problems.append(f"at {users} users: {error.message}")
            break
        rung = {"users": users, **{key: columns[key] for key in ("output_tps", "ttft_p50_s", "tpot_p50_s", "n_requests", "n_errors")}}
        say(f"{name}: {users} users, {rung['output_tps']:.0f} tokens/s, TTFT p50 {rung['ttft_p50_s']} s")
        ladder.append(rung)
        if rung["n_errors"]:
            problems.append(f"at {users} users {rung['n_errors']} requests failed")
            break
        if len(ladder) > 1 and rung["output_tps"] < RISE * ladder[-2]["output_tps"]:
            break
        if users >= LADDER_END:
            problems.append(f"throughput still rises at {users} users: no knee was reached")
            break
    most = max((float(rung["output_tps"]) for rung in ladder), default=0.0)
    # The knee is where the plateau begins, not where noise on it is highest.
    at = next((rung["users"] for rung in ladder if float(rung["output_tps"]) * RISE >= most), None)
    figures = {"knee_users": at, "saturated_output_tps": most} if not problems else {}
    return of(name, problems, **figures, ladder=ladder)


def over_starts(name: str, columns: Sequence[dict[str, Any]]) -> Result:
    """The same cell on each of several starts: mean, lowest, highest, coefficient of variation. A figure, with no bound to pass."""
    problems = [f"start {k}: {c['n_errors']} requests failed" for k, c in enumerate(columns) if c["n_errors"]]
    figures: dict[str, Any] = {"starts": len(columns)}
    for metric in SPREAD_METRICS:
        found = spread({str(k): [c[metric]] for k, c in enumerate(columns) if c[metric] is not None}, metric)
        if found is not None:
            figures[metric] = {"mean": found.mean, "lowest": found.lowest, "highest": found.highest, "cv_between": found.cv_between}
    return of(name, problems if len(columns) >= 2 else ["fewer than two starts succeeded"], **figures)

"""The parent's side of the load client: write the job, start the client, relay its progress, read its result."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from profiler.errors import LoadError
from profiler.records import DriveResult, Endpoint, LoadPlan
from profiler.run import schedule
from profiler.run.client import LENGTH

STOP_S = 10.0  # to finish the spool after being asked to stop


@dataclass(frozen=True)
class DriveProgress:
    """Where a run stands. `cohort_done` of `cohort_sent` requests of the window have ended."""

    elapsed_s: float
    phase: str  # "warm-up" | "window" | "drain"
    sent: int
    done: int
    cohort_sent: int
    cohort_done: int
    errors: int
    in_flight: int


def drive(
    endpoint: Endpoint,
    path: str,
    bodies: Sequence[bytes],
    plan: LoadPlan,
    folder: Path,
    on_progress: Callable[[DriveProgress], None] | None = None,
    enough: Callable[[DriveProgress], bool] | None = None,
) -> DriveResult:
    """Offer `plan` to `endpoint` and keep every read in `folder`/spool.bin. `path` is appended to the endpoint's prefix.

    `enough` is asked at each progress line while the window is open; its first True closes the window ("precise enough"), though never
    before the plan's least length. The plan's own rules close it all the same.

    The client is a process of its own; on KeyboardInterrupt it is stopped and its spool stays readable. Raises LoadError when the
    client fails (its last lines in `detail`) or nothing was prepared to be sent.
    """
    if not bodies:
        raise LoadError("no requests were prepared")
    if plan.parents:
        try:
            schedule.roots_of(plan.parents, len(bodies))
        except ValueError as error:
            raise LoadError(f"the requests depend on one another in a way that cannot be driven: {error}") from error
    _write_job(endpoint, path, bodies, plan, folder)
    errors = folder / "client.log"
    with errors.open("wb") as log:
        # -I: neither the user's PYTHON* variables nor the current folder may bring other code into the process that holds the clock.
        # A session of its own: Ctrl-C is for the parent, which stops the client in order.
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "profiler.run.client", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            _say(process, json.dumps(dict(endpoint.headers)))
            for line in process.stdout:
                progress = DriveProgress(**json.loads(line))
                if on_progress is not None:
                    on_progress(progress)
                if enough is not None and progress.phase == "window" and enough(progress):
                    _say(process, "close")
                    enough = None
            process.wait()
        finally:
            _stop(process)
    if process.returncode != 0:
        lines = errors.read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {process.returncode}"
        raise LoadError(f"the load client failed: {reason}", detail="\n".join(lines[-12:]) or None)
    errors.unlink()
    return read_result(folder)


def read_result(folder: Path) -> DriveResult:
    """result.json of a finished run. The read delays need the spool and are filled in by the decoder."""
    raw = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    del raw["clock_samples"]
    raw["context_switches"] = tuple(raw["context_switches"])
    return DriveResult(**raw, read_delay_p50_s=None, read_delay_p99_s=None)


def _write_job(endpoint: Endpoint, path: str, bodies: Sequence[bytes], plan: LoadPlan, folder: Path) -> None:
    where = {key: value for key, value in asdict(endpoint).items() if key != "headers"}
    job = {"endpoint": where, "path": path, "plan": asdict(plan), "bodies": "bodies.bin", "share": [0, 1], "cpus": []}
    try:
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        with (folder / "bodies.bin").open("wb") as file:
            for body in bodies:
                file.write(LENGTH.pack(len(body)) + body)
    except OSError as error:
        raise LoadError(f"{folder}: {error.strerror}", hint="the results folder's disk is full or not writable") from error


def _say(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died already; its log says why
        os.write(process.stdin.fileno(), line.encode() + b"\n")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()

"""The parent's side of the load client: write the job, start the client, relay its progress, read its result."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from profiler.errors import LoadError
from profiler.records import DriveResult, Endpoint, LoadPlan
from profiler.run import schedule, spool
from profiler.run.client import LENGTH
from profiler.run.clients import (
    LEAD_NS,
    START_S,
    STOP_S,
    Client,
    DriveProgress,
    Leader,
    Leading,
    lines,
    merge,
    together,
    write_jobs,
)
from profiler.run.syncing import Syncing

__all__ = ["DriveProgress", "drive", "read_result"]


def drive(
    endpoint: Endpoint | Sequence[Endpoint],
    path: str,
    bodies: Sequence[bytes],
    plan: LoadPlan,
    folder: Path,
    on_progress: Callable[[DriveProgress], None] | None = None,
    enough: Callable[[DriveProgress], bool] | None = None,
    *,
    processes: int = 1,
    cpus: Sequence[int] = (),
    lead: Callable[[LoadPlan, int], Leading] | None = None,
) -> DriveResult:
    """Offer `plan` to `endpoint` and keep every read in `folder`/spool.bin. `path` is appended to the endpoint's prefix.

    Of several endpoints (replicas that serve one model) the k-th root and everything that waits for it goes to number k mod N, whichever
    client process sends it: a conversation stays with one server, whose prefix cache knows it. `lead` makes who opens and closes the
    window in place of `plan`'s own rules (see together.py), from the plan and the time at which the load starts.

    `enough` is asked at each progress line while the window is open; its first True closes the window ("precise enough"), though never
    before the plan's least length. The plan's own rules close it all the same.

    The client is a process of its own; on KeyboardInterrupt it is stopped and its spool stays readable. `processes` clients share the
    load (`client-0` ... in `folder`, see clients.processes_for); `cpus` are the cores they may run on: by default any, because
    an engine that is not kept off a core would make its client wait there. Raises LoadError when a client fails (its last lines in `detail`) or nothing was prepared to be sent.
    """
    if not bodies:
        raise LoadError("no requests were prepared")
    if plan.parents:
        try:
            schedule.roots_of(plan.parents, len(bodies))
        except ValueError as error:
            raise LoadError(f"the requests depend on one another in a way that cannot be driven: {error}") from error
    endpoints = [endpoint] if isinstance(endpoint, Endpoint) else list(endpoint)
    folders = [folder] if processes == 1 else [folder / f"client-{j}" for j in range(processes)]
    _write_job(endpoints, path, bodies, plan, folder, folders, cpus, told=lead is not None)
    errors = folder / "client.log"
    with errors.open("wb") as log, contextlib.ExitStack() as stack:
        clients = []
        for own in folders:
            clients.append(Client(own, log))
            stack.callback(clients[-1].stop)
        stack.enter_context(Syncing([own / spool.NAME for own in folders], folder))
        reason = _run(clients, plan, json.dumps(dict(endpoints[0].headers)), on_progress, enough, lead)
        for client in clients:
            client.process.wait(STOP_S)
    failed = [client.process.returncode for client in clients if client.process.returncode != 0]
    if failed:
        last = errors.read_text(errors="replace").strip().splitlines()
        raise LoadError(f"the load client failed: {last[-1] if last else f'exit code {failed[0]}'}", detail="\n".join(last[-12:]) or None)
    errors.unlink()
    if processes > 1:
        results = [json.loads((own / "result.json").read_text(encoding="utf-8")) for own in folders]
        merged = merge(results, reason) | {"client_processes": processes}
        (folder / "result.json").write_text(json.dumps(merged), encoding="utf-8")
    return read_result(folder)


def _run(
    clients: Sequence[Client],
    plan: LoadPlan,
    headers: str,
    on_progress: Callable[[DriveProgress], None] | None,
    enough: Callable[[DriveProgress], bool] | None,
    lead: Callable[[LoadPlan, int], Leading] | None = None,
) -> str | None:
    """Until every client has ended. Why the window closed, where this process led it."""
    for client in clients:
        client.say(headers)
    leader: Leading | None = None
    ready = 0
    for client, line in lines(clients, START_S + plan.cell_timeout_s + STOP_S):
        if line is None:
            if len(clients) > 1 and client.process.wait(STOP_S) != 0:
                break  # the others are stopped; what it said is in its log
            if len(clients) > 1 and leader is not None and leader.reason is None:
                reason = json.loads((client.folder / "result.json").read_text(encoding="utf-8"))["stop_reason"]
                for other in clients:
                    other.say(f"stop {reason}")
            continue
        if not line:  # one of several is ready
            ready += 1
            if ready == len(clients):
                started_ns = time.monotonic_ns() + LEAD_NS
                leader = (lead or Leader)(plan, started_ns)
                for each in clients:
                    each.say(str(started_ns))
            continue
        client.progress = DriveProgress(**line)
        told = together(clients)
        if told is None:
            continue
        if on_progress is not None:
            on_progress(told)
        if enough is not None and told.phase == "window" and enough(told):
            enough = None
            leader.ask_to_close() if leader else client.say("close")
        if leader is not None:
            drained = all(
                c.progress is not None and c.progress.phase == "drain" and c.progress.cohort_done == c.progress.cohort_sent for c in clients
            )
            command = leader.decide(time.monotonic_ns(), told, drained)
            for each in clients if command else ():
                each.say(command or "")
    return leader.reason if leader else None


def read_result(folder: Path) -> DriveResult:
    """result.json of a finished run. The read delays need the spool and are filled in by the decoder."""
    raw = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    raw["context_switches"] = tuple(raw["context_switches"])
    return DriveResult(**raw, read_delay_p50_s=None, read_delay_p99_s=None)


def _write_job(
    endpoints: Sequence[Endpoint],
    path: str,
    bodies: Sequence[bytes],
    plan: LoadPlan,
    folder: Path,
    folders: Sequence[Path],
    cpus: Sequence[int],
    told: bool,
) -> None:
    where = [{key: value for key, value in asdict(endpoint).items() if key != "headers"} for endpoint in endpoints]
    try:
        for old in folder.glob("client-*"):  # of an earlier try with more processes
            shutil.rmtree(old) if old.is_dir() else None
        write_jobs(folders, {"endpoints": where, "path": path}, plan, cpus, told)
        with (folder / "bodies.bin").open("wb") as file:
            for body in bodies:
                file.write(LENGTH.pack(len(body)) + body)
    except OSError as error:
        raise LoadError(f"{folder}: {error.strerror}", hint="the results folder's disk is full or not writable") from error

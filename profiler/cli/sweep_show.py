"""What `profile sweep` prints: the plan before, a line per cell, the answer after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.plan import whole_window_s
from profiler.units import format_duration, load_label

if TYPE_CHECKING:
    from profiler.analyse.memory import Prediction
    from profiler.cli.evaluated import Evaluated
    from profiler.cli.progress import Progress
    from profiler.plan import Cell, Plan, Start
    from profiler.report.selection import Selection
    from profiler.spec import BackendSpec

PIPED_WIDTH = 120  # of tables in a file or a CI log, where there is no terminal to ask


def dry_run(plan: Plan, quality: tuple[list[str], dict[str, Any]] | None, as_json: bool) -> None:
    """The cells in the order they would run, the engine command lines, bounds of the measuring time, and what is evaluated after it."""
    shortest, longest = plan.seconds()
    forecasts = _forecasts(plan)
    if as_json:
        rows = [
            {"repeat": start.repeat, "cell_id": c.cell_id, "backend": c.backend.name, "workload": c.workload.name, "load_kind": c.load_kind}
            | {
                "load": c.load,
                "beside": [list(pair) for pair in c.beside],
                "replicas": c.backend.replicas,
                "arrivals": c.arrivals,
                "qos": c.qos,
                "trace": _trace(c),
                "memory": _memory_json(forecasts[c.cell_id]),
            }
            for start in plan.starts
            for c in start.cells
        ]
        told = {"sweep_id": plan.sweep_id, "seconds_min": shortest, "seconds_max": longest, "cells": rows}
        click.echo(json.dumps({**told, "quality": quality[1] if quality else None}, indent=2))
        return
    click.echo(f"sweep {plan.sweep_id}: {_counts(plan)}, model {plan.sweep.model}")
    for number, start in enumerate(plan.starts, 1):
        names = " beside ".join(backend.name for backend in start.backends)
        click.echo(f"start {number}: {names} (repeat {start.repeat})")
        for backend in start.backends:
            click.echo(f"  command: {' '.join(_command(backend))}")
            for line in _servers(start, backend):
                click.echo(f"    {line}")
        for place, cell in enumerate(start.cells):
            at_once = place > 0 and cell.beside and start.cells[place - 1].group == cell.group
            click.echo(
                f"  {'  and at once ' if at_once else ''}{cell.cell_id}  {cell.workload.name:<18} {load_label(cell.load_kind, cell.load, cell.arrivals):<14} QoS {cell.qos or '—'}{_beside(cell)}"
            )
            for line in (*_trace_lines(cell), *_memory_lines(forecasts[cell.cell_id])):
                click.echo(f"    {line}")
    whole = [whole_window_s(cell) is not None for cell in plan.cells]
    rules = [f"a window closes after {plan.sweep.requests} requests, at the latest after {plan.sweep.window_max_s:g} s"]
    if any(whole):
        rules = [] if all(whole) else rules
        rules.append("a trace, a ramp and a step are measured from end to end")
    click.echo(
        f"measuring takes between {format_duration(shortest)} and {format_duration(longest)}: {'; '.join(rules)}; on top come the answers that "
        f"are still under way when a window closes (each at most {format_duration(plan.sweep.request_timeout_s)}), and set-up on first use"
    )
    for line in quality[0] if quality else ():
        click.echo(line)


def _forecasts(plan: Plan) -> dict[str, Prediction | str | None]:
    """By cell id: the prediction, or why there is none; None for engines without a model here."""
    from profiler import models
    from profiler.analyse.memory import forecast
    from profiler.engines import registry
    from profiler.machine.fingerprint import fingerprint

    isa = tuple(fingerprint()["isa"])
    needed = any(registry.get(backend.engine).needs_model for start in plan.starts for backend in start.backends)
    model = models.on_disk(plan.sweep.model) if needed else None
    found: dict[str, Prediction | str | None] = {}
    for cell in plan.cells:
        if registry.get(cell.backend.engine).needs_model:
            found[cell.cell_id] = forecast(cell, model, isa) if model else "unknown until the model is on this disk"
        else:
            found[cell.cell_id] = None
    return found


def _memory_lines(predicted: Prediction | str | None) -> list[str]:
    return [] if predicted is None else [f"memory: {predicted if isinstance(predicted, str) else predicted.sentence}"]


def _memory_json(predicted: Prediction | str | None) -> dict[str, Any] | None:
    if predicted is None or isinstance(predicted, str):
        return {"reason": predicted} if predicted else None
    return {**predicted.columns(), "fits": predicted.problem is None, "sentence": predicted.sentence}


def _beside(cell: Cell) -> str:
    """` · openvino-xeon-int8 beside openvino-xeon-int4 at 4 users`, for a cell of a co-run."""
    if not cell.beside:
        return ""
    others = ", ".join(f"{name} {'idle' if load == 'idle' else f'at {load}'}" for name, load in cell.beside)
    return f" · {cell.backend.name} beside {others}"


def _servers(start: Start, backend: BackendSpec) -> list[str]:
    """How many servers, and where they and the client run on this machine."""
    from profiler.machine import placement, topology

    (where,) = placement.place(topology.topology(), [backend], start.client_cpus)
    cpus = [topology.as_list(slot.cpus) for slot in where.servers if slot.cpus]
    lines = [f"{backend.replicas} replicas, requests in turn"] if backend.replicas > 1 else []
    if cpus:
        client = topology.as_list(where.client) if where.client else "where the kernel puts it"
        lines.append(f"CPUs {'; '.join(cpus)}; client {client} ({where.reason})")
    return lines


def _trace(cell: Cell) -> dict[str, Any] | None:
    from profiler.workload import replay

    return dict(replay.load(cell.workload.trace).facts) if cell.workload.trace is not None else None


def _trace_lines(cell: Cell) -> list[str]:
    """Slice, factors, and what is left of the trace."""
    facts = _trace(cell)
    if facts is None:
        return []
    until = f"for {facts['length']}" if facts["length"] is not None else "to the end"
    skipped = f", {facts['rows_without_output']} rows without output left out" if facts["rows_without_output"] else ""
    return [
        f"trace {facts['file']} ({facts['format']}): {facts['rows_in_slice']} of {facts['rows']} rows in the slice "
        f"from {facts['start']} {until}{skipped}",
        f"speed x{facts['speed']:g}, thin {facts['thin']:g}, lengths divided by {facts['divide_lengths']}: {facts['requests']} requests "
        f"in {format_duration(facts['duration_s'])}, {facts['mean_rate']:.3g}/s in the mean",
    ]


def announce(plan: Plan, progress: Progress) -> None:
    """What is about to be measured, in the words the report will use."""
    progress.note(f"sweep {plan.sweep_id}: {_counts(plan)}, model {plan.sweep.model}")
    pinned = sorted({cell.workload.name for cell in plan.cells if cell.workload.pin_output})
    if pinned:
        progress.note(f"output lengths are pinned (ignore_eos) for {', '.join(pinned)}: every backend writes the same number of tokens")


def summary(run: Mapping[str, Any]) -> str:
    """One line for a finished cell."""
    row = run["run"]
    if row["status"] != "done":
        return f"failed: {row['status_reason']}"
    parts = [f"{row['output_tps']:.0f} tok/s", f"n {row['n_requests']}"]
    if row["ttft_sched_p95_s"] is not None:
        parts.append(f"TTFT p95 {format_duration(row['ttft_sched_p95_s'])}")
    if row["tpot_p95_s"] is not None:
        parts.append(f"TPOT p95 {format_duration(row['tpot_p95_s'])}")
    if row["validity"] != "valid":
        parts.append(f"{row['validity']}: {'; '.join(row['validity_reasons'])}")
    return ", ".join(parts) + f" -> {row['qos_result'] or 'no QoS target'}"


def answer(selection: Selection, report: Path, evaluated: Evaluated | None, as_json: bool) -> None:
    """The table, the answer in words, what was evaluated, and where the report lies."""
    from profiler.report import table

    if as_json:
        told = {"sweep_id": selection.sweep_id, "report": str(report), "runs": table.rows(selection)}
        click.echo(json.dumps({**told, "quality": evaluated.told() if evaluated else None}, indent=2))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    for part in table.render(selection):
        console.print(part, highlight=False)
    if evaluated:
        evaluated.show()
    for warning in selection.store.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"report: {report}")


def _counts(plan: Plan) -> str:
    starts = sum(len(start.backends) for start in plan.starts)
    return f"{len(plan.cells)} cells in {starts} engine start{'s' if starts != 1 else ''}"


def _command(backend: BackendSpec) -> list[str]:
    from profiler.engines import registry
    from profiler.records import Variant

    variant = Variant("<variant>", Path("<variant>"), backend.precision, None)
    return registry.get(backend.engine).command(variant, backend, 0)

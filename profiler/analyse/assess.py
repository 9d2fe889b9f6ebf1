"""From an outcome to run.json: columns, quality block, verdict, provenance. The one place where a run's record is put together."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiler import __version__
from profiler.analyse import energy, memory, qos, steady, verdict
from profiler.analyse.enough import bounds_of
from profiler.analyse.latency import summarise
from profiler.analyse.memory import Prediction
from profiler.analyse.validity import certify
from profiler.machine.topology import as_list
from profiler.plan import Cell, digest
from profiler.records import DriveResult, LocalModel, Variant
from profiler.run.calibrate import Curve, error_bar, load_curve
from profiler.run.cell import Measured, reuse_of
from profiler.run.scrape import ServerUse
from profiler.run.start import Outcome
from profiler.spec import BackendSpec, SweepSpec
from profiler.units import NS_PER_S
from profiler.workload import replay


@dataclass(frozen=True)
class SweepFacts:
    """What all runs of one sweep share."""

    sweep_id: str
    cells: tuple[str, ...]  # ids of all cells of the sweep, also of those that another sweep has measured
    spec: SweepSpec
    machine: Mapping[str, Any]  # machine.fingerprint.fingerprint()


def environment_hash(facts: SweepFacts, backend: BackendSpec, variant: Variant, model: LocalModel | None) -> str:
    """Hash of what a cell's figures depend on beside the cell itself: machine, engine environment, variant, model content."""
    return digest(
        [
            facts.machine["machine_id"],
            backend.engine,
            variant.env_hash,
            variant.variant_id,
            model.content_hash if model else None,
        ]
    )


def assess(
    facts: SweepFacts, outcome: Outcome, repeat: int, environment: str, model: LocalModel | None, predicted: Prediction | None = None
) -> dict[str, Any]:
    """run.json of a cell that ran (or failed while it ran)."""
    document = _document(facts, outcome.cell, repeat, model)
    run = document["run"]
    engine = outcome.engine
    variant = engine.get("variant", {})
    run |= {
        "environment_hash": environment,
        "start_id": engine.get("start_id"),
        "ready_s": engine.get("ready_s"),
        "load_s": engine.get("load_s"),
        "peak_memory_bytes": engine.get("peak_memory_bytes"),
        "variant": variant.get("variant_id"),
        "variant_size_bytes": variant.get("size_bytes"),
        "engine_version": engine.get("versions", {}).get(_DISTRIBUTION.get(outcome.cell.backend.engine, outcome.cell.backend.engine)),
        **_device(facts, outcome.cell.backend, engine.get("device_source")),
        "machine_id": facts.machine["machine_id"] if engine.get("device_source") == "observed" else None,
        "comparison_id": facts.machine.get("comparison_id") if engine.get("device_source") == "observed" else None,
        "memory_bandwidth_bytes_per_second": _bandwidth(facts) if engine.get("device_source") == "observed" else None,
    }
    run |= (predicted.columns() if predicted else {}) | dict(engine.get("memory") or {})
    run["memory_finding"] = "; ".join(memory.off(run)) or None
    run |= _deployment(outcome)
    document["provenance"]["engine"] = dict(engine)
    if outcome.measured is None:
        run |= {"status": "failed", "status_reason": outcome.failure, "validity": "invalid", "validity_reasons": [outcome.failure]}
        document["failure_detail"] = outcome.detail
        return document
    measured = outcome.measured
    cell, arrivals, bounds = outcome.cell, outcome.cell.arrivals, bounds_of(outcome.cell)
    target = qos.parse(cell.qos) if cell.qos else None
    run |= summarise(measured.requests, measured.drive, target, bounds)
    steadiness = steady.examine(measured.requests, measured.drive, cell.load_kind, cell.load, arrivals)
    run |= _certificate(measured, steadiness) | error_bar_of(measured.drive, run["output_tps"], load_curve(facts.machine["machine_id"]))
    energies = _energy(outcome, run)
    quality = certify(
        measured.requests,
        measured.drive,
        run,
        pinned_output=cell.workload.pin_output,
        steadiness=steadiness,
        system=measured.system,
        prefix_expected=_prefix_expected(measured),
        prefix_least=_prefix_least(measured, run.get("prefix_block_bound")),
    )
    run |= {"status": "done", "validity": quality.validity}
    run |= {"validity_reasons": list(quality.reasons), "validity_advice": list(quality.advice)}
    run |= {"stop_reason": measured.drive.stop_reason, "started_at": measured.drive.started_at}
    document["quality"] = quality.to_dict() | {"server": measured.server.to_dict() if measured.server else None}
    document["energy"] = [row.to_dict() for row in energies]
    document["samples"] = list(measured.samples)
    prompts = measured.prompts
    run |= {"cut_share": prompts.cut_share, "prefix_declared": prompts.prefix_declared, "prefix_bound": measured.prefix_bound}
    document["provenance"]["prompts"] = {"sha256": prompts.sha256, "cut_share": prompts.cut_share, "trace": _trace_facts(outcome.cell)}
    if target is not None:
        judged = verdict.judge(
            target, measured.requests, cell.load_kind, cell.load, measured.drive, quality.validity, arrivals=arrivals, bounds=bounds
        )
        run |= {"qos_result": judged.result, "qos_reason": judged.reason}
        document["verdicts"] = [judged.to_dict()]
    return document


def _energy(outcome: Outcome, run: dict[str, Any]) -> list[energy.Energy]:
    """Puts the energy columns into `run`; the rows by scope."""
    assert outcome.measured is not None
    drive = outcome.measured.drive
    window_s = (drive.window_close_ns - drive.window_open_ns) / NS_PER_S
    counts = [rate * window_s if (rate := run[name]) is not None else None for name in ("output_tps", "request_rate")]
    owned = outcome.engine.get("device_source") == "observed"
    telemetry = energy.load(outcome.folder / "telemetry.parquet")
    columns, rows = energy.columns(
        telemetry, drive.window_open_ns, drive.window_close_ns, outcome.cell.backend.device, owned, counts[0], counts[1]
    )
    run |= columns
    return rows


def _device(facts: SweepFacts, backend: BackendSpec, source: str | None) -> dict[str, Any]:
    """What was measured and what it costs. The client's machine is the device only where it started the engine itself."""
    if source == "observed" and backend.device == "cuda":
        names = {gpu["name"] for gpu in facts.machine.get("gpus") or ()}
        # Of differing GPUs in one machine nobody here knows which one CUDA took.
        return {"device_source": source, "device": names.pop() if len(names) == 1 else None}
    if source == "observed":
        return {"device_source": source, "device": facts.machine.get("cpu_model")}
    known = backend.options if backend.engine == "openai" else {}
    price = known.get("price_usd_per_hour")
    return {
        "device_source": "declared" if known.get("device") else None,
        "device": known.get("device"),
        "device_count": known.get("device_count"),
        "price_usd_per_hour": price,
        "price_source": "declared" if price is not None else None,
    }


def settle(outcome: Outcome) -> Outcome:
    """The outcome with its window opened where the transient ended, if it ended late and enough of the cohort is left; else as it was."""
    measured = outcome.measured
    if measured is None:
        return outcome
    cell = outcome.cell
    found = steady.examine(measured.requests, measured.drive, cell.load_kind, cell.load, cell.arrivals)
    shorter = steady.cut(measured.requests, measured.drive, found)
    if shorter is None:
        return outcome
    requests, drive = shorter
    cut_s = (drive.window_open_ns - measured.drive.window_open_ns) / NS_PER_S
    return replace(outcome, measured=replace(measured, requests=requests, drive=drive, cut_s=cut_s))


def error_bar_of(drive: DriveResult, output_tps: float | None, curve: Curve | None) -> dict[str, Any]:
    """The client's own error at the run's token rate: calibrated on this machine where it was, and never less than the run itself saw."""
    seen = drive.read_delay_p99_s
    if curve is None or output_tps is None:
        return {"ttft_error_bar_s": seen, "tpot_error_bar_s": None, "error_bar_source": "this run" if seen is not None else None}
    bar = error_bar(curve, output_tps)
    source = "beyond calibration" if bar.beyond else "calibrated"
    return {"ttft_error_bar_s": max(bar.ttft_s, seen or 0.0), "tpot_error_bar_s": bar.itl_s, "error_bar_source": source}


def _deployment(outcome: Outcome) -> dict[str, Any]:
    """The columns that say how many servers there were, and where they and the client ran."""
    servers = outcome.engine.get("replicas") or ()
    cpus = [server["cpus"] for server in servers if server.get("cpus")]
    client = outcome.measured.client_cpus if outcome.measured else ()
    return {
        "server_cpus": ";".join(cpus) if cpus else None,
        "client_cpus": as_list(client) if client else None,
        "placement_reason": outcome.engine.get("placement"),
    }


def _certificate(measured: Measured, steadiness: steady.Steadiness) -> dict[str, Any]:
    """The columns in which a run says how far it can be trusted."""
    drive, system = measured.drive, measured.system
    switches = drive.context_switches or (None, None)
    return {
        "stability": steadiness.stability,
        "stability_reason": steadiness.reason or None,
        "transient_end_s": steadiness.transient_end_s,
        "window_cut_s": measured.cut_s,
        "looks": measured.looks,
        "read_delay_p50_s": drive.read_delay_p50_s,
        "read_delay_p99_s": drive.read_delay_p99_s,
        "client_switches_voluntary": switches[0],
        "client_switches_involuntary": switches[1],
        "engine_cpu_cores": system.engine_cpu_cores if system else None,
        "neighbour_cpu_cores": system.neighbour_cpu_cores if system else None,
        "other_cpu_cores": system.other_cpu_cores if system else None,
        "steal_cpu_cores": system.steal_cpu_cores if system else None,
        "throttled_s": system.throttled_s if system else None,
        "clock_resolution_s": system.clock_resolution_s if system else None,
    } | server_columns(measured)


def server_columns(measured: Measured) -> dict[str, Any]:
    """What the server's own metrics say, as columns of `runs`."""
    server = measured.server or ServerUse(reason="the server's metrics were not scraped")
    names = ("queue_mean_s", "prefill_mean_s", "decode_mean_s", "ttft_mean_s", "running_max", "waiting_max", "kv_use_max", "preemptions")
    columns: dict[str, Any] = {f"server_{name}": getattr(server, name) for name in (*names, "scrapes", "scrape_p50_s", "scraper_cpu_cores")}
    prefix = ("prefix_hit_rate", "prefix_hit_tokens", "prefix_queried_tokens", "prefix_block_tokens", "prefix_reset")
    columns |= {name: getattr(server, name) for name in prefix}
    columns["prefix_hit_reason"] = _no_hits(measured.cell.backend.engine, server) if server.prefix_hit_rate is None else None
    unknown = all(columns[f"server_{name}"] is None for name in names)
    columns["server_metrics_reason"] = (server.reason or "the server's metrics have other names than vLLM's") if unknown else None
    if server.prefix_caching and server.prefix_block_tokens and measured.prompts.calls:
        columns["prefix_block_bound"] = reuse_of(measured.requests, measured.prompts, server.prefix_block_tokens, everything=True)
    return columns


def _prefix_least(measured: Measured, block_bound: float | None) -> float | None:
    """The hit rate that a declared shared prefix must make in a cache that is on; None where none is declared or the cache is off."""
    declared = measured.prompts.prefix_declared
    if declared is None or block_bound is None:
        return None
    return min(declared, block_bound)  # first sight of each group and broken blocks are misses of every cache


def _prefix_expected(measured: Measured) -> float | None:
    """The hit rate that the workload itself makes; None where nobody knows."""
    known = [getattr(measured, "prefix_bound", None), getattr(measured.prompts, "prefix_declared", None)]
    declared = [share for share in known if share is not None]
    return max(declared) if declared else 0.0 if measured.cell.workload.prompts.unique_prefix else None


def failed(
    facts: SweepFacts, cell: Cell, repeat: int, reason: str, model: LocalModel | None, predicted: Prediction | None = None
) -> dict[str, Any]:
    """run.json of a cell that never ran: its engine could not be prepared here, or does not fit."""
    document = _document(facts, cell, repeat, model)
    document["run"] |= predicted.columns() if predicted else {}
    document["run"] |= {"status": "failed", "status_reason": reason, "validity": "invalid", "validity_reasons": [reason]}
    return document


def _bandwidth(facts: SweepFacts) -> float | None:
    found: float | None = (facts.machine.get("memory_bandwidth") or {}).get("bytes_per_s")
    return found


def _no_hits(engine: str, server: ServerUse) -> str:
    """Why a run has no measured prefix-cache hit rate."""
    if server.prefix_caching is False:
        return "prefix caching is off"
    known = {"openvino": "OpenVINO GenAI counts no prefix-cache hits", "null": "the null engine has no cache"}
    return known.get(engine, "the server has no prefix-cache counters")


def _trace_facts(cell: Cell) -> dict[str, Any] | None:
    """The slice and every factor of a replay; None for other workloads."""
    return dict(replay.load(cell.workload.trace).facts) if cell.workload.trace is not None else None


_DISTRIBUTION = {"openvino": "openvino-genai"}  # the package that names an engine's version, where it is not the engine's own name


def _document(facts: SweepFacts, cell: Cell, repeat: int, model: LocalModel | None) -> dict[str, Any]:
    return {
        "run": {
            "sweep_id": facts.sweep_id,
            "sweep_name": facts.spec.name,
            "cell_id": cell.cell_id,
            "repeat": repeat,
            "provenance_class": "measured",
            # An engine without a model (null) serves none, whatever the sweep's spec names; a remote one serves the model it is asked for.
            "model": cell.model if model is not None or cell.backend.device == "remote" else None,
            "model_hash": model.content_hash if model else None,
            "backend": cell.backend.name,
            "engine": cell.backend.engine,
            "workload": cell.workload.name,
            "workload_version": cell.workload.version,
            "load_kind": cell.load_kind,
            "load": cell.load,
            "arrivals": cell.arrivals,
            "replicas": cell.backend.replicas,
            "co_run_with": " + ".join(name for name, _ in cell.beside) or None,
            "co_run_load": " + ".join(load for _, load in cell.beside) or None,
            "qos": cell.qos,
            "qos_result": None,
            "qos_reason": None,
            "energy_j": None,
            "energy_scope": None,
            "energy_reason": "nothing was measured",
            "profiler_version": __version__,
        },
        "provenance": {
            "machine": dict(facts.machine),
            "machine_role": "client" if cell.backend.device == "remote" else "client and server",
            "model": _model(model),
            "backend": cell.backend.model_dump(mode="json"),
            "workload": cell.workload.model_dump(mode="json"),
            "sweep": facts.spec.model_dump(mode="json"),
            "cells": list(facts.cells),
            "git_commit": git_commit(),
        },
        "quality": {},
        "samples": [],
        "verdicts": [],
    }


def _model(model: LocalModel | None) -> dict[str, Any] | None:
    if model is None:
        return None
    names: Sequence[str] = ("name", "content_hash", "source", "base_precision", "max_context_tokens", "n_parameters", "license")
    return {name: getattr(model, name) for name in names}


def git_commit() -> str | None:
    """The commit this program runs from, with "-dirty" when its files differ; None when it was installed as a package."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=here, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None

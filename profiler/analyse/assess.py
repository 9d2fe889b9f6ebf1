"""From an outcome to run.json: columns, quality block, verdict, provenance. The one place where a run's record is put together."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler import __version__
from profiler.analyse import qos, verdict
from profiler.analyse.latency import summarise
from profiler.analyse.validity import certify
from profiler.plan import Cell, digest
from profiler.records import LocalModel, Variant
from profiler.run.start import Outcome
from profiler.spec import BackendSpec, SweepSpec
from profiler.workload import replay


@dataclass(frozen=True)
class SweepFacts:
    """What all runs of one sweep share."""

    sweep_id: str
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


def assess(facts: SweepFacts, outcome: Outcome, repeat: int, environment: str, model: LocalModel | None) -> dict[str, Any]:
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
        "device_source": engine.get("device_source"),
        "device": facts.machine.get("cpu_model") if engine.get("device_source") == "observed" else None,
        "machine_id": facts.machine["machine_id"] if engine.get("device_source") == "observed" else None,
    }
    document["provenance"]["engine"] = dict(engine)
    if outcome.measured is None:
        run |= {"status": "failed", "status_reason": outcome.failure, "validity": "invalid", "validity_reasons": [outcome.failure]}
        document["failure_detail"] = outcome.detail
        return document
    measured = outcome.measured
    target = qos.parse(outcome.cell.qos) if outcome.cell.qos else None
    run |= summarise(measured.requests, measured.drive, target)
    quality = certify(measured.requests, measured.drive, run, pinned_output=outcome.cell.workload.pin_output)
    run |= {"status": "done", "validity": quality.validity, "validity_reasons": list(quality.reasons)}
    run |= {"stop_reason": measured.drive.stop_reason, "started_at": measured.drive.started_at}
    document["quality"] = quality.to_dict()
    document["samples"] = list(measured.samples)
    prompts = measured.prompts
    run |= {"cut_share": prompts.cut_share, "prefix_declared": prompts.prefix_declared, "prefix_bound": measured.prefix_bound}
    document["quality"] |= {"prefix_hit_rate": None, "prefix_hit_reason": _no_hits(outcome.cell.backend.engine)}
    document["provenance"]["prompts"] = {"sha256": prompts.sha256, "cut_share": prompts.cut_share, "trace": _trace_facts(outcome.cell)}
    if target is not None:
        judged = verdict.judge(target, measured.requests, outcome.cell.load_kind, outcome.cell.load, measured.drive, quality.validity)
        run |= {"qos_result": judged.result, "qos_reason": judged.reason}
        document["verdicts"] = [judged.to_dict()]
    return document


def failed(facts: SweepFacts, cell: Cell, repeat: int, reason: str, model: LocalModel | None) -> dict[str, Any]:
    """run.json of a cell that never ran: its engine could not be prepared here."""
    document = _document(facts, cell, repeat, model)
    document["run"] |= {"status": "failed", "status_reason": reason, "validity": "invalid", "validity_reasons": [reason]}
    return document


def _no_hits(engine: str) -> str:
    """Why a run has no measured prefix-cache hit rate."""
    known = {"openvino": "OpenVINO GenAI counts no prefix-cache hits", "null": "the null engine has no cache"}
    return known.get(engine, "the server's cache counters are not read by this version")


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
            "model": cell.model,
            "model_hash": model.content_hash if model else None,
            "backend": cell.backend.name,
            "engine": cell.backend.engine,
            "workload": cell.workload.name,
            "workload_version": cell.workload.version,
            "load_kind": cell.load_kind,
            "load": cell.load,
            "arrivals": cell.arrivals,
            "qos": cell.qos,
            "energy_j": None,
            "energy_scope": None,
            "energy_reason": "power is not sampled by this version",
            "profiler_version": __version__,
        },
        "provenance": {
            "machine": dict(facts.machine),
            "model": _model(model),
            "backend": cell.backend.model_dump(mode="json"),
            "workload": cell.workload.model_dump(mode="json"),
            "sweep": facts.spec.model_dump(mode="json"),
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

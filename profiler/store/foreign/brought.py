"""A tool's file as run.json documents with their requests, and into the store: all or nothing, and never the same content twice."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from profiler import __version__
from profiler.errors import StoreError, UsageError, did_you_mean
from profiler.records import RequestRecord
from profiler.store.foreign.mapping import NUMBERS
from profiler.store.foreign.recognise import ForeignFile
from profiler.store.foreign.run import ForeignRun
from profiler.store.foreign.units import factor, value_flags
from profiler.store.store import Store

TEXTS = ("model", "variant", "backend", "engine", "engine_version", "device", "workload", "load_kind")
DECLARED = (*TEXTS, "load", "device_count", "price_usd_per_hour")
NO_REQUESTS = "imported: the raw requests are not known, so nothing of how it was measured can be checked"
REQUESTS = "imported: nothing of the client that measured it can be checked; the window is its whole run, ramp and drain included"
ADVICE = "measure the same cell with `profile sweep`"
OwnColumns = Callable[[ForeignRun], dict[str, Any]]


@dataclass(frozen=True)
class Brought:
    """`documents` in the file's order, each with its requests; `flags` in words."""

    documents: tuple[tuple[dict[str, Any], tuple[RequestRecord, ...]], ...]
    added: int
    known: int
    flags: tuple[str, ...]


def declared(texts: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` texts. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in DECLARED or not equals or not value:
            raise UsageError(
                f"--declare {text}: not one of {', '.join(f'{name}=…' for name in DECLARED)}",
                hint=did_you_mean(key, DECLARED) or "KEY=VALUE",
            )
        if key in TEXTS:
            found[key] = value
            continue
        try:
            found[key] = int(value) if key == "device_count" else float(value)
        except ValueError:
            raise UsageError(f"--declare {text}: {value!r} is not a number") from None
        if not 0 < found[key] < float("inf"):
            raise UsageError(f"--declare {text}: not above 0")
    if found.get("load_kind", "rate") not in ("rate", "concurrency"):
        raise UsageError(f"--declare load_kind={found['load_kind']}", hint="rate (requests/s) or concurrency (users)")
    return found


def bring_file(store: Store, file: ForeignFile, own: OwnColumns, said: Mapping[str, Any], dry_run: bool = False) -> Brought:
    """Raises StoreError before anything is written. `own`: the columns that our definitions make of a run's requests."""
    made = [(document(file, index, run, own, said), run.requests) for index, run in enumerate(file.runs)]
    if dry_run:
        return _bring(store, file, made, write=False)
    store.check_writable()
    with (store.path / ".incoming" / ".import.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _bring(store, file, made, write=True)


def _bring(store: Store, file: ForeignFile, made: list[tuple[dict[str, Any], tuple[RequestRecord, ...]]], write: bool) -> Brought:
    have = {row["environment_hash"] for row in store.rows() if row["provenance_class"] == "imported"}
    new = [one for one in made if one[0]["run"]["environment_hash"] not in have]
    for document_, requests in new if write else ():
        run = document_["run"]
        run["repeat"] = store.next_repeat([run["cell_id"]])
        store.keep(document_, requests)
    flags = [*file.flags, *(reason for document_, _ in made for reason in document_["run"]["validity_reasons"][1:])]
    return Brought(tuple(made), len(new), len(made) - len(new), tuple(dict.fromkeys(flags)))


def document(file: ForeignFile, index: int, run: ForeignRun, own: OwnColumns, said: Mapping[str, Any]) -> dict[str, Any]:
    """run.json of one run. The tool's figures fill a column of ours only where there are no requests to make it from."""
    where = f"{file.parts[0].path}" + (f", run {index + 1}" if len(file.runs) > 1 else "")
    facts: dict[str, Any] = {"model": run.model, "load_kind": run.load_kind, "load": run.load}
    known = {name: value for name, value in facts.items() if value is not None} | dict(said)
    missing = [name for name in facts if name not in known]
    if missing:
        hint = " ".join(f"--declare {name}={'…' if name != 'load_kind' else 'concurrency'}" for name in missing)
        raise StoreError(f"{where}: {file.tool} does not say its {' and '.join(missing)} in it", hint=hint)
    if known["load"] <= 0:
        raise StoreError(f"{where}: a load of {known['load']:g}", hint="a load is above 0")
    contradicted = [n for n, v in facts.items() if v is not None and n in said and n != "model" and said[n] != v]
    if contradicted:
        name = contradicted[0]
        raise StoreError(f"{where}: its {name} is {facts[name]}, declared was {said[name]}", hint="declare only what the file does not say")
    figures = {f["is"]: f["value"] * factor(f["unit"]) for f in run.figures if f["is"] in NUMBERS}
    columns = {**run.facts, **figures, **known}
    flags = value_flags(columns)
    if run.requests:
        means = {name: value for name, value in figures.items() if name.endswith("_mean_s")}
        columns = {**run.facts, **known, **means, **own(run)}
    columns = {name: value for name, value in columns.items() if value is not None}
    cell = _cell(file, columns)
    reasons = [REQUESTS if run.requests else NO_REQUESTS, *run.notes, *flags, *file.flags]
    identity = _hash([*file.identity, index])
    return {
        "run": {
            "sweep_id": f"import-{_hash(list(file.identity))}",
            "sweep_name": file.slug,
            "cell_id": _hash([file.slug, cell]),
            "environment_hash": f"import-{identity}",
            "repeat": 0,
            "status": "done",
            "validity": "suspect",
            "validity_reasons": reasons,
            "validity_advice": [ADVICE for _ in reasons],
            "provenance_class": "imported",
            "workload_version": 1,
            "arrivals": run.arrivals,
            "device_source": "declared" if "device" in columns else None,
            "price_source": "declared" if "price_usd_per_hour" in columns else None,
            "energy_reason": "the source does not say",
            "import_tool": f"{file.tool} {file.tool_version}" if file.tool_version != "not stated" else file.tool,
            "import_source": "own measurement",
            "import_licence": "own",
            "import_date": run.date or "not stated: not in the file",
            "import_formulas": [f"{f['is'] or 'foreign ' + f['foreign']} = {f['formula']}" for f in run.figures],
            "profiler_version": __version__,
            **columns,
            **cell,
        },
        "provenance": {"machine": {}, "cells": [], "declared": dict(said)},
        "imported": {
            "tool": file.tool,
            "tool_version": file.tool_version,
            "format_version": file.format_version,
            "files": [{"file": part.path.name, "sha256": part.sha256} for part in file.parts],
            "run": index + 1,
            "clock": run.clock,
            "figures": list(run.figures),
        },
        "quality": {},
        "samples": [],
        "verdicts": [],
    }


def _cell(file: ForeignFile, columns: Mapping[str, Any]) -> dict[str, Any]:
    """What the load was of, with the names that a table needs where the file says none."""
    lengths = [f"{name[0:3]}{columns[name]:.0f}" for name in ("isl_mean", "osl_mean") if columns.get(name)]
    texts = {"variant": "not stated", "backend": file.slug, "engine": "not stated", "workload": "-".join(lengths) or file.slug}
    return {name: columns.get(name, value) for name, value in texts.items()} | {
        name: columns[name] for name in ("model", "device", "load_kind", "load") if name in columns
    }


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]

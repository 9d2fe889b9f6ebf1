"""Where every number comes from: each run with its place in the store, its versions and its columns; what it says of itself; the machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.machine.difference import comparison_id
from profiler.report.selection import Selection
from profiler.units import format_duration, format_size

Facts = tuple[tuple[str, str], ...]
UNKNOWN = "not known"
# What a figure of the report is made of, in the store's own names; `profile results show RUN` has the rest.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("load", ("load_kind", "load", "arrivals", "offered_rate", "window_s", "n_cohort", "n_requests", "n_errors", "stop_reason")),
    ("latency, s", tuple(f"{m}_p{p}_s{b}" for m in ("ttft_sched", "tpot", "e2e_sched") for p in (50, 95) for b in ("", "_lo", "_hi"))),
    ("throughput", ("output_tps", "total_tps", "request_rate", "goodput", "isl_mean", "osl_mean", "tokens_per_read")),
    ("energy", ("energy_j", "energy_scope", "energy_per_output_token_j", "power_mean_w", "idle_power_w", "energy_reason")),
    ("memory", ("peak_memory_bytes", "variant_size_bytes")),
    ("client", ("send_lag_p99_s", "read_delay_p99_s", "client_cpu_share", "other_cpu_cores", "ttft_error_bar_s", "tpot_error_bar_s")),
    ("imported", ("imported_tps", "ttft_mean_s", "tpot_mean_s", "import_tool", "import_source", "import_licence", "import_date")),
)  # fmt: skip


@dataclass(frozen=True)
class RunFacts:
    """One run: `origin` says where it lies and what made it, `columns` are its figures by group."""

    row: Mapping[str, Any]
    origin: Facts
    columns: tuple[tuple[str, Facts], ...]


@dataclass(frozen=True)
class Machine:
    """A machine as it was observed, and on how many runs."""

    name: str
    runs: int
    facts: Facts


def facts(selection: Selection) -> list[RunFacts]:
    """Every run, in the selection's order."""
    return [RunFacts(row, _origin(document, row), _columns(row)) for document, row in zip(selection.documents, selection.rows, strict=True)]


def path_of(row: Mapping[str, Any]) -> str:
    """Below the results folder, as docs/store.md has it: the day is that of the run's id."""
    run_id = str(row["run_id"])
    return str(Path("runs", f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}", run_id))


def _origin(document: Mapping[str, Any], row: Mapping[str, Any]) -> Facts:
    provenance = document["provenance"]
    engine, model = provenance.get("engine") or {}, provenance.get("model") or {}
    found: list[tuple[str, Any]] = [
        ("path in the store", path_of(row)),
        ("sweep, cell", f"{row['sweep_id']}, {row['cell_id']}, repeat {row['repeat']}"),
        ("class", row["provenance_class"]),
        ("measured", row["started_at"]),
        ("program", f"slm-profiler {row['profiler_version']}" + (f" at {commit}" if (commit := provenance.get("git_commit")) else "")),
        ("engine", f"{row['engine']} {row['engine_version'] or ''}".strip()),
        ("engine start", row["start_id"]),
        ("environment", row["environment_hash"]),
        ("model", f"{row['model']}, content {row['model_hash']}" if row.get("model_hash") else row["model"]),
        ("source of the model", model.get("source")),
        ("variant", row["variant"]),
        ("device", f"{row['device']} ({row['device_source']})" if row["device"] else None),
        ("command", " ".join(map(str, engine.get("command") or ())) or None),
    ]
    return tuple((name, str(value) if value is not None else UNKNOWN) for name, value in found if name != "command" or value)


def _columns(row: Mapping[str, Any]) -> tuple[tuple[str, Facts], ...]:
    groups = ((name, tuple((c, _plain(row[c])) for c in columns if row.get(c) is not None)) for name, columns in GROUPS)
    return tuple((name, found) for name, found in groups if found)


def _plain(value: Any) -> str:
    """A figure as the store has it, at six significant digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def machines(documents: Sequence[Mapping[str, Any]]) -> list[Machine]:
    """The machines whose devices were observed, told apart by what makes figures differ."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    names: dict[str, str] = {}
    for document in documents:
        machine = document["provenance"].get("machine") or {}
        if machine and document["run"]["status"] == "done" and document["run"]["device_source"] == "observed":
            key = comparison_id(machine)
            found.setdefault(key, []).append(machine)
            names.setdefault(key, str(document["run"]["device"]))
    return [Machine(names[key], len(seen), _machine(seen[0])) for key, seen in found.items()]


def _machine(machine: Mapping[str, Any]) -> Facts:
    band = (machine.get("memory_bandwidth") or {}).get("bytes_per_s")
    counts = ", ".join(f"{machine[key]} {key}" for key in ("sockets", "cores", "threads", "numa_nodes") if machine.get(key) is not None)
    limits = [f"{machine['cgroup_cpus']:g} CPUs" if machine.get("cgroup_cpus") else "", format_size(machine["cgroup_memory_bytes"]) if machine.get("cgroup_memory_bytes") else ""]  # fmt: skip
    found: list[tuple[str, Any]] = [
        ("processor", machine.get("cpu_model")),
        ("counts", counts.replace("numa_nodes", "NUMA nodes")),
        ("instructions", ", ".join(machine.get("isa") or ())),
        ("memory", format_size(machine["memory_bytes"]) if machine.get("memory_bytes") else None),
        ("memory bandwidth, measured", f"{band / 1e9:.1f} GB/s" if band else None),
        ("accelerators", ", ".join(str(gpu.get("name")) for gpu in machine.get("gpus") or ()) or "none seen"),
        ("limits of its container", ", ".join(filter(None, limits)) or "none"),
        ("SMT, turbo, governors", ", ".join(_setting(machine.get(key)) for key in ("smt", "turbo", "governors"))),
        ("virtual", machine.get("virtual")),
        ("system", ", ".join(str(machine[key]) for key in ("os", "kernel", "container") if machine.get(key))),
        ("driver", machine.get("driver")),
    ]
    return tuple((name, _setting(value)) for name, value in found if value is not None and value != "")


def _setting(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def checks(row: Mapping[str, Any]) -> Facts:
    """What a run measured of its own measurement, for the validity table; in its columns' order."""
    share = row.get("client_cpu_share")
    other = row.get("other_cpu_cores")
    return (
        ("settled", str(row.get("stability") or UNKNOWN)),
        ("send lag p99", format_duration(row.get("send_lag_p99_s"))),
        ("client adds to TTFT", format_duration(row.get("ttft_error_bar_s"))),
        ("client CPU", "—" if share is None else f"{share:.0%}"),
        ("other programs, cores", "—" if other is None else f"{other:.2f}"),
        ("prefix hits", "—" if row.get("prefix_hit_rate") is None else f"{row['prefix_hit_rate']:.0%}"),
        ("output asked / got", _lengths(row)),
    )


def _lengths(row: Mapping[str, Any]) -> str:
    asked, got = row.get("asked_output_tokens_mean"), row.get("got_output_tokens_mean")
    return "—" if asked is None or got is None else f"{asked:.4g} / {got:.4g}"

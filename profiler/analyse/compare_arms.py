"""One side of a comparison: its runs by cell and start, and what the runs of two sides must share before figures mean the same thing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.analyse.compare_rules import RUN_METRICS, Rule
from profiler.analyse.qos import METRICS
from profiler.analyse.series import Floats
from profiler.machine.difference import differences
from profiler.units import load_label

if TYPE_CHECKING:
    from profiler.store.store import Store

# What makes two runs one cell, whatever engine version, machine or day they are of. Selectors that name one of the first three take it out.
KEY = ("model", "backend", "variant", "workload", "load_kind", "load", "arrivals", "co_run_with", "co_run_load")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class ArmRun:
    """A run as far as a comparison reads it. `values`: per latency metric the cohort's, in the order sent, +∞ for failed requests, s."""

    row: Mapping[str, Any]
    provenance: Mapping[str, Any]
    values: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def start(self) -> str:
        return str(self.row.get("start_id") or self.row["run_id"])

    @property
    def imported(self) -> bool:
        return bool(self.row.get("provenance_class") == "imported")


@dataclass(frozen=True)
class Arm:
    """`named`: which of KEY the selector fixed, so that the other arm may have another one there."""

    label: str
    runs: tuple[ArmRun, ...]
    named: frozenset[str] = frozenset()
    results: Path | None = None  # the folder of its runs, where their evaluations are

    def only(self, starts: Iterable[str]) -> Arm:
        """The arm with the runs of these engine starts alone."""
        wanted = set(starts)
        return replace(self, runs=tuple(run for run in self.runs if run.start in wanted))

    @cached_property
    def starts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.start for run in self.runs))


def load(label: str, store: Store, documents: Sequence[Mapping[str, Any]], named: Iterable[str] = ()) -> Arm:
    """An arm from run.json documents of `store`; reads the latencies of their cohorts, no token stamps."""
    values = _values(store, [str(d["run"]["run_id"]) for d in documents if d["run"]["status"] == "done"])
    runs = [ArmRun(d["run"], d.get("provenance") or {}, values.get(str(d["run"]["run_id"]), {})) for d in documents]
    return Arm(label, tuple(runs), frozenset(named), store.path)


def _values(store: Store, run_ids: Sequence[str]) -> dict[str, dict[str, Floats]]:
    if not run_ids:
        return {}
    columns = ", ".join(column for column, _, _ in METRICS.values())
    listed = ", ".join("'" + run_id.replace("'", "''") + "'" for run_id in run_ids)
    frame = store.sql(
        f"SELECT run_id, error_kind IS NOT NULL OR done_ns IS NULL AS failed, {columns} FROM requests "
        f"WHERE in_window AND run_id IN ({listed}) ORDER BY run_id, intended_ns, request_id"
    )
    found: dict[str, dict[str, Floats]] = {}
    for run_id, rows in frame.groupby("run_id", sort=False):
        failed = rows["failed"].to_numpy(dtype=bool)
        own: dict[str, Floats] = {}
        for metric, (column, _, vacuous) in METRICS.items():
            seen = rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
            seen = np.where(failed, np.inf, seen)
            # An answer of one token has no TPOT and says nothing; one without a first token was never had.
            own[metric] = seen[~np.isnan(seen)] if vacuous else np.where(np.isnan(seen), np.inf, seen)
        found[str(run_id)] = own
    return found


def shared_key(base: Arm, new: Arm) -> tuple[str, ...]:
    """The columns that two runs must share to be one cell: without those that both selectors fix."""
    free = set(base.named & new.named)
    if free & {"backend", "variant", "engine", "device"}:
        free |= {"backend", "variant"}  # a backend is its engine and variant under one name
    return tuple(name for name in KEY if name not in free or name.startswith(("load", "workload")))


def by_cell(arm: Arm, key: Sequence[str]) -> dict[Key, list[ArmRun]]:
    cells: dict[Key, list[ArmRun]] = {}
    for run in arm.runs:
        cells.setdefault(tuple(run.row.get(name) for name in key), []).append(run)
    return cells


def sound(runs: Iterable[ArmRun], with_suspect: bool) -> list[ArmRun]:
    """Runs that count: done, not invalid, and not suspect for what ran beside them (unless `with_suspect`).

    A run that is suspect only because it did not settle does count: to leave out the starts whose queue grew would leave the good ones. So does an
    imported one, which nothing is proven by.
    """
    kept = []
    for run in runs:
        row = run.row
        if row["status"] != "done" or (row["validity"] == "invalid" and not run.imported):
            continue
        unsettled = row.get("stability") in ("unsteady", "unstable") and len(row.get("validity_reasons") or ()) <= 1
        if row["validity"] == "valid" or unsettled or with_suspect or run.imported:
            kept.append(run)
    return kept


def by_start(runs: Iterable[ArmRun]) -> list[list[ArmRun]]:
    starts: dict[str, list[ArmRun]] = {}
    for run in runs:
        starts.setdefault(run.start, []).append(run)
    return list(starts.values())


def label(row: Mapping[str, Any], key: Sequence[str]) -> str:
    """`null · chat · 4 users`: the parts of the key that a reader knows a cell by."""
    parts = [str(row[name]) for name in ("model", "backend") if name in key and row.get(name)]
    how = row.get("arrivals") or ("closed" if row["load_kind"] == "concurrency" else "poisson")
    parts += [str(row["workload"]), load_label(str(row["load_kind"]), float(row["load"]), str(how))]
    if row.get("co_run_with"):
        parts.append(f"beside {row['co_run_with']} ({row['co_run_load']})")
    return " · ".join(parts)


def column_of(rule: Rule) -> str | None:
    """The column of `runs` that gives a rule's figure where no requests were kept; None where none does."""
    if rule.kind == "run":
        return RUN_METRICS[rule.metric].column
    if rule.kind == "error_rate" or rule.metric == "icl":
        return None
    if rule.statistic is None:
        return f"{rule.metric}_mean_s"
    name = {"ttft": "ttft_sched", "e2e": "e2e_sched"}.get(rule.metric, rule.metric)
    return f"{name}_p{rule.statistic:g}_s"


def refusal(base: Sequence[ArmRun], new: Sequence[ArmRun], key: Sequence[str]) -> str | None:
    """Why these runs of one cell do not measure the same thing; None where they do, or nobody can know (imported runs)."""
    ours, theirs = ([_workload(run) for run in arm if run.provenance.get("workload")] for arm in (base, new))
    if ours and theirs and {json.dumps(w, sort_keys=True) for w in ours} != {json.dumps(w, sort_keys=True) for w in theirs}:
        keys = sorted(k for k in {*ours[0], *theirs[0]} if ours[0].get(k) != theirs[0].get(k))
        return f"the workload differs under one name: {', '.join(keys) or 'between runs'}"
    endpoints = [{run.provenance["sweep"].get("endpoint_kind") for run in arm if run.provenance.get("sweep")} for arm in (base, new)]
    if all(endpoints) and endpoints[0] != endpoints[1]:
        return f"the endpoint differs: {' | '.join('/'.join(sorted(map(str, kinds))) for kinds in endpoints)}"
    if _prompts_differ(base, new) and "model" in key:
        return "the prompts differ though workload and seed are the same: another tokenizer, or other text"
    return None


def _workload(run: ArmRun) -> dict[str, Any]:
    """The definition, with the content of a trace in place of its path."""
    found = {k: v for k, v in run.provenance["workload"].items() if k not in ("summary", "source", "qos")}
    trace = (run.provenance.get("prompts") or {}).get("trace")
    if trace and isinstance(found.get("trace"), Mapping):
        found["trace"] = {**found["trace"], "file": trace.get("sha256")}
    without: dict[str, Any] = _without_none(found)  # a key that came later than a run is missing there
    return without


def _without_none(value: Any) -> Any:
    return {k: _without_none(v) for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


def _prompts_differ(base: Sequence[ArmRun], new: Sequence[ArmRun]) -> bool:
    """Whether no prompt set of a repeat that both have is the same, where seed and stopping rule are."""
    ours, theirs = (_prompts(arm) for arm in (base, new))
    both = ours.keys() & theirs.keys()
    return bool(both) and not any(ours[k] & theirs[k] for k in both)


def _prompts(arm: Sequence[ArmRun]) -> dict[tuple[Any, ...], set[str]]:
    found: dict[tuple[Any, ...], set[str]] = {}
    for run in arm:
        sha256, sweep = (run.provenance.get("prompts") or {}).get("sha256"), run.provenance.get("sweep") or {}
        if sha256:
            how = ("seed", "requests", "until", "find_limit", "runs_per_start", "window_min_s", "window_max_s", "warmup_s")
            found.setdefault((run.row["repeat"], *(sweep.get(name) for name in how)), set()).add(sha256)
    return found


def changes(base: Sequence[ArmRun], new: Sequence[ArmRun]) -> list[str]:
    """In what the two sides differ beside their figures: machine, versions, model content, options. What one compares, or what misleads."""
    found = []
    observed = [run.provenance.get("machine") or {} for run in (*base, *new) if run.row.get("device_source") == "observed"]
    if machines := differences(observed):
        found.append(f"the machines differ, so a change may be the machine's: {'; '.join(machines)}")
    for name, column in (
        ("engine version", "engine_version"), ("device", "device"), ("backend", "backend"), ("variant", "variant"), ("model", "model"),
        ("slm-profiler", "profiler_version"),
    ):  # fmt: skip
        found += _change(name, base, new, lambda run, column=column: run.row.get(column))
    if _change("", base, new, lambda run: run.row.get("model_hash")) and not _change("", base, new, lambda run: run.row.get("model")):
        found.append("the model's content differs under one name: weights, configuration or tokenizer")
    found += _options(base, new)
    found += _change("seed", base, new, lambda run: (run.provenance.get("sweep") or {}).get("seed"))
    found += _change("formula of imported figures", base, new, lambda run: ", ".join(run.row.get("import_formulas") or ()) or None)
    return found


def _change(name: str, base: Sequence[ArmRun], new: Sequence[ArmRun], read: Any) -> list[str]:
    ours, theirs = (sorted({str(value) for run in arm if (value := read(run)) is not None}) for arm in (base, new))
    return [f"{name}: {', '.join(ours)} → {', '.join(theirs)}"] if ours and theirs and ours != theirs else []


def _options(base: Sequence[ArmRun], new: Sequence[ArmRun]) -> list[str]:
    """Engine options that changed, under one backend name or between the two that are compared."""
    found: dict[str, None] = {}
    ours, theirs = ({str(run.row["backend"]): run for run in arm} for arm in (base, new))
    crossed = len(ours) == len(theirs) == 1
    for name, run in ours.items():
        other = theirs.get(name) or (next(iter(theirs.values())) if crossed else None)
        a, b = ((r.provenance.get("backend") or {}).get("options") or {} for r in (run, other)) if other else ({}, {})
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                found[f"option {key}: {a.get(key, 'unset')} → {b.get(key, 'unset')}"] = None
    return list(found)

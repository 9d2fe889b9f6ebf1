"""Runs and requests out of the store: CSV, Parquet with units and definitions, and the columns of llm-d-planner's `exported_summaries`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import StoreError
from profiler.store import schema
from profiler.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("csv", "parquet", "llm-d-planner")
TABLES = ("runs", "requests")
# Columns and NOT NULLs: llm-d-incubation/llm-d-planner, scripts/schema.sql and planner/knowledge_base/local_repository (Apache-2.0), read 2026-11;
# times in ms. Its loader reads {"benchmarks": [...], "_metadata": {...}} and fills id, config_id and dates by itself.
PLANNER_NEEDED = (
    "model_hf_repo", "hardware", "hardware_count", "prompt_tokens", "output_tokens", "mean_input_tokens", "mean_output_tokens",
    "requests_per_second", "tokens_per_second", *(f"{m}_{s}" for m in ("ttft", "e2e") for s in ("mean", "p90", "p95", "p99")),
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """`left_out`: runs that the format cannot hold, by reason."""

    rows: int
    left_out: dict[str, int]
    path: Path


def table_of(store: Store, table: str) -> pa.Table:
    """All of `runs` or `requests`, typed, with units and definitions in the fields' metadata."""
    import pyarrow as pa

    wanted = schema.arrow_schema(table)
    if table == "runs":
        rows = [{column.name: row.get(column.name) for column in schema.RUNS} for row in store.rows()]
        return pa.Table.from_pylist(rows, schema=wanted)
    frame = store.requests()
    return pa.table({field.name: pa.array(list(_plain(frame[field.name])), field.type) for field in wanted}, schema=wanted)


def export_table(store: Store, table: str, path: Path, kind: str) -> Exported:
    """Lists are JSON in CSV; an empty CSV cell is NULL. Raises StoreError: cannot be written, or it is there already."""
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    made = table_of(store, table)
    _free(path)
    with _placed(path) as beside:
        if kind == "parquet":
            pq.write_table(made, beside, compression="zstd")
        else:
            pc.write_csv(_flat(made), beside)
    return Exported(made.num_rows, {}, path)


def export_planner(store: Store, path: Path) -> Exported:
    """Raises StoreError. Only what that schema needs and the run has: a run without p99, device or requests is left out and counted."""
    benchmarks, left_out = planner_rows(store)
    _free(path)
    meta = {"source": "slm-profiler", "confidence_level": "benchmarked", "units": "times in ms, rates per s"}
    text = json.dumps({"_metadata": meta, "benchmarks": benchmarks}, indent=1, ensure_ascii=False, allow_nan=False)
    with _placed(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
    return Exported(len(benchmarks), left_out, path)


def planner_rows(store: Store) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows of `exported_summaries` of every measured run whose validity is not invalid. TTFT and E2E are from the actual send, as theirs."""
    rows, left_out = [], dict[str, int]()
    records = store.records(row["run_id"] for row in store.rows())
    for row in store.rows():
        why = _unfit(row)
        made = None if why else _planner_row(row, records.get(row["run_id"], []))
        if made is not None:
            missing = [name for name in PLANNER_NEEDED if made.get(name) is None]
            why = f"no {missing[0]}, which the schema needs" if missing else None
        if why or made is None:
            left_out[why or ""] = left_out.get(why or "", 0) + 1
        else:
            rows.append(made)
    return rows, left_out


def _unfit(row: Mapping[str, Any]) -> str | None:
    if row["status"] != "done" or row["validity"] == "invalid":
        return "not done, or invalid"
    return None if row["provenance_class"] == "measured" else f"{row['provenance_class']}, not measured here"


def _planner_row(row: Mapping[str, Any], requests: Sequence[Any]) -> dict[str, Any]:
    cohort = [r for r in requests if r.in_window]
    good = [r for r in cohort if r.error_kind is None and r.done_ns is not None]
    ttft, tpot, e2e = ([v for r in good if (v := getattr(r, name)) is not None] for name in ("ttft_s", "tpot_s", "e2e_s"))
    failed = len(cohort) - len(good)
    isl, osl = row["isl_mean"], row["osl_mean"]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"slm-profiler:{row['run_id']}")),
        "model_hf_repo": row["model"],
        "type": "local",
        "hardware": row["device"],
        "hardware_count": row["device_count"] or (1 if row["device_source"] == "observed" else None),
        "framework": row["engine"],
        "framework_version": row["engine_version"],
        **_times("ttft", ttft, failed),
        **_times("itl", tpot, failed),  # its ITL is a request's mean time per token: our TPOT
        **_times("e2e", e2e, failed),
        "requests_per_second": row["request_rate"],
        "responses_per_second": row["request_rate"],
        "tokens_per_second": row["output_tps"],
        "tps_mean": row["output_tps"],
        "mean_input_tokens": isl,
        "mean_output_tokens": osl,
        "prompt_tokens": None if isl is None else round(isl),
        "output_tokens": None if osl is None else round(osl),
        "profiler_type": "slm-profiler",
        "profiler_tag": row["profiler_version"],
        "docker_image": None,
        "entrypoint": row["backend"],
        "jbenchmark_created_at": row["started_at"],
        "source": "slm-profiler",
    }


def _times(name: str, values: Iterable[float], failed: int) -> dict[str, float | None]:
    """Mean of the answered, percentiles of the cohort: failed requests count as +∞, and a percentile among them is NULL. ms."""
    known = sorted(values)
    found: dict[str, float | None] = {f"{name}_mean": 1e3 * sum(known) / len(known) if known else None}
    for p in (90, 95, 99):
        rank = -(-p * (len(known) + failed) // 100)
        found[f"{name}_p{p}"] = 1e3 * known[rank - 1] if 0 < rank <= len(known) else None
    return found


def _plain(series: Any) -> Iterable[Any]:
    """Values with None for missing: lists stay lists, NaN is missing."""
    import pandas as pd

    for value in series:
        if isinstance(value, str) or hasattr(value, "__len__"):
            yield value
        else:
            yield None if pd.isna(value) else value


def _flat(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table


@contextlib.contextmanager
def _placed(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, put in its place when it is whole: nothing is overwritten, and a full disk leaves nothing. Raises StoreError."""
    beside = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        beside = Path(name)
        yield beside
        beside.chmod(0o644)
        try:
            os.link(beside, path)
        except OSError:  # another came first, or a file system without hard links
            _free(path)
            beside.rename(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"{path}: cannot be written: {reason}", hint="give another --out") from error
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):
                beside.unlink()


def _free(path: Path) -> None:
    if path.exists():
        raise StoreError(f"{path}: is there already", hint="nothing is overwritten: give another --out, or remove it")

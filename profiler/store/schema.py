"""The columns of the store, each defined once: name, type, unit, definition, version it came with.

Everything that names columns is made from these tables: the Parquet schema, the typed DataFrame and DuckDB views, and (schema_docs) docs/schema.md.
Definitions are those of the metric dictionary. Missing is NULL with a reason, never 0 and never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from profiler.store import stamps

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
HISTORY = {
    1: "first version",
    2: "requests.parquet holds arrival_gaps_us, the steps between arrivals, in the place of arrival_offsets_us (which views and frames still have)",
}

Type = Literal["string", "int64", "int32", "float64", "bool", "list<string>", "list<int32>"]
DUCKDB_TYPES: dict[str, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "list<string>": "VARCHAR[]",
    "list<int32>": "INTEGER[]",
}


@dataclass(frozen=True)
class Column:
    """`unit` is empty for names, flags and texts; `since` is the schema version that brought the column."""

    name: str
    type: Type
    unit: str
    definition: str
    since: int = 1


def _latencies() -> tuple[Column, ...]:
    """Percentile columns: each an order statistic of the cohort with two-sided 95 % bounds."""
    kinds = {
        "ttft": "time to first token from the actual send",
        "ttft_sched": "time to first token from the intended send: what a user waits",
        "tpot": "time per output token after the first read; requests with a single token are left out (n_tpot)",
        "e2e_sched": "time to the last byte from the intended send",
    }
    columns = []
    for metric, meaning in kinds.items():
        for p in (50, 90, 95, 99):
            name = f"{metric}_p{p}_s"
            infinite = "NULL when that many of the cohort failed (failed and unfinished count as +∞)"
            columns.append(Column(name, "float64", "s", f"p{p} of {meaning}; {infinite}"))
            columns.append(Column(f"{name}_lo", "float64", "s", f"lower 95 % bound of {name}; NULL when n is too small for one"))
            columns.append(
                Column(f"{name}_hi", "float64", "s", f"upper 95 % bound of {name}; NULL when n is too small for one, or it is +∞")
            )
    return tuple(columns)


_SCOPES = ("gpu_board", "cpu_package", "dram", "host", "wall")

RUNS: tuple[Column, ...] = (
    Column("run_id", "string", "", "unique, sorts by time: UTC time of the start of the cell and random digits"),
    Column("sweep_id", "string", "", "content hash of the sweep's cells"),
    Column("sweep_name", "string", "", "what the sweep's spec calls itself"),
    Column("cell_id", "string", "", "content hash of model, backend, workload, load point, stopping rule and seed"),
    Column("environment_hash", "string", "", "hash of machine, engine environment, variant and model content"),
    Column("repeat", "int64", "", "which engine start of the sweep's plan this was, from 0"),
    Column("status", "string", "", "done | failed | interrupted"),
    Column("status_reason", "string", "", "why a run is not done, one line"),
    Column("validity", "string", "", "valid | suspect | invalid: what the run says of its own measurement"),
    Column("validity_reasons", "list<string>", "", "each finding behind the validity"),
    Column("validity_advice", "list<string>", "", "what would mend each of validity_reasons, in their order"),
    Column("stability", "string", "", "steady | unsteady (it drifts: suspect) | unstable (open loop: the backlog grows) | not judged"),
    Column("stability_reason", "string", "", "why it is not steady, or was not judged"),
    Column(
        "transient_end_s", "float64", "s", "where the transient ends (MSER-5), from the window's opening; at or below 0: in the warm-up"
    ),
    Column("window_cut_s", "float64", "s", "by how much the window was opened later because the transient reached into it"),
    Column("provenance_class", "string", "", "measured | imported | predicted"),
    Column("model", "string", "", "the model as the user named it"),
    Column("model_hash", "string", "", "content hash of weights, config and tokenizer"),
    Column("variant", "string", "", "the model's precision as served, with its origin if that was quantized already"),
    Column("backend", "string", "", "name of the backend"),
    Column("engine", "string", "", "name of the engine"),
    Column("engine_version", "string", "", "version of the engine's main package"),
    Column("device", "string", "", "the device that was measured; NULL when nobody observed or declared it"),
    Column("device_source", "string", "", "observed | declared"),
    Column("device_count", "int64", "devices", "how many of `device` serve the endpoint, as declared; NULL undeclared"),
    Column(
        "price_usd_per_hour",
        "float64",
        "USD/h",
        "price of the whole endpoint, all its devices: in costs an offer of its own; NULL undeclared",
    ),
    Column("price_source", "string", "", "declared | NULL without a price"),
    Column("machine_id", "string", "", "fingerprint of the machine the engine ran on"),
    Column(
        "comparison_id", "string", "", "hash of machine_id and settings (SMT, governor, turbo, huge pages, power limit, ECC, MIG, driver)"
    ),
    Column("memory_bandwidth_bytes_per_second", "float64", "bytes/s", "of the machine's main memory, by the probe of docs/memory.md"),
    Column("workload", "string", "", "name of the workload"),
    Column("workload_version", "int64", "", "version of the workload"),
    Column("load_kind", "string", "", "concurrency (closed loop) | rate (open loop)"),
    Column("load", "float64", "users or 1/s", "concurrent users in a closed loop, requests/s in an open one"),
    Column(
        "arrivals", "string", "", "how the load arrived: closed, poisson, constant, gamma cv=…, ramp …, step …, trace FILE and its factors"
    ),
    Column("cut_share", "float64", "", "share of the prepared requests that were cut, or left out, to fit the model's context"),
    Column("prefix_declared", "float64", "", "share of the input tokens in a declared shared prefix; NULL where none is declared"),
    Column(
        "prefix_bound", "float64", "", "share of the cohort's input tokens that an infinite prefix cache, empty at first, would have known"
    ),
    Column("window_open_ns", "int64", "ns", "CLOCK_MONOTONIC: when the measuring window opened"),
    Column("window_close_ns", "int64", "ns", "CLOCK_MONOTONIC: when it closed; the window is [open, close)"),
    Column("window_s", "float64", "s", "length of the measuring window"),
    Column("n_cohort", "int64", "requests", "requests whose intended send falls in the window (the cohort)"),
    Column("n_requests", "int64", "requests", "requests of the cohort that were answered in full"),
    Column("n_errors", "int64", "requests", "requests of the cohort that failed, were cancelled or never finished"),
    Column("n_tpot", "int64", "requests", "requests behind the TPOT percentiles: of the cohort, without single-token answers"),
    Column(
        "bounds_method",
        "string",
        "",
        "how the _lo and _hi columns were found: exact ranks, or moving-block bootstrap (traces); -of-N-looks: at a level that pays for N looks",
    ),
    Column("start_id", "string", "", "the engine start this run was part of"),
    Column("ready_s", "float64", "s", "from launching the engine to its first generation"),
    Column("load_s", "float64", "s", "of that, loading the model"),
    Column("peak_memory_bytes", "int64", "bytes", "highest resident memory of the engine's processes up to the end of this run"),
    Column("variant_size_bytes", "int64", "bytes", "size of the variant's files"),
    Column("predicted_weights_bytes", "int64", "bytes", "weights as the engine keeps them, predicted before the start (docs/memory.md)"),
    Column("predicted_kv_bytes", "int64", "bytes", "the engine's KV pool, predicted"),
    Column("predicted_kv_token_bytes", "float64", "bytes", "KV cache per token, predicted from the model's configuration"),
    Column(
        "predicted_kv_demand_bytes", "int64", "bytes", "KV cache that the load needs with requests of mean length; NULL in an open loop"
    ),
    Column("predicted_other_bytes", "int64", "bytes", "runtime, libraries and activations, predicted"),
    Column("memory_limit_bytes", "int64", "bytes", "free memory of the device before the start; NULL where nobody sees it"),
    Column("memory_limit_source", "string", "", "whose figure memory_limit_bytes is, or why it is NULL"),
    Column(
        "used_weights_bytes", "int64", "bytes", "weights in memory after the run; NULL with memory_reason where they cannot be told apart"
    ),
    Column("used_kv_bytes", "int64", "bytes", "the KV pool, as the engine reports it"),
    Column("used_kv_peak_bytes", "int64", "bytes", "of it, handed out to requests at the most"),
    Column("used_kv_token_bytes", "float64", "bytes", "KV cache per token, from the pool's size and its tokens"),
    Column("used_other_bytes", "int64", "bytes", "memory of the engine's processes that is neither weights nor KV cache"),
    Column("used_weights_other_bytes", "int64", "bytes", "weights and the rest together, where they cannot be told apart (vLLM on a CPU)"),
    Column("memory_reason", "string", "", "why a used_ column is NULL"),
    Column("memory_finding", "string", "", "what of the prediction was off by more than 10 % (weights, KV) or 25 % (the rest)"),
    Column("offered_rate", "float64", "1/s", "requests of the cohort / window length"),
    Column("request_rate", "float64", "1/s", "requests answered in full in the window / window length"),
    Column("output_tps", "float64", "tokens/s", "output tokens whose arrival falls in the window / window length"),
    Column("total_tps", "float64", "tokens/s", "output_tps, and input tokens counted at their request's first token"),
    Column("goodput", "float64", "1/s", "requests of the cohort that meet every threshold of the QoS target / window length"),
    *_latencies(),
    Column("send_lag_p50_s", "float64", "s", "p50 of actual − intended send: our own error"),
    Column("send_lag_p99_s", "float64", "s", "p99 of actual − intended send"),
    Column("client_cpu_share", "float64", "cores", "CPU time of the load client in the window / window length"),
    Column("client_switches_voluntary", "int64", "", "context switches of the load client in the window: it waited"),
    Column("client_switches_involuntary", "int64", "", "the same: another program took its core"),
    Column("read_delay_p50_s", "float64", "s", "p50 of the client's own delay, kernel stamp to read; NULL without kernel stamps"),
    Column("read_delay_p99_s", "float64", "s", "p99 of the same; the stamps themselves do not have it"),
    Column(
        "engine_cpu_cores",
        "float64",
        "cores",
        "CPU time of the engine's processes in the window / window length; NULL if they are not ours",
    ),
    Column(
        "other_cpu_cores", "float64", "cores", "CPU time of neither the engine nor this program / window length; NULL as engine_cpu_cores"
    ),
    Column("steal_cpu_cores", "float64", "cores", "CPU time the hypervisor took away / window length"),
    Column("throttled_s", "float64", "s", "time a cgroup CPU quota held the engine or the client up in the window"),
    Column("clock_resolution_s", "float64", "s", "smallest step seen of CLOCK_MONOTONIC"),
    Column(
        "ttft_error_bar_s", "float64", "s", "what the client may add to a TTFT: the worse of calibration and p99 read delay of this run"
    ),
    Column("tpot_error_bar_s", "float64", "s", "what the client may add to a TPOT at this token rate, by calibration; NULL without one"),
    Column("error_bar_source", "string", "", "calibrated | beyond calibration | this run (not calibrated: profile calibrate)"),
    Column("prefix_hit_rate", "float64", "", "share of input tokens the server's prefix cache knew, warm-up included, by its own counters"),
    Column("replicas", "int64", "", "servers of the backend behind the workload, round robin"),
    Column("server_cpus", "string", "", "CPUs each server could use, in the kernel's list format; replicas apart by ;"),
    Column("client_cpus", "string", "", "CPUs the load client was pinned to; NULL where the kernel chose"),
    Column("placement_reason", "string", "", "why servers and client were placed, or not"),
    Column("co_run_with", "string", "", "backends on the same machine at the same time (co_run), apart by +; NULL for an ordinary run"),
    Column("co_run_load", "string", "", "their loads, in the same order: idle (started, no request), 4 users, 2/s Poisson, …"),
    Column("neighbour_cpu_cores", "float64", "cores", "CPU time of the servers of co_run_with / window length"),
    Column("prefix_hit_reason", "string", "", "why prefix_hit_rate is NULL"),
    Column("prefix_hit_tokens", "int64", "tokens", "of the looked-up input tokens, those found: whole blocks only"),
    Column("prefix_queried_tokens", "int64", "tokens", "input tokens looked up in the server's prefix cache"),
    Column("prefix_block_tokens", "int64", "tokens", "tokens in one block of the server's KV cache, as it says"),
    Column(
        "prefix_block_bound",
        "float64",
        "",
        "as prefix_bound, of whole blocks, the last token never, over all requests: no real cache has more",
    ),
    Column("prefix_reset", "string", "", "done | why the server's prefix cache was not reset before the run"),
    Column("server_queue_mean_s", "float64", "s", "mean time a request waited in the server's queue; server_* are its own figures"),
    Column("server_prefill_mean_s", "float64", "s", "mean time from being scheduled to the first token"),
    Column("server_decode_mean_s", "float64", "s", "mean time from first to last token"),
    Column("server_ttft_mean_s", "float64", "s", "mean time from arrival at the server to the first token"),
    Column("server_running_max", "float64", "requests", "most requests in the running batch, of the scrapes around the window"),
    Column("server_waiting_max", "float64", "requests", "most requests in the queue, of the same scrapes"),
    Column("server_kv_use_max", "float64", "", "largest share of the KV cache in use, of the same scrapes"),
    Column("server_preemptions", "int64", "", "requests whose KV cache was taken away for others"),
    Column("server_metrics_reason", "string", "", "why the server_* columns are NULL"),
    Column("server_scrapes", "int64", "", "scrapes of the server's metrics page behind them"),
    Column("server_scrape_p50_s", "float64", "s", "median time the server took to answer a scrape"),
    Column("server_scraper_cpu_cores", "float64", "cores", "what scraping cost this program / length of the run"),
    Column(
        "looks",
        "int64",
        "",
        "looks at the cohort while it grew, where the run could end early; bounds_method pays for all that were possible",
    ),
    Column("tokens_per_read", "float64", "tokens", "output tokens per token-bearing network read in the cohort"),
    Column("asked_output_tokens_mean", "float64", "tokens", "mean output length asked of the answered cohort"),
    Column("got_output_tokens_mean", "float64", "tokens", "mean output length of the same requests as received"),
    Column("isl_mean", "float64", "tokens", "mean input length of the answered cohort"),
    Column("osl_mean", "float64", "tokens", "mean output length of the answered cohort"),
    Column("energy_j", "float64", "J", "energy in the window, of energy_scope; NULL with energy_reason if not measured"),
    Column("energy_scope", "string", "", "gpu_board | cpu_package | dram | host | wall: only runs of one scope may be compared"),
    Column("energy_reason", "string", "", "why energy_j is NULL"),
    Column(
        "energy_source",
        "string",
        "",
        "whose readings, and whether of an energy counter or of power: nvml counter, rapl counter, meter power",
    ),
    Column("energy_per_output_token_j", "float64", "J", "energy_j / output tokens that arrived in the window"),
    Column("energy_per_request_j", "float64", "J", "energy_j / requests answered in full in the window"),
    Column("power_mean_w", "float64", "W", "energy_j / window length"),
    Column("idle_power_w", "float64", "W", "mean power of energy_scope before the load, with the engine ready and nobody asking"),
    *(
        Column(f"energy_{scope}_j", "float64", "J", f"energy in the window of the scope {scope}; NULL where it was not measured")
        for scope in _SCOPES
    ),
    Column("telemetry_period_s", "float64", "s", "period of the telemetry sampler"),
    Column("telemetry_cpu_cores", "float64", "cores", "CPU time of the telemetry sampler in the window / window length"),
    Column("ttft_mean_s", "float64", "s", "imported runs: mean time to first token as the source gives it; never a percentile"),
    Column("tpot_mean_s", "float64", "s", "imported runs: mean time per output token, by the source's formula (import_formulas)"),
    Column("e2e_mean_s", "float64", "s", "imported runs: mean time of a whole answer, by the source's formula"),
    Column("imported_tps", "float64", "tokens/s", "imported runs: a token rate whose source does not say whether input tokens count"),
    Column("import_tool", "string", "", "imported runs: what measured"),
    Column("import_source", "string", "", "imported runs: where the figures are published"),
    Column("import_licence", "string", "", "imported runs: licence of the published file"),
    Column("import_date", "string", "", "imported runs: date of the figures, or that the source has none"),
    Column("import_formulas", "list<string>", "", "imported runs: column of ours, or foreign name = the source's formula id"),
    Column("qos", "string", "", "the QoS target the run was judged by"),
    Column("qos_result", "string", "", "FITS | FAILS | UNDECIDED for this load and loop"),
    Column("qos_reason", "string", "", "the finding behind qos_result, one line"),
    Column(
        "started_at",
        "string",
        "",
        "UTC, ISO 8601: when the load began (of a cell that never ran: when it was given up; of an imported run: NULL)",
    ),
    Column("stop_reason", "string", "", "why the window closed"),
    Column("profiler_version", "string", "", "version of this program"),
)

REQUESTS: tuple[Column, ...] = (
    Column("run_id", "string", "", "the run it belongs to"),
    Column("request_id", "string", "", "unique in its run"),
    Column("session_id", "string", "", "the conversation it belongs to, if any"),
    Column("turn", "int32", "", "position in its session, from 0"),
    Column("intended_ns", "int64", "ns", "CLOCK_MONOTONIC: when it should be sent"),
    Column("sent_ns", "int64", "ns", "CLOCK_MONOTONIC: when it was sent; NULL when it never was"),
    Column("first_token_ns", "int64", "ns", "CLOCK_MONOTONIC: arrival of the first read with an output token"),
    Column("last_token_ns", "int64", "ns", "CLOCK_MONOTONIC: arrival of the last read with an output token"),
    Column("done_ns", "int64", "ns", "CLOCK_MONOTONIC: arrival of the last byte"),
    Column("ttft_s", "float64", "s", "first_token − sent"),
    Column("ttft_sched_s", "float64", "s", "first_token − intended"),
    Column("tpot_s", "float64", "s", "(last_token − first_token) / (output tokens − tokens in the first read); NULL for a single token"),
    Column("e2e_s", "float64", "s", "done − sent"),
    Column("e2e_sched_s", "float64", "s", "done − intended"),
    Column("max_icl_s", "float64", "s", "longest gap between consecutive token-bearing reads"),
    Column("prompt_tokens", "int32", "tokens", "input tokens"),
    Column("output_tokens", "int32", "tokens", "output tokens received"),
    Column("asked_output_tokens", "int32", "tokens", "output tokens asked for"),
    Column("finish_reason", "string", "", "as the server said"),
    Column("asked_model", "string", "", "model or LoRA adapter that was asked; NULL where all requests asked for the same"),
    Column("error_kind", "string", "", "NULL for a request that was answered in full"),
    Column("error", "string", "", "what went wrong, one line"),
    Column("http_status", "int32", "", "status code of the answer"),
    Column("warmup", "bool", "", "sent before the window opened"),
    Column("in_window", "bool", "", "member of the cohort: its intended send falls in the window"),
    Column("connection_reused", "bool", "", "sent on a kept-alive connection"),
    Column("token_count_source", "string", "", "token_ids | continuous_usage | usage | tokenizer"),
    Column("server_queue_s", "float64", "s", "the server's own: from its queue to being scheduled; NULL where it does not say"),
    Column("server_prefill_s", "float64", "s", "the server's own: from being scheduled to the first token"),
    Column("server_decode_s", "float64", "s", "the server's own: from the first to the last token"),
    Column("server_ttft_s", "float64", "s", "server_queue_s + server_prefill_s: without HTTP, tokenizing and the way to the client"),
    Column("server_cached_tokens", "int32", "tokens", "input tokens that the server's prefix cache knew, as it says"),
    Column("replica", "int32", "", "which of the backend's servers it went to, from 0"),
    Column(
        "arrival_offsets_us",
        "list<int32>",
        "µs",
        "arrival of each token-bearing read, from sent_ns, rounded to 1 µs and exact from there; stops growing at 2147 s",
    ),
    Column("arrival_tokens", "list<int32>", "tokens", "output tokens in each of these reads"),
)

TELEMETRY: tuple[Column, ...] = (
    Column("run_id", "string", "", "the run it belongs to"),
    Column("t_ns", "int64", "ns", "CLOCK_MONOTONIC of the sample"),
    Column("source", "string", "", "who says so: nvml, rapl, amdsmi, cpu, meter, or sampler for its own cost"),
    Column("device", "string", "", "which device of the source: gpu0, gpu0/pid123, package-0, machine, node0, engine, ..."),
    Column("metric", "string", "", "what is measured, with its unit in the name; energy_j and cpu_s are running totals"),
    Column("value", "float64", "", "the sample"),
)

ENGINE_METRICS: tuple[Column, ...] = (
    Column("run_id", "string", "", "the run it belongs to"),
    Column("t_ns", "int64", "ns", "CLOCK_MONOTONIC in the middle of the scrape"),
    Column("name", "string", "", "the server's own name of the metric, such as vllm:num_requests_running; units are in it"),
    Column("labels", "string", "", "its labels as on the page, without braces"),
    Column("value", "float64", "", "the sample; counters and histograms count from the server's start"),
)

TABLES: dict[str, tuple[Column, ...]] = {"runs": RUNS, "requests": REQUESTS, "telemetry": TELEMETRY, "engine_metrics": ENGINE_METRICS}
# What a file holds in the place of a column of its table: readers of the store never see it, readers of the bare file do.
STORED: dict[str, dict[str, Column]] = {
    "requests": {
        stamps.OFFSETS: Column(
            stamps.GAPS,
            "list<int32>",
            "µs",
            "first arrival from sent_ns, then the step from each to the next: its running sum is the column",
            2,
        )
    }
}
BOUNDS_METHOD = "order-statistic-binomial-95"


def stored(table: str) -> tuple[Column, ...]:
    """The columns of a table as its file has them."""
    return tuple(STORED.get(table, {}).get(c.name, c) for c in TABLES[table])


def arrow_schema(table: str, columns: Sequence[Column] | None = None) -> pa.Schema:
    """Arrow schema of a table (or of `stored` columns of it): unit, definition and `since` in each field's metadata, the version in the schema's."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "int32": pa.int32(), "float64": pa.float64(), "bool": pa.bool_()}
    types |= {"list<string>": pa.list_(pa.string()), "list<int32>": pa.list_(pa.int32())}
    fields = [
        pa.field(c.name, types[c.type], metadata={"unit": c.unit, "definition": c.definition, "since": str(c.since)})
        for c in columns or TABLES[table]
    ]
    return pa.schema(fields, metadata={"slm_profiler_schema": str(SCHEMA_VERSION), "table": table})


def empty_view_sql(table: str) -> str:
    """A SELECT with the table's columns and types and no row."""
    columns = ", ".join(f'CAST(NULL AS {DUCKDB_TYPES[c.type]}) AS "{c.name}"' for c in TABLES[table])
    return f"SELECT {columns} WHERE false"


def pandas_frame(table: str, rows: list[dict[str, Any]]) -> Any:
    """Rows as a pandas.DataFrame with every column of the table, typed. Missing floats and strings are NaN, others <NA>."""
    import pandas as pd

    text = "str" if int(pd.__version__.split(".")[0]) >= 3 else "object"  # before pandas 3, "str" turns None into "None"
    dtypes = {"string": text, "int64": "Int64", "int32": "Int32", "float64": "float64", "bool": "boolean"}
    data = {c.name: pd.Series([row.get(c.name) for row in rows], dtype=dtypes.get(c.type, "object")) for c in TABLES[table]}
    return pd.DataFrame(data)

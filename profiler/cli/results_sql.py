"""`profile results sql`: one SELECT over the store."""

from __future__ import annotations

import json
from pathlib import Path

import click

from profiler.cli.results_folder import RESULTS
from profiler.errors import UsageError

# Shown in the help and in the docs; a test runs each of them.
READY = {
    "what was measured": "select backend, workload, load_kind, load, validity, qos_result from runs order by 1, 2, 3, 4",
    "fastest first": "select backend, load, output_tps, ttft_sched_p95_s, tpot_p95_s from runs where validity = 'valid' order by output_tps desc",
    "why runs are not valid": "select run_id, validity, unnest(validity_reasons) as reason from runs where validity <> 'valid'",
    "what failed": "select r.backend, q.error_kind, count(*) as n from requests q join runs r using (run_id) where q.in_window and q.error_kind is not null group by all",
    "slowest answers": "select run_id, request_id, ttft_sched_s, e2e_sched_s from requests where in_window order by ttft_sched_s desc nulls first limit 10",
    "tokens per second of a run": "select run_id, floor((q.sent_ns + t.t_offset_us * 1000::bigint) / 1e9) as second, sum(t.tokens) as tokens from tokens t join requests q using (run_id, request_id) group by all order by all",
    "power over time": "select run_id, t_ns, device, value as watts from telemetry where metric = 'power_w' order by run_id, t_ns",
}  # fmt: skip
VIEWS = {
    "runs": "one row per run",
    "requests": "one row per request, warm-up included: in_window is the cohort",
    "tokens": "one row per read that brought tokens",
    "telemetry": "one row per sample of a sensor",
    "engine_metrics": "one row per scrape of the server's own metrics",
}
_HELP = "\n".join(
    [
        "Run one SELECT over the store with DuckDB; it can only read.",
        "",
        "\b",
        "Views (their columns: docs/schema.md, or profile explain COLUMN):",
        *(f"  {name:<16}{text}" for name, text in VIEWS.items()),
        "",
        "\b",
        "Ready to use, by name (without QUERY they are written out):",
        *(f"  {name}" for name in READY),
        "",
        "\b",
        'profile results sql "fastest first"',
        'profile results sql "select backend, load, output_tps from runs order by output_tps desc" --csv',
    ]
)


@click.command("sql", help=_HELP, short_help="Run one SELECT over the store.")
@click.argument("query", required=False)
@click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output: an array of rows.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with a header; NULL is empty.")
def sql(query: str | None, results: Path, as_json: bool, as_csv: bool) -> None:
    from profiler import catalog
    from profiler.analyse.recover import open_store
    from profiler.errors import StoreError

    if query is None:
        listed = [{"name": name, "sql": text} for name, text in READY.items()]
        click.echo(json.dumps(listed, indent=2) if as_json else "\n".join(f"{one['name']}\n    {one['sql']}" for one in listed))
        return
    if as_json and as_csv:
        raise UsageError("--json and --csv at once", hint="give one of them")
    results = catalog.results(results)
    if not results.exists():
        raise StoreError(f"{results}: no such results folder", hint="run `profile sweep`, or give --results FOLDER")
    store = open_store(results)
    frame = store.sql(READY.get(query.strip().lower(), query))
    for warning in store.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo(frame.to_json(orient="records", date_format="iso", indent=2))
    elif as_csv:
        click.echo(frame.to_csv(index=False), nl=False)
    elif frame.empty:
        click.echo(f"no rows ({', '.join(frame.columns)})")
    else:
        click.echo(frame.to_string(index=False, na_rep="—"))

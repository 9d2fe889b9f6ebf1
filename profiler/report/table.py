"""The answer on a terminal: one table per workload, and the same rows as plain data for `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from profiler.report.answer import answers
from profiler.report.selection import Row, Selection, label
from profiler.report.telemetry import joules
from profiler.report.trust import machines_differ
from profiler.units import format_duration

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "run_id",
    "backend",
    "variant",
    "device",
    "workload",
    "load_kind",
    "load",
    "repeat",
    "status",
    "validity",
    "validity_reasons",
    "n_cohort",
    "n_requests",
    "n_errors",
    "output_tps",
    "request_rate",
    "goodput",
    *(f"{metric}_p{p}_s{bound}" for metric in ("ttft_sched", "tpot") for p in (50, 95) for bound in ("", "_lo", "_hi")),
    "energy_j",
    "energy_scope",
    "energy_per_output_token_j",
    "energy_per_request_j",
    "power_mean_w",
    "idle_power_w",
    "qos",
    "qos_result",
    "qos_reason",
)
COLOURS = {"FITS": "green", "FAILS": "red", "UNDECIDED": "yellow"}
NONE = "—"
NAME_WIDTH = 22  # a longer name goes on below, a longer load ends in "…": neither takes the room of the figures


def rows(selection: Selection) -> list[dict[str, Any]]:
    """The main columns of each run; names and units are those of the store."""
    return [{name: row[name] for name in COLUMNS} | _plain(own) for row, own in zip(selection.rows, selection.own, strict=True)]


def _plain(own: Row) -> dict[str, Any]:
    """The backend by its own name where the report only adds the model, which has a column."""
    return {} if own.get("co_run_with") else {"backend": own["backend"]}


def render(selection: Selection) -> list[Any]:
    """Rich renderables: a table per workload, each followed by what failed and by its answer in words."""
    from rich.markup import escape

    parts: list[Any] = []
    by_workload = {answer.workload: answer for answer in answers(selection)}
    for workload in selection.workloads:
        parts += [_table(selection, workload), *_failures(selection.of(workload)), by_workload[workload].sentence, ""]
    differ = machines_differ(selection.documents)
    return [*parts, f"[magenta]machines differ[/]: {escape(differ)}"] if differ else parts


def _table(selection: Selection, workload: str) -> Table:
    """A row per load below the name of its backend, so that 80 columns are enough."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"{workload}   QoS: {selection.qos(workload) or 'none'}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("backend, load", "verdict"):
        table.add_column(name, no_wrap=True, max_width=NAME_WIDTH)
    for name in ("tok/s", "TTFT p50 / p95", "TPOT p50 / p95", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    with_energy = any(joules(row) for row in selection.of(workload))
    if with_energy:
        table.add_column("J/token (scope)", justify="right", no_wrap=True)
    before = None
    for row in selection.of(workload):
        if row["backend"] != before:
            table.add_section()
            table.add_row(Text(row["backend"], style="bold", no_wrap=False))
        before = row["backend"]
        table.add_row(f"  {label(row)}", _verdict(row), *_cells(row), *([joules(row) or NONE] if with_energy else []))
    return table


def _failures(rows: Sequence[Row]) -> list[str]:
    from rich.markup import escape

    return [
        f"[red]not measured[/]: {escape(row['backend'])}, {label(row)}: {escape(str(row['status_reason']))}"
        for row in rows
        if row["status"] != "done"
    ]


def _cells(row: Row) -> list[str]:
    tps, n = row["output_tps"], row["n_requests"]
    pairs = [_pair(row[f"{m}_p50_s"], row[f"{m}_p95_s"]) for m in ("ttft_sched", "tpot")]
    return [f"{tps:.0f}" if tps is not None else NONE, *pairs, str(n) if n is not None else NONE]


def _pair(p50_s: float | None, p95_s: float | None) -> str:
    """`20.5 / 24.0 ms`, with the unit once where both have the same."""
    first, second = format_duration(p50_s), format_duration(p95_s)
    unit = second.rpartition(" ")[2]
    return f"{first.removesuffix(' ' + unit)} / {second}"


def _verdict(row: Row) -> str:
    if row["status"] != "done":
        return "[red]not measured[/]"
    result = row["qos_result"]
    text = f"[{COLOURS[result]}]{result}[/]" if result else NONE
    return text + (f" [magenta]{row['validity']}[/]" if row["validity"] != "valid" else "")

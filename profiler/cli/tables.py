"""The tables of `profile results tools`: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.analyse.beside import Group, Printed, SameQuantity

SAME_HEAD = (
    "by our definitions", "n", "TTFT p50 ms", "95 % bounds", "TTFT p95 ms", "TPOT p50 ms", "TPOT mean ms", "E2E p50 ms",
    "tokens/s", "tokens/s without drain",
)  # fmt: skip
PRINTED_HEAD = ("tool", "prints", "formula", "its figure", "is our", "ours, same requests", "differs")


def markdown_tables(groups: Sequence[Group]) -> str:
    parts = []
    for group in groups:
        parts.append(f"### {_title(group)}\n")
        for head, rows in _both(group):
            if rows:
                parts.append("\n".join(_line(cells) for cells in (head, ("---",) * len(head), *rows)) + "\n")
    return "\n".join(parts)


def terminal_tables(groups: Sequence[Group]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for group in groups:
        console.print(f"[bold]{_title(group)}[/]", highlight=False)
        for head, rows in _both(group):
            if rows:
                table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
                for cells in rows:
                    table.add_row(*cells)
                console.print(table)


def _both(group: Group) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    return [(SAME_HEAD, [_same(one) for one in group.same]), (PRINTED_HEAD, [_printed(one) for one in group.printed])]


def _title(group: Group) -> str:
    load = f"{group.load:g} users" if group.load_kind == "concurrency" else f"{group.load:g} requests/s"
    return f"{group.model} at {load}"


def _same(one: SameQuantity) -> tuple[str, ...]:
    times = (one.ttft_p95_s, one.tpot_p50_s, one.tpot_mean_s, one.e2e_p50_s)
    bounds = f"{_ms(one.ttft_p50_s_lo)}–{_ms(one.ttft_p50_s_hi)}"
    rates = (one.output_tps, one.between_sends_tps)
    return (one.tool, f"{one.n:,}", _ms(one.ttft_p50_s), bounds, *map(_ms, times), *("—" if r is None else f"{r:,.1f}" for r in rates))


def _printed(one: Printed) -> tuple[str, ...]:
    rate = one.is_ in ("request_rate", "output_tps")
    unit = {"request_rate": "/s", "output_tps": " tokens/s"}.get(one.is_ or "", " ms")

    def shown(value: float | None) -> str:
        return "—" if value is None else f"{value if rate else value * 1e3:,.2f}{unit}"

    differs = "—" if not one.ours else f"{one.value / one.ours - 1:+.1%}"
    return (one.tool, one.name, one.formula, shown(one.value), one.is_ or "none of ours", shown(one.ours), differs)


def _ms(value: float | None) -> str:
    return "—" if value is None else f"{value * 1e3:,.2f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "·") for cell in cells) + " |"

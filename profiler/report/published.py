"""Imported figures beside the measured: a table, plain data, and two figures. Nothing here is a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from profiler.analyse.published import BOUNDS, FOLLOWS, THROUGHPUTS, Published, knee_words, mean_words
from profiler.report.figures import DASHES, PALETTE, Figure, layout

if TYPE_CHECKING:
    from profiler.analyse.fit import Candidate

UNITS = {"request_rate": "requests/s", **dict.fromkeys(THROUGHPUTS[1:], "tokens/s")}


def table(own: Sequence[Candidate]) -> list[Any]:
    """The imported candidates' knee and highest load by the mean, with the source of each."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    found = [(c, c.published) for c in own if c.published is not None]
    if not found:
        return []
    made = Table(title="imported figures", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("backend", "device", "model", "knee, requests/s", "by the mean", "bounds", "class"):
        made.add_column(name)
    for c, p in found:
        means = "; ".join(mean_words(m) for m in p.means) or "no mean of a metric of the target"
        made.add_row(
            *(escape(t) for t in (c.name, str(c.row["device"]), str(c.row["model"]).rpartition("/")[2], knee_words(p), means, BOUNDS)),
            "[yellow]imported[/]",
        )
    sources = dict.fromkeys(p.source for _, p in found)
    explained = f"knee: where throughput falls below {FOLLOWS:.0%} of the lowest rate's per offered request; a mean proves no percentile"
    return [made, escape(explained), *(escape(f"source: {source}") for source in sources)]


def plain(found: Published | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "provenance_class": "imported",
        "bounds": BOUNDS,
        "load_kind": found.kind,
        "knee": asdict(found.knee) if found.knee is not None else None,
        "means": [asdict(m) for m in found.means],
        "source": found.source,
        "to_measure": list(found.to_measure),
        "runs": [row["run_id"] for row in found.points],
    }


def figures(own: Sequence[Candidate], number: int) -> list[Figure]:
    """Throughput against the offered rate with the knees, and the mean against it with the target's limit."""
    found = [(c, c.published) for c in own if c.published is not None and c.published.kind == "rate"]
    made = [_throughput(found, number), *(_mean(found, metric, number) for metric in ("ttft", "tpot", "e2e"))]
    return [figure for figure in made if figure is not None]


def _throughput(found: Sequence[tuple[Candidate, Published]], number: int) -> Figure | None:
    import plotly.graph_objects as go

    plot, words, units = go.Figure(), [], set()
    for k, (c, p) in enumerate(found):
        if p.knee is None:
            continue
        column, style = p.knee.column, _style(k)
        x, y = [row["load"] for row in p.points], [row[column] for row in p.points]
        plot.add_trace(go.Scatter(x=x, y=y, mode="markers+lines", name=_name(c), line=style, marker={"symbol": "diamond", "size": 7}))
        if p.knee.crossing is not None:
            plot.add_trace(go.Scatter(x=[p.knee.crossing], y=[p.knee.plateau], mode="markers", showlegend=False, name=f"knee of {_name(c)}",
                                      marker={"symbol": "x", "size": 11, "color": style["color"]}))  # fmt: skip
        words.append(f"{_name(c)}: {knee_words(p)}")
        units.add(UNITS[column])
    if not words:
        return None
    layout(plot, "offered requests/s", f"throughput, {', '.join(sorted(units))}")
    caption = (
        f"Imported, {BOUNDS}. Throughput as the source gives it; cross: the line through the lowest rate meets the highest throughput. "
        f"Knee: between the last rate with at least {FOLLOWS:.0%} of that line and the next."
    )
    return Figure(f"imported-throughput-{number}", "Imported: throughput and its knee", caption, f"Knees. {'; '.join(words)}.", plot)


def _mean(found: Sequence[tuple[Candidate, Published]], metric: str, number: int) -> Figure | None:
    import plotly.graph_objects as go

    plot, words, limits = go.Figure(), [], set()
    for k, (c, p) in enumerate(found):
        limit = next((m for m in p.means if m.metric == metric), None)
        if limit is None:
            continue
        points = [(row["load"], row[limit.column] * 1e3) for row in p.points if row[limit.column] is not None]
        plot.add_trace(go.Scatter(x=[x for x, _ in points], y=[y for _, y in points], mode="markers+lines", name=_name(c),
                                  line=_style(k), marker={"symbol": "diamond", "size": 7}))  # fmt: skip
        words.append(f"{_name(c)}: {mean_words(limit)}")
        limits.add(limit.limit_s * 1e3)
    if not words:
        return None
    for limit_ms in limits:
        plot.add_hline(y=limit_ms, line={"dash": "dot", "color": "#888"})
    layout(plot, "offered requests/s", f"mean {metric.upper()}, ms", y_type="log")
    caption = f"Imported, {BOUNDS}. Mean {metric.upper()} by the source's formula; dotted: the target's limit, which is of a percentile. A mean proves none."
    return Figure(f"imported-{metric}-{number}", f"Imported: mean {metric.upper()}", caption, f"{'; '.join(words)}.", plot)


def _style(k: int) -> dict[str, Any]:
    return {"color": PALETTE[k % len(PALETTE)], "dash": DASHES[k // len(PALETTE) % len(DASHES)]}


def _name(c: Candidate) -> str:
    return f"{str(c.row['model']).rpartition('/')[2]} on {c.row['device']}"

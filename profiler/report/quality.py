"""Quality in an answer: its table on a terminal, the ladder, and the same as plain data for `--json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from profiler.analyse.quality_words import at_a_glance, drift_words, passed_words, verdict_words

if TYPE_CHECKING:
    from profiler.analyse.fit import Candidate
    from profiler.analyse.ladder import Ladder
    from profiler.analyse.quality_store import Standing

COLOURS = {"NON-INFERIOR": "green", "INFERIOR": "red", "FITS": "green", "FAILS": "red", "UNDECIDED": "yellow"}


def table(own: Sequence[Candidate]) -> Any:
    """Perplexity drift, tasks passed, the verdict on quality and the one over quality and QoS."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    of = next((c.joint.of for c in own if c.joint is not None), "QoS")
    made = Table(
        title="Quality, of the same served configurations", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in ("backend", "variant", "perplexity drift", "tasks passed", "quality", f"verdict of {of}"):
        made.add_column(name, overflow="fold", no_wrap=name == "backend")
    for c in own:
        joint = c.joint.result if c.joint is not None else "UNDECIDED"
        cells = (escape(c.name), escape(str(c.row["variant"])), drift_words(c.quality.row), passed_words(c.quality.row))
        made.add_row(*cells, short(c.quality), f"[{COLOURS[joint]}]{joint}[/]")
    return made


def short(standing: Standing) -> str:
    """The verdict on quality, coloured; without a margin what there is instead."""
    text = at_a_glance(standing) or verdict_words(standing)
    return f"[{COLOURS[text]}]{text}[/]" if text in COLOURS else text


def steps(ladders: Sequence[Ladder]) -> list[str]:
    from rich.markup import escape

    return [escape(f"  {step}" if k else step) for ladder in ladders for k, step in enumerate(ladder.steps)]


def plain(standing: Standing) -> dict[str, Any]:
    """An evaluation as JSON types; null with `reason` and the `command` that would give it."""
    row, evaluation = standing.row, standing.evaluation
    if row is None or evaluation is None:
        return {"evaluation": None, "reason": standing.reason, "command": standing.command}
    stored = {name: evaluation.document[name] for name in ("key", "made_at")}
    reference = evaluation.reference["backend"]["name"] if evaluation.reference is not None else None
    return {"evaluation": stored | _row(asdict(row)) | {"reference": reference}, "reason": None, "command": None}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("key", "backend", "engine", "variant")}


def plain_ladder(ladder: Ladder) -> dict[str, Any]:
    return {
        "model": ladder.model,
        "device": ladder.device,
        "start": ladder.start.name,
        "smallest": ladder.smallest.name if ladder.smallest is not None else None,
        "saving": asdict(ladder.saving) if ladder.saving is not None else None,
        "steps": list(ladder.steps),
    }

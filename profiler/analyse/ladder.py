"""Right-sizing as a ladder: start from the reference, go down to the smallest weights that still pass, and say what that saves.

One sentence a step. Only models that were evaluated have one; imported rows are nobody's step, since what served them cannot be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.analyse.margins import Margins
from profiler.analyse.quality_words import told
from profiler.units import format_size

if TYPE_CHECKING:
    from profiler.analyse.fit import Candidate


@dataclass(frozen=True)
class Saving:
    """Of the smallest that passes against the start; None where one of both is not known. Negative: it costs more."""

    weights_bytes: int | None
    weights_share: float | None
    month: float | None
    month_share: float | None
    currency: str | None
    limit_ratio: float | None  # λ* of the smallest / λ* of the start


@dataclass(frozen=True)
class Ladder:
    """`steps`: a sentence each, largest weights first, the answer last. `smallest` None: nothing passes, or no margin was stated."""

    model: str
    device: str | None
    start: Candidate
    smallest: Candidate | None
    saving: Saving | None
    steps: tuple[str, ...]
    members: tuple[Candidate, ...]


def ladders(own: Sequence[Candidate], margins: Margins) -> list[Ladder]:
    """Of the candidates of one workload, each model and device apart."""
    groups: dict[tuple[object, ...], list[Candidate]] = {}
    for c in own:
        if c.published is None:
            groups.setdefault((c.row.get("model_hash") or c.row["model"], c.row["device"]), []).append(c)
    return [made for group in groups.values() if (made := _ladder(group, margins)) is not None]


def _ladder(group: Sequence[Candidate], margins: Margins) -> Ladder | None:
    sized = sorted((c for c in group if size_of(c)), key=lambda c: (-(size_of(c) or 0), c.name))
    if len(sized) < 2 or all(c.quality.row is None for c in sized):
        return None
    start = next((c for c in sized if c.quality.row is not None and c.quality.row.is_reference), sized[0])
    below = [c for c in sized if c is not start and (size_of(c) or 0) <= (size_of(start) or 0)]
    passing = [c for c in (start, *below) if margins.stated and c.joint is not None and c.joint.result == "FITS"]
    smallest = passing[-1] if passing else None
    saving = _saving(start, smallest) if smallest is not None and smallest is not start else None
    steps = (f"Start here: {_step(start)}", *(f"Then {_step(c)}" for c in below), _answer(start, smallest, saving, margins))
    return Ladder(str(start.row["model"]), start.row["device"], start, smallest, saving, steps, (start, *below))


def size_of(c: Candidate) -> int | None:
    """Bytes of its weights."""
    stored: int | None = c.row.get("variant_size_bytes")
    if stored is None and c.quality.evaluation is not None:
        stored = c.quality.evaluation.document["variant"].get("size_bytes")
    return stored


def _step(c: Candidate) -> str:
    text = f"{c.name} ({format_size(size_of(c))} of weights): {told(c.quality)}"
    if c.joint is None:
        return f"{text}."
    if c.joint.quality is None:
        return f"{text}; QoS {c.joint.qos}, {c.joint.reason}."
    decide = f"; would decide it: {'; '.join(c.joint.decide)}" if c.joint.decide else ""
    return f"{text}; {c.joint.result}: {c.joint.reason}{decide}."


def _answer(start: Candidate, smallest: Candidate | None, saving: Saving | None, margins: Margins) -> str:
    if not margins.stated:
        return "Which is the smallest that passes depends on what you accept: state it with --drift-margin and --margin."
    if smallest is None:
        return f"Nothing passes, with {margins.words}: neither the start nor anything smaller is proven on quality and QoS."
    if saving is None:
        return f"The smallest that passes is the start itself, {start.name}: nothing smaller is proven on quality and QoS."
    return f"The smallest that passes is {smallest.name}: {saving_words(saving)}."


def _saving(start: Candidate, smallest: Candidate) -> Saving:
    big, small = size_of(start), size_of(smallest)
    dear, cheap = start.cheapest, smallest.cheapest
    months = (dear.points[0].per_month, cheap.points[0].per_month) if dear is not None and cheap is not None else None
    spans = (start.span, smallest.span)
    return Saving(
        big - small if big and small else None,
        1 - small / big if big and small else None,
        months[0] - months[1] if months else None,
        1 - months[1] / months[0] if months and months[0] else None,
        dear.offer.currency if dear is not None else None,
        spans[1].lower / spans[0].lower if spans[0] is not None and spans[1] is not None and spans[0].lower else None,
    )


def saving_words(saving: Saving) -> str:
    """`it saves 127.2 MiB of weights (49%) and 70.08 USD a month (50%); its λ* is 1.14 times that of the start`."""
    parts = []
    if saving.weights_bytes is not None and saving.weights_share is not None:
        parts.append(f"{format_size(saving.weights_bytes)} of weights ({saving.weights_share:.0%})")
    if saving.month is not None and saving.month > 0.005 and saving.month_share is not None:
        parts.append(f"{saving.month:,.2f} {saving.currency} a month ({saving.month_share:.0%})")
    text = f"it saves {' and '.join(parts)}" if parts else "what it saves is not known"
    if saving.month is None:
        text += "; nothing is costed"
    elif saving.month < -0.005:
        text += f"; a month costs {-saving.month:,.2f} {saving.currency} more"
    elif saving.month <= 0.005:
        text += "; a month costs the same"
    return text + (f"; its λ* is {saving.limit_ratio:.2f} times that of the start" if saving.limit_ratio is not None else "")

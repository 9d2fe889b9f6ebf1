"""KL, top-1 agreement and the drift by position of two stored evaluations of the same tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.analyse import divergence, quality
from profiler.analyse.divergence import Estimate, PerToken, PositionDrift
from profiler.quality import top_k


@dataclass(frozen=True)
class Nearness:
    """None where a list of the most probable tokens is missing; `by_position` then holds the drift alone."""

    kl: Estimate | None = None
    kl_per_token: PerToken | None = None
    top1: Estimate | None = None
    by_position: tuple[PositionDrift, ...] = ()


def nearness(document: Mapping[str, Any], reference: Mapping[str, Any], results: Path | None) -> tuple[Nearness, str | None]:
    """Both have the windows of the same tokens. What is there, and why KL and top-1 agreement are not."""
    import numpy as np

    tokens = [len(window) for window in document["drift"]["windows"]]
    kl = same = None
    why: str | None = "the results folder was not given"
    if results is not None:
        ours, our_why = top_k.load(results, document)
        theirs, their_why = top_k.load(results, reference)
        if ours is None or theirs is None:
            why = our_why or f"the reference: {their_why}"
        elif not len(ours[0]) == len(theirs[0]) == sum(tokens):
            why = f"{len(ours[0])} and {len(theirs[0])} places for {sum(tokens)} tokens; --again asks them anew"
        else:
            why = None
            kl, same = divergence.kl_per_place(theirs, ours), divergence.top1_per_place(theirs, ours)
    place = np.concatenate([np.arange(1, count + 1) for count in tokens])
    found = []
    for first, last in divergence.parts(max(tokens)):
        inside = (place >= first) & (place <= last)
        counts = [min(count, last) - first + 1 for count in tokens if count >= first]

        def part(values: Any, inside: Any = inside, counts: list[int] = counts) -> Estimate | None:
            return None if values is None else divergence.estimate(values[inside], counts)

        theirs_nll, ours_nll = (
            [(-math.fsum(w[first - 1 : last]), len(w[first - 1 : last])) for w in one["drift"]["windows"] if len(w) >= first]
            for one in (reference, document)
        )
        found.append(PositionDrift(first, last, quality.drift(theirs_nll, ours_nll), part(kl), part(same)))
    if kl is None or same is None:
        return Nearness(by_position=tuple(found)), why
    return Nearness(divergence.estimate(kl, tokens), divergence.per_token(kl), divergence.estimate(same, tokens), tuple(found)), why

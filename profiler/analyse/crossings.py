"""Which offer is the cheapest at which demand, and where that changes: staircases of whole offers, compared exactly at their steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.analyse.offers import BASES, Basis
from profiler.analyse.rightsize import CLASSES, passes

if TYPE_CHECKING:
    from profiler.analyse.cost import Cost
    from profiler.analyse.fit import Candidate

MOST_STEPS = 4000
FULL = 4.0  # how far the comparison goes: times the demand that the largest single offer carries


@dataclass(frozen=True)
class Curve:
    """One candidate on one kind of offer. An offer carries `carries` requests/s (its replicas at λ* / the daily peak) for `month` a month.

    `provenance`: the class of its cost; of another class than another curve's it is not compared with that.
    """

    name: str
    basis: Basis
    carries: float
    month: float
    provenance: str = "measured"

    def at(self, rate: float) -> float:
        return self.offers(rate) * self.month

    def offers(self, rate: float) -> int:
        return max(1, math.ceil(rate / self.carries - 1e-9))


@dataclass(frozen=True)
class Stretch:
    """From a demand above `above` up to `upto` requests/s, `curve` is the cheapest; at `upto` it costs `month` a month."""

    above: float
    upto: float
    curve: Curve
    month: float


def curves(own: Sequence[Candidate], basis: Basis | None = None, provenance: str | None = None) -> list[Curve]:
    """The cheapest offer of each candidate that passes on quality, per request when full: of one basis or of the rented and owned ones, of one
    provenance class or of any. A price of which a part is not known counts only where there is no other, and is called "at least"."""
    made = []
    for c in own:
        if c.span is None or not passes(c):
            continue
        peak = c.demand.peak if c.demand is not None else 1.0
        mine = [
            (
                cost.partial,
                Curve(_name(c, cost), cost.offer.basis, cost.replicas_per_offer * c.span.lower / peak, cost.monthly.total, cost.provenance),
            )
            for cost in c.costs
            if cost.monthly.total
            and (cost.offer.basis == basis or (basis is None and cost.offer.basis != "paid"))
            and provenance in (None, cost.provenance)
        ]
        if mine:
            made.append(min(mine, key=lambda one: (one[0], one[1].month / one[1].carries))[1])
    return made


def _name(c: Candidate, cost: Cost) -> str:
    return f"{c.name} ({cost.offer.name}{', at least' if cost.partial else ''})"


def stretches(found: Sequence[Curve], top: float | None = None) -> list[Stretch]:
    """The lower envelope from 0 to `top` requests/s. On a tie the one that was cheapest before stays, then the first."""
    if not found:
        return []
    top = top if top is not None else FULL * max(curve.carries for curve in found)
    top = min(top, MOST_STEPS * min(curve.carries for curve in found))
    ends = {top} | {n * curve.carries for curve in found for n in range(1, math.floor(top / curve.carries) + 1)}
    made: list[Stretch] = []
    before = 0.0
    for end in sorted(ends):
        if end <= before * (1 + 1e-12):
            continue
        middle = (before + end) / 2
        least = min(curve.at(middle) for curve in found)
        last = made[-1].curve if made else None
        best = last if last is not None and last.at(middle) <= least else next(c for c in found if c.at(middle) <= least)
        if best is last:
            made[-1] = Stretch(made[-1].above, end, best, best.at(end))
        else:
            made.append(Stretch(before, end, best, best.at(end)))
        before = end
    return made


def by_basis(own: Sequence[Candidate]) -> dict[Basis, dict[str, list[Stretch]]]:
    """For each basis that anybody is costed in, by provenance class: bounds, imported means and predictions do not compete."""
    found = {basis: {name: stretches(curves(own, basis, name)) for name in CLASSES} for basis in BASES}
    return {basis: kept for basis, made in found.items() if (kept := {name: each for name, each in made.items() if each})}


def words(made: Sequence[Stretch], most: int = 5) -> str:
    """`l4 up to 20.8/s, h100 up to 28.2/s, …`; or that nothing crosses."""
    if len(made) == 1:
        return f"{made[0].curve.name} at every demand up to {made[0].upto:.3g}/s: no crossing"
    parts = [f"{s.curve.name} up to {s.upto:.3g}/s" for s in made[:most]]
    more = f", and {len(made) - most} more stretches up to {made[-1].upto:.3g}/s" if len(made) > most else ""
    return ", ".join(parts) + more

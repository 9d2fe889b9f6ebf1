"""The cheapest mixed fleet for several workloads at once: whole offers of each kind, and which workload goes where. Class `predicted`.

    minimise  sum_j month_j · n_j        n_j whole offers of kind j (a backend on an offer)
    with      sum_j x_ij = rate_i        every workload i is served in full, at its peak
              sum_i x_ij / carries_ij <= n_j

carries_ij is what one offer of kind j carries of workload i alone, within its target (its replicas x the lower end of λ*). Sharing an offer is taken for
linear: half the time for one, half for the other. Solved as a mixed-integer linear program by HiGHS (scipy.optimize.milp).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from profiler.analyse.limit import KEY
from profiler.analyse.names import names

if TYPE_CHECKING:
    from profiler.analyse.fit import Candidate

GAP = 1e-6  # relative, between the fleet that is named and the best that may exist
LIMIT_S = 10.0  # of the solver


@dataclass(frozen=True)
class Kind:
    """What was measured (a model, variant and backend on a machine) on one offer. `carries`: requests/s of each workload that one offer carries; 0 where it keeps the target at no rate."""

    name: str
    month: float
    carries: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """`served`: requests/s of each workload that goes there."""

    kind: Kind
    offers: int
    served: tuple[float, ...]


@dataclass(frozen=True)
class Mix:
    """`single`: the cheapest fleet of one kind alone, for comparison; None where no kind carries every workload."""

    parts: tuple[Part, ...]
    month: float
    single: tuple[Kind, int, float] | None
    proven: bool  # the solver closed the gap within its time


def cheapest(kinds: Sequence[Kind], rates: Sequence[float]) -> Mix | str:
    """`rates`: peak requests/s of each workload; a text says why there is no fleet."""
    for i, rate in enumerate(rates):
        if rate > 0 and not any(kind.carries[i] > 0 for kind in kinds):
            return f"no kind of offer carries workload {i + 1} within its target"
    n, m = len(kinds), len(rates)
    # variables: n offers, then x_ij by workload; shares of an offer rather than requests/s, so that all are of one size
    cost = np.concatenate([[kind.month for kind in kinds], np.zeros(n * m)])
    rows, lower, upper = [], [], []
    for i, rate in enumerate(rates):
        row = np.zeros(n + n * m)
        row[n + i * n : n + (i + 1) * n] = [kind.carries[i] for kind in kinds]
        rows.append(row)
        lower.append(rate)
        upper.append(np.inf)
    for j in range(n):
        row = np.zeros(n + n * m)
        row[j] = -1
        row[n + j :: n] = 1
        rows.append(row)
        lower.append(-np.inf)
        upper.append(0.0)
    whole = np.concatenate([np.ones(n), np.zeros(n * m)])
    solved = milp(
        cost, integrality=whole, bounds=Bounds(0, np.inf), constraints=LinearConstraint(np.array(rows), lower, upper),
        options={"mip_rel_gap": GAP, "time_limit": LIMIT_S},
    )  # fmt: skip
    if solved.x is None:
        return f"no fleet was found: {solved.message}"
    counts = [round(value) for value in solved.x[:n]]
    share = solved.x[n:].reshape(m, n)
    parts = tuple(
        Part(kind, counts[j], tuple(float(min(rates[i], share[i, j] * kind.carries[i])) for i in range(m)))
        for j, kind in enumerate(kinds)
        if counts[j]
    )
    return Mix(parts, float(sum(p.offers * p.kind.month for p in parts)), _single(kinds, rates), solved.status == 0)


def kinds(workloads: Sequence[Sequence[Candidate]]) -> tuple[list[Kind], list[str]]:
    """(kinds, notes): one for each thing measured and offer that is costed under any of the workloads: rented and owned, by the lower end of λ*.

    Imported figures bound λ* from above only: a fleet by them would look smaller than any that keeps the target, so they are left out.
    """
    found: dict[tuple[Any, ...], list[float]] = {}
    months: dict[tuple[Any, ...], float] = {}
    rows = [c.row for own in workloads for c in own]
    named = dict(zip(map(_identity, rows), names(rows), strict=True))
    left_out = []
    for i, own in enumerate(workloads):
        for c in own:
            if c.estimate is not None:
                left_out.append(named[_identity(c.row)])
            for cost in c.costs if c.range is not None else ():
                if cost.offer.basis == "paid" or not cost.monthly.total:
                    continue
                key = (_identity(c.row), cost.offer.name, cost.offer.basis)
                assert c.range is not None
                found.setdefault(key, [0.0] * len(workloads))[i] = cost.replicas_per_offer * c.range.lower
                months[key] = cost.monthly.total
    made = [Kind(f"{named[own]} on {name}, {basis}", months[own, name, basis], tuple(x)) for (own, name, basis), x in found.items()]
    text = f"imported figures prove no λ* and are left out of the mix: {', '.join(dict.fromkeys(left_out))}"
    return made, [text] if left_out else []


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is never pooled, whatever the workload."""
    return tuple(row.get(name) for name in KEY if not name.startswith("workload"))


def _single(kinds: Sequence[Kind], rates: Sequence[float]) -> tuple[Kind, int, float] | None:
    made = []
    for kind in kinds:
        if all(carries > 0 for carries, rate in zip(kind.carries, rates, strict=True) if rate > 0):
            load = sum(rate / carries for carries, rate in zip(kind.carries, rates, strict=True) if rate > 0)
            count = max(1, int(np.ceil(load - 1e-9)))
            made.append((kind, count, count * kind.month))
    return min(made, key=lambda one: one[2], default=None)


def words(made: Mix | str, workloads: Sequence[str], currency: str) -> list[str]:
    """The fleet, who serves what, and what the cheapest fleet of one kind alone would cost."""
    if isinstance(made, str):
        named = made
        for i, name in enumerate(workloads, 1):
            named = named.replace(f"workload {i} ", f"{name} ")
        return [f"no mixed fleet: {named}"]
    lines = [f"cheapest mixed fleet (predicted: sharing an offer is taken for linear): {made.month:,.2f} {currency} a month"]
    for part in made.parts:
        served = ", ".join(f"{rate:.3g}/s of {name}" for name, rate in zip(workloads, part.served, strict=True) if rate > 1e-6)
        lines.append(f"  {part.offers} x {part.kind.name}: {served or 'spare'}")
    if made.single is not None:
        kind, count, month = made.single
        saved = 1 - made.month / month
        lines.append(
            f"  of one kind alone: {count} x {kind.name}, {month:,.2f} {currency} a month"
            + (f" (mixing saves {saved:.0%})" if saved > 0.005 else ": nothing is gained by mixing")
        )
    else:
        lines.append("  no single kind carries every workload")
    return lines if made.proven else [*lines, f"  the solver stopped after {LIMIT_S:g} s: a cheaper fleet may exist"]

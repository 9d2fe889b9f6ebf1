"""How far imported figures let one go: a point estimate of λ* and of the saturated rate, for a cost that is a lower bound.

A mean that keeps a limit proves no percentile, so λ* is at most what the means say, and a fleet sized by it is the smallest that may do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.analyse.capacity import Range
from profiler.analyse.cost import Saturation
from profiler.analyse.published import Published
from profiler.analyse.qos import QosTarget

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """`range`: λ* is at most its `lower`, requests/s; its `upper` is the next load, which does not keep the means (None: none was published)."""

    range: Range
    saturation: Saturation | None
    notes: tuple[str, ...]
    checked: bool  # a mean of every metric of the target was published, and is kept up to there


def estimate(found: Published, target: QosTarget, rows: Sequence[Row] = ()) -> Estimate | str:
    """From what was published of one key and all its `rows`, those of the other loop too; a text says why there is none."""
    rates = achieved(found)
    if not rates:
        return "no request rate in the imported rows, and none follows from their token rates"
    saturation = _saturation(found, rates, rows)
    metrics = dict.fromkeys(limit.metric for c in target.constraints for limit in c.limits)
    unchecked = [m for m in metrics if all(mean.metric != m for mean in found.means)]
    notes = [f"{', '.join(unchecked)}: the source has no mean of it, so it was not checked"] if unchecked else []
    kept = min((mean.keeps if mean.keeps is not None else 0.0 for mean in found.means), default=None)
    first_above = min((mean.above for mean in found.means if mean.above is not None), default=None)
    if found.knee is not None and found.knee.leaves is not None and (kept is None or kept > (found.knee.follows or 0.0)):
        kept = found.knee.follows
        first_above = min(first_above, found.knee.leaves) if first_above is not None else found.knee.leaves
        notes.append("by throughput: at the next rate it no longer follows")
    known = kept
    if kept and found.kind == "concurrency":  # a source may say the latency of a load and not its rate
        known = max((load for load in rates if load <= kept), default=None)
        if known is not None and known < kept:
            notes.append(f"at {kept:g} users no request rate was published: the rate of {known:g} was taken")
    if kept and known:
        lower = kept if found.kind == "rate" else rates[known]
        upper = first_above if found.kind == "rate" or first_above is None else rates.get(first_above)
        notes.append("a point estimate without a bound" + (", and by means: a percentile may be missed at less" if found.means else ""))
        return Estimate(
            _range(lower, upper if upper is None or upper > lower else None, "by imported figures"),
            saturation,
            tuple(notes),
            bool(found.means) and not unchecked,
        )
    if found.kind == "rate" and first_above is not None:
        top = min(first_above, max(rates.values()))
        notes.append(f"no published load keeps the means: λ* is somewhere below {top:.3g}/s, the lowest of them")
    else:
        top = max(rates.values())
        what = "the means are above the target there" if found.means else "no latency was published"
        notes.append(f"only a saturated rate is known ({what}): λ* is somewhere below {top:.3g}/s")
    return Estimate(_range(top, None, "by an imported rate that keeps no limit"), saturation, tuple(notes), False)


def achieved(found: Published) -> dict[float, float]:
    """Load -> requests/s that were answered: as published, else the token rate / the tokens of a request at the lowest offered rate.

    At an offered rate that throughput follows, every request is answered, so tokens per request = tokens/s / rate.
    """
    told = {float(row["load"]): float(row["request_rate"]) for row in found.points if row.get("request_rate")}
    if told or found.kind != "rate":
        return told
    knee = found.knee
    if knee is None or knee.column == "request_rate" or not knee.per_request:
        return {}
    return {float(row["load"]): float(row[knee.column]) / knee.per_request for row in found.points}


def _saturation(found: Published, rates: Mapping[float, float], rows: Sequence[Row]) -> Saturation:
    """Of offered rates, a plateau is two of them, the higher at least a fifth more, answered alike within 5 %. Beside them: all at once."""
    best = max(rates.values())
    column, per_request = (found.knee.column, found.knee.per_request) if found.knee is not None else ("request_rate", 1.0)
    others = [
        row[column] / (1.0 if column == "request_rate" else per_request)
        for row in rows
        if row["load_kind"] != found.kind and row.get(column)
    ]
    if others and max(others) > best:
        return Saturation(max(others), False, "imported: of requests sent at once, drain included: it may go higher")
    flat = [load for load, rate in rates.items() if rate >= 0.95 * best]
    if found.kind == "rate" and max(flat) >= 1.2 * min(flat) and found.knee is not None and found.knee.leaves is not None:
        return Saturation(best, True, f"plateau: {min(flat):g} to {max(flat):g} requests/s offered are answered alike within 5 %")
    return Saturation(best, False, "imported: no plateau among the published loads, and their rates include the drain: it may go higher")


def _range(lower: float, upper: float | None, note: str) -> Range:
    return Range(lower, upper, "imported", None, note)

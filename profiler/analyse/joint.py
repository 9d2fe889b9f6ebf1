"""The verdict on a backend of quality and QoS at once: it FITS only where it answers as well as the reference and keeps the target.

Without a margin nobody said what is too much worse, so the verdict is of QoS alone and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from profiler.analyse.limit import Limit
from profiler.analyse.margins import Margins
from profiler.analyse.quality import QualityResult
from profiler.analyse.quality_store import Standing
from profiler.records import LoadKind, Result

Of = Literal["QoS", "quality and QoS"]
ALONE = "of QoS alone: no margin was stated for quality (--drift-margin, --margin)"
_AS_RESULT: Mapping[QualityResult, Result] = {"NON-INFERIOR": "FITS", "INFERIOR": "FAILS", "UNDECIDED": "UNDECIDED"}


@dataclass(frozen=True)
class Joint:
    """`reason` says what each part found; `decide` what would decide it, one line each, where it is UNDECIDED."""

    result: Result
    of: Of
    qos: Result
    quality: QualityResult | None  # None without a margin
    reason: str
    decide: tuple[str, ...] = ()


def both(qos: Result, quality: QualityResult | None) -> Result:
    """FAILS if one fails, FITS if both hold, else UNDECIDED; without a verdict on quality that of QoS."""
    if quality is None:
        return qos
    results = {qos, _AS_RESULT[quality]}
    return "FAILS" if "FAILS" in results else "FITS" if results == {"FITS"} else "UNDECIDED"


def joint(limits: Mapping[LoadKind, Limit], standing: Standing, margins: Margins) -> Joint:
    """Over all loads that were measured: QoS FITS where one of them does, FAILS where all of them do."""
    qos, why, decide = qos_of(limits)
    if not margins.stated:
        return Joint(qos, "QoS", qos, None, why, decide if qos == "UNDECIDED" else ())
    quality, told, missing = quality_of(standing, margins)
    result = both(qos, quality)
    lacking = (missing if quality == "UNDECIDED" else ()) + (decide if qos == "UNDECIDED" else ())
    return Joint(
        result, "quality and QoS", qos, quality, f"quality {quality}, {told}; QoS {qos}, {why}", lacking if result == "UNDECIDED" else ()
    )


def qos_of(limits: Mapping[LoadKind, Limit]) -> tuple[Result, str, tuple[str, ...]]:
    """(result, why, what would decide it)."""
    proven = [
        f"kept up to {kept:g} {'requests/s' if kind == 'rate' else 'user' if kept == 1 else 'users'}"
        for kind, limit in limits.items()
        if (kept := _kept(limit)) is not None
    ]
    if proven:
        return "FITS", " and ".join(proven), ()
    probes = [(kind, probe) for kind, limit in limits.items() for probe in limit.probes]
    if not probes:
        return "UNDECIDED", "no load was measured", ("`profile sweep` measures these lengths",)
    if all(probe.result == "FAILS" for _, probe in probes):
        return "FAILS", "kept at no load that was measured", ()
    kind, open_ = next(((kind, probe) for kind, probe in probes if probe.result != "FAILS"))
    at = f"{open_.load:g} {'requests/s' if kind == 'rate' else 'users'}"
    return "UNDECIDED", f"at {at}: {open_.reason}", (f"more starts or requests at {at}: `profile sweep --repeats 3`",)


def quality_of(standing: Standing, margins: Margins) -> tuple[QualityResult, str, tuple[str, ...]]:
    """(result, why, what would decide it); only with a margin. The reference is as good as itself."""
    row = standing.row
    if row is None:
        return "UNDECIDED", str(standing.reason), (standing.command,) if standing.command else ()
    if row.is_reference:
        return "NON-INFERIOR", "it is the reference", ()
    verdicts = [verdict for verdict in (row.drift_verdict, row.task_verdict) if verdict is not None]
    result: QualityResult = row.verdict or "UNDECIDED"
    telling = [verdict for verdict in verdicts if verdict.result == result] or verdicts
    reasons = [verdict.reason for verdict in telling]
    lacking = [verdict.decide for verdict in verdicts if verdict.decide] if result == "UNDECIDED" else []
    if result == "UNDECIDED":
        asked = (("drift", margins.drift_margin), ("pairs", margins.margin))
        absent = [f"no {name}: {row.missing[name]}" for name, margin in asked if margin is not None and name in row.missing]
        reasons += absent
        lacking += [f"an evaluation of both that asks the same ({text})" for text in absent]
    return result, "; ".join(reasons) or "nothing could be compared", tuple(lacking)


def _kept(limit: Limit) -> float | None:
    """The highest load that FITS with no lower one that FAILS: a low load that n leaves undecided does not unsay a higher one."""
    below = [probe for probe in limit.probes if limit.upper is None or probe.load < limit.upper]
    return max((probe.load for probe in below if probe.result == "FITS"), default=limit.lower)

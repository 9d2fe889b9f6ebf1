"""Quality of NEW against BASE: the evaluations of both sides, paired as `profile evaluate` pairs a variant with its reference.

A margin is a rule like the others: INFERIOR is a regression, what is not decided is inconclusive. Without one the figures stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from profiler.analyse.compare_arms import Arm
from profiler.analyse.joint import quality_of
from profiler.analyse.margins import Margins
from profiler.analyse.quality import QualityResult
from profiler.analyse.quality_rows import Row, rows
from profiler.analyse.quality_store import Evaluation, Standing, identity, open_all
from profiler.analyse.quality_words import told

if TYPE_CHECKING:
    from profiler.analyse.compare import Comparison, Outcome

ONE = "one evaluation speaks for both sides, so it says nothing of a change"
_OUTCOMES: Mapping[QualityResult, Outcome] = {"NON-INFERIOR": "within", "INFERIOR": "regression", "UNDECIDED": "inconclusive"}
_WORSE = ("within", "inconclusive", "regression")


@dataclass(frozen=True)
class QualityChange:
    """One configuration of NEW beside its counterpart of BASE. `row`: NEW's, BASE as its reference; None with the reason in `text`."""

    base: str
    new: str
    row: Row | None
    result: QualityResult | None  # None without a margin
    text: str


def with_quality(found: Comparison, base: Arm, new: Arm, margins: Margins) -> Comparison:
    """The comparison with quality in it, and in its outcome where a margin was stated."""
    made = changes(base, new, margins)
    judged = [change for change in made if change.result is not None]
    if not judged:
        return replace(found, quality=tuple(made))
    outcomes = [found.outcome, *(_OUTCOMES[change.result] for change in judged if change.result is not None)]
    words = "; ".join(f"quality of {change.new} {change.result}" for change in judged)
    outcome = max(outcomes, key=_WORSE.index)
    reason = f"{found.reason}; {words}" if outcome == found.outcome else f"{outcome}: {words}; by the other rules {found.reason}"
    return replace(found, quality=tuple(made), outcome=outcome, reason=reason)


def changes(base: Arm, new: Arm, margins: Margins) -> list[QualityChange]:
    """Nothing where neither side was evaluated and no margin was stated."""
    ours, theirs = _standings(base), _standings(new)
    if not margins.stated and all(s.evaluation is None for s in (*ours.values(), *theirs.values())):
        return []
    made = []
    for key, standing in theirs.items():
        other = key if key in ours else next(iter(ours)) if len(ours) == 1 else None
        if other is not None:
            made.append(_change(str(other[1]), str(key[1]), ours[other], standing, margins))
    return made


def _standings(arm: Arm) -> dict[tuple[Any, ...], Standing]:
    """By model, backend and variant."""
    if arm.results is None:
        return {}
    evaluations = open_all(arm.results)
    return {
        tuple(run.row[name] for name in ("model", "backend", "variant")): evaluations.of(
            run.row, (run.provenance.get("backend") or {}).get("options")
        )
        for run in arm.runs
        if run.row["status"] == "done"
    }


def _change(base: str, new: str, ours: Standing, theirs: Standing, margins: Margins) -> QualityChange:
    lacking = next(((name, side) for name, side in ((base, ours), (new, theirs)) if side.evaluation is None), None)
    undecided: QualityResult | None = "UNDECIDED" if margins.stated else None
    if lacking is not None:
        name, side = lacking
        return QualityChange(
            base, new, None, undecided, f"{name}: {side.reason}" + (f"; {side.command} evaluates it" if side.command else "")
        )
    assert ours.evaluation is not None and theirs.evaluation is not None
    reference, document = ours.evaluation.document, theirs.evaluation.document
    if reference["key"] == document["key"]:
        return QualityChange(base, new, None, undecided, ONE)
    (row,) = rows([document], reference, margins.drift_margin, margins.margin)
    standing = Standing(Evaluation(document, row, reference))
    text = f"{new} against {base}: {told(standing).replace('against the reference', 'against it')}"
    if identity(document) != identity(reference):
        text += "; the models differ"
    if not margins.stated:
        return QualityChange(base, new, row, None, text)
    result, reason, decide = quality_of(standing, margins)
    return QualityChange(
        base, new, row, result, f"{text}; {result}: {reason}" + (f"; would decide it: {'; '.join(decide)}" if decide else "")
    )

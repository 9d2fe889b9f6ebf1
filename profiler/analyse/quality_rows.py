"""Stored evaluations beside their reference: one row per variant, with verdicts where a margin was stated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.analyse import quality, quality_top
from profiler.analyse.divergence import Estimate, PerToken, PositionDrift
from profiler.analyse.quality import Drift, Paired, QualityResult, QualityVerdict
from profiler.analyse.quality_top import Nearness


@dataclass(frozen=True)
class Row:
    """None with its reason in `missing`. The reference has no drift, no pairs and no verdict of its own."""

    key: str
    backend: str
    engine: str
    variant: str
    is_reference: bool
    perplexity: float | None
    passed: int | None
    examples: int | None
    drift: Drift | None
    tasks: Paired | None
    lost: tuple[str, ...]  # ids of the examples that the reference passes and this one does not
    drift_verdict: QualityVerdict | None
    task_verdict: QualityVerdict | None
    verdict: QualityResult | None
    missing: Mapping[str, str]
    demonstration_only: str | None
    kl: Estimate | None = None  # nats per token, KL(reference || variant), a lower bound: see analyse/divergence.py
    kl_per_token: PerToken | None = None
    top1: Estimate | None = None  # share of the tokens at which both find the same token most probable
    by_position: tuple[PositionDrift, ...] = ()  # by the number of tokens before the scored one


def rows(
    documents: Sequence[Mapping[str, Any]],
    reference: Mapping[str, Any] | None,
    drift_margin: float | None,
    margin: float | None,
    results: Path | None = None,
) -> list[Row]:
    """`margin`: of the pass rate, `drift_margin`: of the perplexity; both shares. None: that part gets no verdict.

    `results`: the folder that the documents are from; without it the lists of the most probable tokens, and what needs them, are missing.
    """
    return [_row(document, reference, drift_margin, margin, results) for document in documents]


def _row(
    document: Mapping[str, Any], reference: Mapping[str, Any] | None, drift_margin: float | None, margin: float | None, results: Path | None
) -> Row:
    missing: dict[str, str] = {}
    is_reference = reference is not None and document["key"] == reference["key"]
    windows, why = _windows(document)
    if why:
        missing["perplexity"] = why
    outcomes = _outcomes(document)
    if (unanswered := _unanswered(document)) is not None:
        missing["examples"] = unanswered
    if outcomes is None:
        missing["tasks"] = unanswered or "no examples were asked"
    drift: Drift | None = None
    near = Nearness()
    pairs: Paired | None = None
    lost: tuple[str, ...] = ()
    if reference is None:
        missing |= dict.fromkeys(("drift", "kl", "top1", "pairs"), "there is no reference")
    elif not is_reference:
        drift, why = _drift(document, reference)
        if why:
            missing |= dict.fromkeys(("drift", "kl", "top1"), why)
        else:
            near, why = quality_top.nearness(document, reference, results)
            if why:
                missing["kl"] = missing["top1"] = why
        pairs, lost, why = _pairs(document, reference)
        if why:
            missing["pairs"] = why
    drift_verdict = quality.drift_verdict(drift, drift_margin) if drift is not None and drift_margin is not None else None
    task_verdict = quality.task_verdict(pairs, margin) if pairs is not None and margin is not None else None
    return Row(
        document["key"],
        document["backend"]["name"],
        document["backend"]["engine"],
        document["variant"]["variant_id"],
        is_reference,
        _perplexity(windows) if windows else None,
        sum(outcomes.values()) if outcomes else None,
        len(outcomes) if outcomes else None,
        drift,
        pairs,
        lost,
        drift_verdict,
        task_verdict,
        _joined(drift_verdict, task_verdict, drift_margin, margin, missing) if not is_reference else None,
        missing,
        document.get("demonstration_only"),
        near.kl,
        near.kl_per_token,
        near.top1,
        near.by_position,
    )


def _joined(
    drift: QualityVerdict | None, tasks: QualityVerdict | None, drift_margin: float | None, margin: float | None, missing: dict[str, str]
) -> QualityResult | None:
    """Over the parts for which a margin was stated; one that could not be judged leaves it undecided, never passed."""
    if drift_margin is None and margin is None:
        missing["verdict"] = "no margin was stated"
        return None
    given = [verdict for verdict in (drift, tasks) if verdict is not None]
    if not given:
        missing["verdict"] = "nothing could be compared"
        return None
    result = quality.together(given)
    absent = (drift_margin is not None and drift is None) or (margin is not None and tasks is None)
    return "UNDECIDED" if absent and result == "NON-INFERIOR" else result


def _windows(document: Mapping[str, Any]) -> tuple[list[tuple[float, int]] | None, str | None]:
    part = document.get("drift")
    if part is None:
        return None, "no text was asked"
    if part["windows"] is None:
        return None, part["reason"]
    return [(-math.fsum(window), len(window)) for window in part["windows"]], None


def _drift(document: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[Drift | None, str | None]:
    ours, why = _windows(document)
    theirs, their_why = _windows(reference)
    if ours is None or theirs is None:
        return None, why or f"the reference: {their_why}"
    if document["drift"]["digest"] != reference["drift"]["digest"]:
        return None, "not the same tokens as the reference's: another text, window or vocabulary"
    return quality.drift(theirs, ours), None


def _outcomes(document: Mapping[str, Any]) -> dict[str, bool] | None:
    part = document.get("tasks")
    found = {one["id"]: one["passed"] for one in part["examples"] if one["passed"] is not None} if part else {}
    return found or None


def _unanswered(document: Mapping[str, Any]) -> str | None:
    """`2 of 60 were not answered: why the first was not`; they count for nobody, and fewer examples prove less."""
    asked = (document.get("tasks") or {}).get("examples") or []
    without = [one for one in asked if one["passed"] is None]
    return f"{len(without)} of {len(asked)} were not answered: {without[0].get('reason') or 'no reason'}" if without else None


def _pairs(document: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[Paired | None, tuple[str, ...], str | None]:
    ours, theirs = _outcomes(document), _outcomes(reference)
    if ours is None or theirs is None:
        return None, (), "no examples of both"
    if document["tasks"]["digest"] != reference["tasks"]["digest"]:
        return None, (), "not the same examples as the reference's"
    both = [name for name in theirs if name in ours]
    if not both:
        return None, (), "no examples of both"
    lost = tuple(name for name in both if theirs[name] and not ours[name])
    return quality.paired([theirs[name] for name in both], [ours[name] for name in both]), lost, None


def _perplexity(windows: Sequence[tuple[float, int]]) -> float | None:
    tokens = sum(count for _, count in windows)
    mean = math.fsum(nll for nll, _ in windows) / tokens
    return math.exp(mean) if mean < 700 else None

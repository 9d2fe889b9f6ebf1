"""The report's section on quality: what was evaluated, how far each variant drifts, and the answers that a variant loses beside the reference's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.analyse.quality_store import Evaluation
from profiler.analyse.quality_words import NONE, drift_words, kl_words, lacking, passed_words, top1_words, verdict_words
from profiler.quality import tasks

if TYPE_CHECKING:
    from profiler.report.selection import Selection

SHOWN_EXAMPLES = 3  # of each variant
SHOWN_CHARACTERS = 600  # of an answer


@dataclass(frozen=True)
class Line:
    """One backend; the words of what is not known are —, and `note` says why and what would mend it."""

    backend: str
    model: str
    variant: str
    perplexity: str
    drift: str
    kl: str
    top1: str
    passed: str
    verdict: str
    note: str


@dataclass(frozen=True)
class Pair:
    """An example that the reference passes and the variant fails."""

    backend: str
    model: str
    id: str
    scorer: str
    prompt: str | None
    reference: str
    reference_answer: str
    answer: str
    reason: str


@dataclass(frozen=True)
class Section:
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    more: tuple[str, ...]  # how many examples of whom are not shown
    asked: str
    margins: str
    demonstration: tuple[str, ...]


def section(selection: Selection) -> Section | None:
    """None where nothing that these runs measured was evaluated."""
    known = {name: s.evaluation for name, s in selection.standings.items() if s.evaluation is not None}
    if not known:
        return None
    pairs, more = [], []
    for name, evaluation in known.items():
        lost = evaluation.row.lost
        pairs += _pairs(name, evaluation)
        if len(lost) > SHOWN_EXAMPLES:
            more.append(f"{name}: {len(lost) - SHOWN_EXAMPLES} more that it loses: {', '.join(lost[SHOWN_EXAMPLES:])}")
    marks = {e.row.demonstration_only for e in known.values() if e.row.demonstration_only}
    margins = (
        selection.margins.words if selection.margins.stated else "no margin was stated, so nothing is judged: --drift-margin, --margin"
    )
    return Section(tuple(_lines(selection)), tuple(pairs), tuple(more), _asked(list(known.values())), margins, tuple(sorted(marks)))


def trust(selection: Selection) -> str | None:
    """The line of the trust header; None where nothing was evaluated."""
    known = {name: s.evaluation for name, s in selection.standings.items() if s.evaluation is not None}
    if not known:
        return None
    names = ", ".join(f"{name}{' (reference)' if e.row.is_reference else ''}" for name, e in known.items())
    missing = [name for name in selection.standings if name not in known]
    days = sorted({str(e.document["made_at"])[:10] for e in known.values()})
    days = days[:1] + days[-1:] if len(days) > 1 else days
    rest = f"; not evaluated: {', '.join(missing)}" if missing else ""
    return f"evaluated apart from timing: {names}; {_asked(list(known.values()))}; {' to '.join(days)}; {selection.margins.words}{rest}"


def _lines(selection: Selection) -> list[Line]:
    made = []
    for name, standing in selection.standings.items():
        run = next(row for row in selection.rows if row["backend"] == name)
        row = standing.row
        perplexity = f"{row.perplexity:.3f}" if row is not None and row.perplexity is not None else NONE
        words = (perplexity, drift_words(row), kl_words(row), top1_words(row), passed_words(row), verdict_words(standing))
        made.append(Line(name, str(run["model"]), str(run["variant"] or NONE), *words, _note(selection, name)))
    return made


def _note(selection: Selection, name: str) -> str:
    standing = selection.standings[name]
    row = standing.row
    if row is None:
        return f"{standing.reason}" + (f": {standing.command}" if standing.command else "")
    parts = []
    for verdict in (row.drift_verdict, row.task_verdict):
        if verdict is not None:
            decide = f"; would decide it: {verdict.decide}" if verdict.decide else ""
            parts.append(f"{verdict.result}, {verdict.reason}, n = {verdict.n} {verdict.unit}{decide}")
    hidden = ("verdict",) if not row.is_reference else ("verdict", "drift", "pairs", "kl", "top1")
    return "; ".join([*parts, *lacking(row, hidden)])


def _asked(known: list[Evaluation]) -> str:
    """`text built-in (1,905 tokens in 15 windows), examples built-in (24, too few to rank models)`, each once."""
    texts, examples = [], []
    for evaluation in known:
        drift, asked = evaluation.document.get("drift"), evaluation.document.get("tasks")
        if drift is not None and drift.get("windows"):
            tokens = sum(len(window) for window in drift["windows"])
            texts.append(f"text {drift['text']} ({tokens:,} tokens in {len(drift['windows'])} windows)")
        if asked is not None:
            few = ", too few to rank models" if asked.get("too_small") else ""
            examples.append(f"examples {asked['tasks']} ({len(asked['examples'])}{few})")
    return ", ".join(dict.fromkeys(texts + examples)) or "nothing that could be answered"


def _pairs(name: str, evaluation: Evaluation) -> list[Pair]:
    reference, document = evaluation.reference, evaluation.document
    if reference is None or not evaluation.row.lost:
        return []
    theirs, ours = (_by_id(one) for one in (reference, document))
    prompts = _prompts(document)
    return [
        Pair(
            name,
            evaluation.model,
            example,
            str(ours[example].get("scorer") or ""),
            ours[example].get("prompt") or prompts.get(example),
            str(reference["backend"]["name"]),
            _text(theirs[example].get("answer")),
            _text(ours[example].get("answer")),
            str(ours[example].get("reason") or ""),
        )
        for example in evaluation.row.lost[:SHOWN_EXAMPLES]
    ]


def _by_id(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {one["id"]: one for one in document["tasks"]["examples"]}


def _prompts(document: Mapping[str, Any]) -> dict[str, str]:
    """Of the built-in examples as this version has them; those of a user's file are nowhere but there."""
    if document["tasks"].get("tasks") != "built-in":
        return {}
    own = tasks.read(None)
    return {example.id: example.prompt for example in own.examples} if own.digest == document["tasks"]["digest"] else {}


def _text(answer: Any) -> str:
    """A choice's answer is the log-probability of each choice."""
    text = answer if isinstance(answer, str) else "" if answer is None else json.dumps(answer, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} … ({len(text):,} characters)"

"""What was evaluated of the backends of some runs, as a frame: one row per model, variant and backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from profiler.frames.frame import Frame, describe
from profiler.store import schema

if TYPE_CHECKING:
    from profiler.analyse.margins import Margins
    from profiler.analyse.quality_store import Standing
    from profiler.frames.part import Part

OF_RUN = ("model", "variant", "backend")
_WHY = "NULL when it was not evaluated or cannot be compared: see reason"
_OWN = {
    "is_reference": ("", f"whether the others of its model are compared with it; {_WHY}"),
    "perplexity": ("", f"of the text, through the served endpoint; {_WHY}"),
    "drift": ("share", f"perplexity / the reference's − 1, on the same tokens; {_WHY}"),
    "drift_lo": ("share", f"lower one-sided 95 % bound; {_WHY}"),
    "drift_hi": ("share", f"upper one-sided 95 % bound; {_WHY}"),
    "kl": ("nats per token", f"KL divergence of the variant from the reference over the most probable tokens, a lower bound; {_WHY}"),
    "top1": ("share", f"of the tokens at which both find the same token most probable; {_WHY}"),
    "passed": ("examples", f"examples passed; {_WHY}"),
    "examples": ("examples", f"examples asked and answered; {_WHY}"),
    "lost": ("examples", f"the reference passes, this one does not; {_WHY}"),
    "gained": ("examples", f"this one passes, the reference does not; {_WHY}"),
    "difference_lo": ("share", f"lower one-sided 95 % bound of the difference of the pass rates; {_WHY}"),
    "difference_hi": ("share", f"upper one-sided 95 % bound of the difference of the pass rates; {_WHY}"),
    "verdict": ("", "NON-INFERIOR | INFERIOR | UNDECIDED at the margins that were given; NULL when none was, and of the reference"),
    "reference": ("", f"backend it is compared with; {_WHY}"),
    "evaluated_at": ("", f"UTC; {_WHY}"),
    "reason": ("", "what is missing, and why; NULL when nothing is"),
    "command": ("", "what would evaluate it; NULL when it is evaluated or cannot be"),
}


def frame(part: Part, margins: Margins) -> Frame:
    """Raises SpecError for a reference that nobody evaluated."""
    from profiler.analyse.quality_store import open_all

    evaluations = open_all(part.path, margins)
    newest = {tuple(row[name] for name in OF_RUN): row for row in part.rows()}
    found, marks = [], set()
    for key, row in newest.items():
        options = (part.run(row["run_id"])["provenance"].get("backend") or {}).get("options")
        standing = evaluations.of(row, options)
        found.append(dict(zip(OF_RUN, key, strict=True)) | _row(standing))
        if standing.row is not None and standing.row.demonstration_only:
            marks.add(standing.row.demonstration_only)
    made = pd.DataFrame(found, columns=[*OF_RUN, *_OWN])
    for name in ("perplexity", "drift", "drift_lo", "drift_hi", "kl", "top1", "difference_lo", "difference_hi"):
        made[name] = made[name].astype("float64")
    for name in ("passed", "examples", "lost", "gained"):
        made[name] = made[name].astype("Int64")
    columns = {c.name: c for c in schema.RUNS}
    definitions = {name: columns[name].definition for name in OF_RUN} | {name: text for name, (_, text) in _OWN.items()}
    why = {
        str(name): {definitions[str(name)].partition("NULL ")[2] or "not stated by the run": int(n)}
        for name, n in made.isna().sum().items()
        if n
    }
    notes = [*sorted(marks), *([] if margins.stated else ["no margin was stated, so nothing is judged"]), *evaluations.problems]
    return describe(made, "quality", str(part.path), why, {name: unit for name, (unit, _) in _OWN.items()}, definitions, notes)


def _row(standing: Standing) -> dict[str, Any]:
    row, evaluation = standing.row, standing.evaluation
    if row is None or evaluation is None:
        return {"reason": standing.reason, "command": standing.command}
    drift, pairs = row.drift, row.tasks
    lacking = [
        f"{name}: {why}"
        for name, why in row.missing.items()
        if name != "verdict" and not (row.is_reference and name in ("drift", "pairs", "kl", "top1"))
    ]
    return {
        "is_reference": row.is_reference,
        "perplexity": row.perplexity,
        "drift": drift.ratio - 1 if drift is not None else None,
        "drift_lo": drift.ratio_lo - 1 if drift is not None and drift.ratio_lo is not None else None,
        "drift_hi": drift.ratio_hi - 1 if drift is not None and drift.ratio_hi is not None else None,
        "kl": row.kl.value if row.kl is not None else None,
        "top1": row.top1.value if row.top1 is not None else None,
        "passed": row.passed,
        "examples": row.examples,
        "lost": pairs.lost if pairs is not None else None,
        "gained": pairs.gained if pairs is not None else None,
        "difference_lo": pairs.difference_lo if pairs is not None else None,
        "difference_hi": pairs.difference_hi if pairs is not None else None,
        "verdict": row.verdict,
        "reference": evaluation.reference["backend"]["name"] if evaluation.reference is not None else None,
        "evaluated_at": evaluation.document["made_at"],
        "reason": "; ".join(lacking) or None,
    }

"""An evaluation in words, the same in every table, sentence and page."""

from __future__ import annotations

from collections.abc import Collection

from profiler.analyse.quality_rows import Row
from profiler.analyse.quality_store import Standing

NONE = "—"
NAMES = {"kl": "KL", "top1": "top-1 agreement"}


def drift_words(row: Row | None) -> str:
    """`+0.60% (+0.33% to +0.85%)` of the reference's perplexity, `reference`, or — where it is not known."""
    if row is not None and row.is_reference and row.perplexity is not None:
        return "reference"
    if row is None or row.drift is None:
        return NONE
    lo, hi = row.drift.ratio_lo, row.drift.ratio_hi
    bounds = f" ({lo - 1:+.2%} to {hi - 1:+.2%})" if lo is not None and hi is not None else ""
    return f"{row.drift.ratio - 1:+.2%}{bounds}"


def kl_words(row: Row | None) -> str:
    """`0.0027 (0.0026 to 0.0029)`, nats per token, or —."""
    if row is None or row.kl is None:
        return NONE
    bounds = f" ({row.kl.lo:.2g} to {row.kl.hi:.2g})" if row.kl.lo is not None and row.kl.hi is not None else ""
    return f"{row.kl.value:.2g}{bounds}" if row.kl.value >= 1e-6 else "under 0.000001"


def top1_words(row: Row | None) -> str:
    """`95.4%` of the tokens, or —."""
    return f"{row.top1.value:.1%}" if row is not None and row.top1 is not None else NONE


def passed_words(row: Row | None) -> str:
    """`20 of 24 (0 lost, 1 gained)`: lost and gained against the reference."""
    if row is None or row.passed is None:
        return NONE
    pairs = f" ({row.tasks.lost} lost, {row.tasks.gained} gained)" if row.tasks is not None else ""
    return f"{row.passed} of {row.examples}{pairs}"


def verdict_words(standing: Standing) -> str:
    """`NON-INFERIOR`, `reference`, `no margin`, or `not evaluated`."""
    if standing.row is None:
        return "not evaluated"
    return "reference" if standing.row.is_reference else standing.row.verdict or "no margin"


def at_a_glance(standing: Standing) -> str:
    """The verdict; without a margin `drift +0.60%, 20 of 24`; "" where it was not evaluated."""
    row = standing.row
    if row is None or row.is_reference or row.verdict is not None:
        return "" if row is None else verdict_words(standing)
    parts = [f"drift {drift_words(row).partition(' ')[0]}"] if row.drift is not None else []
    return ", ".join(parts + ([passed_words(row).partition(" (")[0]] if row.passed is not None else [])) or "not compared"


def told(standing: Standing) -> str:
    """As part of a sentence: `perplexity +0.60% (…) against the reference, 20 of 24 examples passed (…)`, or why there is none."""
    row = standing.row
    if row is None:
        return str(standing.reason)
    parts = []
    if row.is_reference:
        parts += [f"the reference: perplexity {row.perplexity:.3f}"] if row.perplexity is not None else ["the reference"]
    elif row.drift is not None:
        parts.append(f"perplexity {drift_words(row)} against the reference")
    elif row.perplexity is not None:
        parts.append(f"perplexity {row.perplexity:.3f}, not compared: {row.missing.get('drift')}")
    if row.passed is not None:
        parts.append(f"passed {passed_words(row)}")
    return ", ".join(parts) or "; ".join(lacking(row))


def lacking(row: Row, hidden: Collection[str] = ()) -> list[str]:
    """`no KL, top-1 agreement: why`, `examples: 2 of 60 were not answered: why`: one for all that is missing for the same reason."""
    by_reason: dict[str, list[str]] = {}
    for what, why in row.missing.items():
        if what not in hidden:
            by_reason.setdefault(why, []).append(what)
    return [
        f"{'examples' if 'examples' in names else 'no ' + ', '.join(NAMES.get(name, name) for name in names)}: {why}"
        for why, names in by_reason.items()
    ]

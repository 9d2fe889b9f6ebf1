"""Two sets of runs compared, as a frame: one row per matched cell and rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd

from profiler.frames.frame import Frame, describe

if TYPE_CHECKING:
    from profiler.frames.results import Results

_COLUMNS = {
    "cell": ("", "what both sides share: model, backend, workload, load …"),
    "rule": ("", "the rule, as written"),
    "outcome": ("", "regression (more than the limit, proven) | within (the limit, proven) | inconclusive"),
    "reason": ("", "the finding behind the outcome"),
    "base": ("of unit", "the figure of BASE; NULL when it has none: see reason"),
    "new": ("of unit", "the figure of NEW; NULL when it has none: see reason"),
    "unit": ("", "of base and new"),
    "ratio": ("", "new / base; of an error rate new − base; NULL when a figure is missing: see reason"),
    "lo": ("", "lower end of the interval of ratio; NULL when starts are too few for one: see reason"),
    "hi": ("", "upper end of the interval of ratio; NULL when starts are too few for one: see reason"),
    "detectable": ("", "true effect that would be proven in 80 % of cases; NULL when starts are too few to say"),
    "starts_base": ("", "engine starts of BASE"),
    "starts_new": ("", "engine starts of NEW"),
    "requests_base": ("requests", "requests of BASE"),
    "requests_new": ("requests", "requests of NEW"),
    "starts_needed": ("", "starts per side that would decide; NULL when it is decided or cannot be said"),
}


def compare(
    base: Results, new: Results, rules: Iterable[str], confidence: float, with_suspect: bool, allow_differing: bool, store: str
) -> Frame:
    """`profile compare` in Python. Raises QosError for a rule, StoreError where no cell is in both."""
    arms, analysis = import_module("profiler.analyse.compare_arms"), import_module("profiler.analyse.compare")
    sides = [arms.load(_label(one), one.part, list(one.selection().documents), one.conditions) for one in (base, new)]
    options: dict[str, Any] = {"confidence": confidence, "with_suspect": with_suspect, "allow_differing": allow_differing}
    found = analysis.compare(*sides, list(rules), **options) if (rules := list(rules)) else analysis.compare(*sides, **options)
    rows = [_row(asdict(one)) for one in found.compared]
    made = pd.DataFrame(rows, columns=list(_COLUMNS))
    units, definitions = ({name: text[i] for name, text in _COLUMNS.items()} for i in (0, 1))
    why = {str(name): {definitions[str(name)].partition("NULL ")[2]: int(n)} for name, n in made.isna().sum().items() if n}
    told = [
        f"{found.outcome}: {found.reason}",
        *(f"only in BASE: {cell}" for cell in found.only_base),
        *(f"only in NEW: {cell}" for cell in found.only_new),
    ]
    told += [*(f"refused: {cell}: {text}" for cell, text in found.refused), *(f"also changed: {text}" for text in found.changed)]
    told += [f"{found.set_aside} runs count for nothing: failed, invalid or disturbed"] if found.set_aside else []
    frame = describe(made, "comparison", store, why, units, definitions, told)
    frame.attrs["provenance"] = _classes(base, new)
    return frame


def _row(one: dict[str, Any]) -> dict[str, Any]:
    both = {f"{name}_{side}": one[name][i] for name in ("starts", "requests") for i, side in enumerate(("base", "new"))}
    return {name: one[name] for name in _COLUMNS if name in one} | both


def _label(results: Results) -> str:
    return " ".join(f"{name}={value}" for name, value in results.conditions.items()) or str(results.path)


def _classes(*sides: Results) -> dict[str, int]:
    counted: dict[str, int] = {}
    for one in sides:
        for name, n in one.runs.attrs["provenance"].items():
            counted[f"runs {name}"] = counted.get(f"runs {name}", 0) + n
    return counted

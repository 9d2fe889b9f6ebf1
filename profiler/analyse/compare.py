"""Two sets of runs compared by rules: regression proven, within the limit proven, or inconclusive. Pure: stores in, frozen results out.

    from profiler.analyse.compare import compare
    found = compare(base, new, ["ttft_p99 > +5%"], confidence=0.95)

Cells are matched by model, backend, variant, workload, load and loop. Each matched cell is tested under each rule, twice: a regression is proven when
"the effect is at or below the limit" is rejected, and all of these tests together err at most at the stated rate (Holm over cells × rules). Within the limit
is what is claimed of *all* of them at once, so each is tested at the stated level (intersection-union, Berger, Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from profiler.analyse import compare_arms as arms
from profiler.analyse import compare_effect as effects
from profiler.analyse import compare_rules as rules_of
from profiler.analyse.compare_arms import Arm, ArmRun
from profiler.analyse.compare_effect import StartFigure
from profiler.analyse.compare_quality import QualityChange
from profiler.analyse.compare_rules import RUN_METRICS, Rule
from profiler.errors import StoreError, UsageError

Outcome = Literal["regression", "within", "inconclusive"]
EXIT_CODES: dict[Outcome, int] = {"within": 0, "regression": 4, "inconclusive": 5}
POINT_ESTIMATE = "a point estimate: imported figures have no starts to resample"


class Selection(Protocol):
    """Runs of a store, as a report selects them."""

    @property
    def documents(self) -> Any: ...
    @property
    def store(self) -> Any: ...


@dataclass(frozen=True)
class Compared:
    """One rule in one cell. Ratios are new / base; of an error rate `ratio`, `lo`, `hi`, `detectable`, `limit` are differences of shares.

    `lo` and `hi` hold each alone with the confidence, by Welch's t over starts; `resampled_*` is the hierarchical bootstrap beside it. `detectable`: the true
    effect that would be proven beyond the limit in 80 % of cases. Where starts say too little for a bound a ratio's are 0 and infinity.
    `starts_needed`: per arm, to decide with the effect and spreads seen.
    """

    cell: str
    rule: str
    metric: str
    unit: str
    limit: float
    outcome: Outcome
    reason: str
    base: float | None = None
    new: float | None = None
    ratio: float | None = None
    lo: float | None = None
    hi: float | None = None
    resampled_lo: float | None = None
    resampled_hi: float | None = None
    starts: tuple[int, int] = (0, 0)
    requests: tuple[int, int] = (0, 0)
    start_cv: tuple[float, float] | None = None  # of one start's figure (of an error rate: its standard deviation)
    within_cv: tuple[float, float] | None = None  # of it, what the requests of a start make
    detectable: float | None = None
    starts_needed: int | None = None
    p_regression: float | None = None
    p_regression_holm: float | None = None
    p_within: float | None = None
    p_within_holm: float | None = None


@dataclass(frozen=True)
class Comparison:
    """`unmatched`: cells of one side only; `refused`: (cell, why) of cells that measure different things; `changed`: what else differs."""

    base: str
    new: str
    confidence: float
    outcome: Outcome
    reason: str
    compared: tuple[Compared, ...]
    only_base: tuple[str, ...]
    only_new: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    changed: tuple[str, ...]
    set_aside: int  # runs that count for nothing: failed, invalid, disturbed
    quality: tuple[QualityChange, ...] = ()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    def of(self, outcome: Outcome) -> list[Compared]:
        return [one for one in self.compared if one.outcome == outcome]


def compare(
    base: Arm | Selection,
    new: Arm | Selection,
    rules: Sequence[str | Rule] = rules_of.DEFAULT_RULES,
    confidence: float = 0.95,
    *,
    with_suspect: bool = False,
    allow_differing: bool = False,
) -> Comparison:
    """Raises QosError for a rule, UsageError for a confidence, StoreError where no cell can be compared.

    `with_suspect`: runs that were disturbed count as well. `allow_differing`: cells of differing workload, prompts or endpoint are
    compared and it is said, instead of refused.
    """
    if not 0.5 < confidence < 1:
        raise UsageError(f"confidence {confidence:g} is not between 0.5 and 1", hint="such as 0.95")
    wanted = list(dict.fromkeys(rules_of.parse(rule) if isinstance(rule, str) else rule for rule in rules))
    if not wanted:
        raise UsageError("no rule to compare by", hint='such as "ttft_p99 > +5%"')
    base, new = _arm("BASE", base), _arm("NEW", new)
    both = {str(run.row["run_id"]) for run in base.runs} & {str(run.row["run_id"]) for run in new.runs}
    if both:
        raise StoreError(
            f"{len(both)} runs are on both sides, such as {min(both)}", hint="choose other runs for one of them: sweep:ID, since=…"
        )
    key = arms.shared_key(base, new)
    ours, theirs = arms.by_cell(base, key), arms.by_cell(new, key)
    matched = [cell for cell in ours if cell in theirs]
    if not matched:
        raise StoreError(f"{base.label} and {new.label} have no cell in common{_nearest(ours, theirs, key)}", hint=_MATCHED)
    found: list[_Tested] = []
    refused: list[tuple[str, str]] = []
    changed: dict[str, None] = {}
    aside = 0
    for cell in matched:
        name = arms.label(ours[cell][0].row, key)
        _one_of_each(ours[cell], base.label, name)
        _one_of_each(theirs[cell], new.label, name)
        why = arms.refusal(ours[cell], theirs[cell], key)
        if why is not None and not allow_differing:
            refused.append((name, why))
            continue
        kept = [arms.sound(runs, with_suspect) for runs in (ours[cell], theirs[cell])]
        aside += len(ours[cell]) + len(theirs[cell]) - len(kept[0]) - len(kept[1])
        changed |= dict.fromkeys([*([f"{name}: {why} (compared all the same)"] if why else []), *arms.changes(*kept)])
        lost = _lost("new", theirs[cell], kept[1]) or _lost("base", ours[cell], kept[0])
        found += [_compared(name, rule, kept[0], kept[1], lost, 1 - confidence) for rule in wanted]
    if not found:
        raise StoreError(f"no cell can be compared: {refused[0][0]}: {refused[0][1]}", hint="--allow-differing compares all the same")
    judged = _judged(found, 1 - confidence)
    outcome, reason = _overall(judged, refused, confidence)
    only = [
        [arms.label(runs[0].row, key) for cell, runs in side.items() if cell not in other]
        for side, other in ((ours, theirs), (theirs, ours))
    ]
    return Comparison(
        base.label, new.label, confidence, outcome, reason, tuple(judged), tuple(only[0]), tuple(only[1]), tuple(refused), tuple(changed), aside
    )  # fmt: skip


def _arm(name: str, given: Arm | Selection) -> Arm:
    if isinstance(given, Arm):
        return given
    return arms.load(name, given.store, list(given.documents))


@dataclass(frozen=True)
class _Tested(Compared):
    """With what the p values of all cells decide afterwards."""

    effect: effects.Effect | None = None
    side: Literal[">", "<"] = ">"


def _compared(cell: str, rule: Rule, base: Sequence[ArmRun], new: Sequence[ArmRun], lost: str | None, alpha: float) -> _Tested:
    """The effect of one rule in one cell, not judged yet: `outcome` stays inconclusive where nothing can be tested."""
    blank = _Tested(cell, str(rule), rule.name, rule.unit, rule.limit, "inconclusive", "", side=rule.op)
    if lost is not None:
        return replace(blank, reason=lost)
    if rule.kind == "error_rate":
        return _errors(blank, rule, base, new, alpha)
    if any(run.imported for run in (*base, *new)):
        return _point(blank, rule, base, new)
    figures = [_figures(rule, arm) for arm in (base, new)]
    starts = (len(figures[0]), len(figures[1]))
    blank = replace(blank, starts=starts, requests=(sum(f.requests for f in figures[0]), sum(f.requests for f in figures[1])))
    if 0 in starts:
        return replace(blank, reason=f"{'base' if not starts[0] else 'new'} has no {rule.name}")
    values = [[f.value for f in arm] for arm in figures]
    if not all(math.isfinite(v) for arm in values for v in arm):
        return _among_failed(blank, rule, values)
    if any(v <= 0 for arm in values for v in arm):
        return replace(blank, reason=f"{rule.name} is 0 in a start: there is no ratio")
    middle = [math.exp(float(np.log(arm).mean())) for arm in values]
    blank = replace(blank, base=middle[0], new=middle[1], ratio=middle[1] / middle[0])
    if min(starts) < 2:
        return replace(blank, reason=_ONE_START)
    found = effects.log_effect(figures[0], figures[1], rule.limit, alpha)
    shown = replace(
        blank, lo=found.lo, hi=found.hi, resampled_lo=found.resampled_lo, resampled_hi=found.resampled_hi,
        start_cv=found.deviations, within_cv=found.within if rule.kind == "latency" else None, effect=found,
    )  # fmt: skip
    return _with_p(shown, found, rule.op)


def _errors(blank: _Tested, rule: Rule, base: Sequence[ArmRun], new: Sequence[ArmRun], alpha: float) -> _Tested:
    counts = [
        [(sum(r.row["n_errors"] for r in start), sum(r.row["n_cohort"] for r in start)) for start in arms.by_start(arm) if _counted(start)]
        for arm in (base, new)
    ]
    starts = (len(counts[0]), len(counts[1]))
    if 0 in starts:
        return replace(blank, starts=starts, reason=f"{'base' if not starts[0] else 'new'} does not say how many requests failed")
    n = [sum(n for _, n in arm) for arm in counts]
    shares = [float(np.mean([e / n for e, n in arm])) for arm in counts]
    blank = replace(blank, starts=starts, requests=(n[0], n[1]), base=shares[0], new=shares[1], ratio=shares[1] - shares[0])
    if min(starts) < 2:
        return replace(blank, reason=_ONE_START)
    found = effects.share_effect(counts[0], counts[1], rule.limit, alpha)
    shown = replace(blank, lo=found.lo, hi=found.hi, start_cv=found.deviations, within_cv=found.within, effect=found)
    return _with_p(shown, found, rule.op)


def _with_p(shown: _Tested, found: effects.Effect, side: str) -> _Tested:
    p = (found.p_above, found.p_below) if side == ">" else (found.p_below, found.p_above)
    return replace(shown, p_regression=p[0], p_within=p[1])


def _point(blank: _Tested, rule: Rule, base: Sequence[ArmRun], new: Sequence[ArmRun]) -> _Tested:
    """Of imported figures the ratio of what the sources give; of their means where they give no percentile. Never proven."""
    for column, words in ((arms.column_of(rule), rule.name), (f"{rule.metric}_mean_s", f"{rule.metric}_mean")):
        values = [_column_values(arm, column, rule if words == rule.name else None) for arm in (base, new)]
        if all(values):
            middle = [math.exp(float(np.log(arm).mean())) for arm in values]
            other = "" if words == rule.name else f"; of the means, as no {rule.name} is given"
            return replace(
                blank, base=middle[0], new=middle[1], ratio=middle[1] / middle[0], starts=(len(values[0]), len(values[1])),
                reason=POINT_ESTIMATE + other,
            )  # fmt: skip
    return replace(blank, reason=f"the imported figures have neither {rule.name} nor a mean of it")


def _column_values(arm: Sequence[ArmRun], column: str | None, rule: Rule | None) -> list[float]:
    """The column's positive figures; of measured runs beside imported ones the rule's own figure."""
    own = [f.value for f in _figures(rule, [run for run in arm if not run.imported])] if rule is not None else []
    given = [float(v) for run in arm if run.imported and column and (v := run.row.get(column)) is not None]
    if rule is None:
        metric = (column or "").removesuffix("_mean_s")
        own = [float(v.mean()) for run in arm if not run.imported and (v := run.values.get(metric)) is not None and len(v)]
    return [value for value in (*own, *given) if value > 0 and math.isfinite(value)]


def _among_failed(blank: _Tested, rule: Rule, values: Sequence[Sequence[float]]) -> _Tested:
    """A percentile that lies among failed requests is +∞: no ratio, but where it is so in all starts of one side, a plain order."""
    p = effects.separated(values[0], values[1])
    lost = [sum(not math.isfinite(v) for v in arm) for arm in values]
    where = f"{rule.name} lies among failed requests in {lost[0]} of {len(values[0])} starts of base, {lost[1]} of {len(values[1])} of new"
    return replace(blank, reason=where, p_regression=p, p_within=None if p is None else 1.0)


def _figures(rule: Rule, runs: Sequence[ArmRun]) -> list[StartFigure]:
    """One figure per start that has one."""
    found = []
    for start in arms.by_start(runs):
        if rule.kind == "run":
            column = RUN_METRICS[rule.metric].column
            seen = [float(v) for run in start if (v := run.row.get(column)) is not None]
            if seen:
                found.append(StartFigure(sum(seen) / len(seen), sum(run.row.get("n_requests") or 0 for run in start)))
            continue
        parts = [v for run in start if (v := run.values.get(rule.metric)) is not None and len(v)]
        if parts:
            values = np.concatenate(parts)
            found.append(effects.mean_figure(values) if rule.statistic is None else effects.percentile_figure(values, rule.statistic))
    return found


def _judged(found: Sequence[_Tested], alpha: float) -> list[Compared]:
    """Holm over every test that could be made, then what each says."""
    tested = [k for k, one in enumerate(found) if one.p_regression is not None]
    up = effects.holm([found[k].p_regression or 0.0 for k in tested])
    down = effects.holm([found[k].p_within or 0.0 for k in tested])
    done: list[Compared] = []
    adjusted = {k: (a, b) for k, a, b in zip(tested, up, down, strict=True)}
    for k, one in enumerate(found):
        if k in adjusted:
            one = _decided(replace(one, p_regression_holm=adjusted[k][0], p_within_holm=adjusted[k][1]), alpha, len(tested))
        done.append(Compared(**{name: getattr(one, name) for name in Compared.__dataclass_fields__}))
    return done


def _decided(one: _Tested, alpha: float, tests: int) -> _Tested:
    beyond, within = one.p_regression_holm, one.p_within
    assert beyond is not None and within is not None
    level = alpha / tests  # of Holm's first and strictest step: what can surely be seen
    effect = one.effect
    if effect is not None:
        one = replace(one, detectable=effects.detectable(effect, one.limit, one.side, level))
    if beyond <= alpha:
        return replace(one, outcome="regression", reason=one.reason or "beyond the limit, proven")
    if within <= alpha:
        return replace(one, outcome="within", reason="within the limit, proven")
    if effect is None:
        return one
    above, below = (level, alpha) if one.side == ">" else (alpha, level)
    needed = effects.starts_needed(effect, one.limit, above, below)
    if needed is None:
        return replace(one, reason=f"too close to the limit for {effects.MOST_STARTS} starts per arm")
    more = [max(0, needed - n) for n in one.starts]
    needed = max(needed, min(one.starts) + 1)
    words = f"about {max(1, *more)} more starts per arm would decide ({needed} in all), were they like these"
    return replace(one, reason=words, starts_needed=needed)


def _overall(judged: Sequence[Compared], refused: Sequence[tuple[str, str]], confidence: float) -> tuple[Outcome, str]:
    words = f"with {confidence * 100:.4g} % confidence"
    beyond = [one for one in judged if one.outcome == "regression"]
    if beyond:
        return "regression", f"regression proven {words} in {len(beyond)} of {len(judged)}: " + "; ".join(
            f"{c.cell}: {c.rule}" for c in beyond
        )
    open_ = [one for one in judged if one.outcome == "inconclusive"]
    if open_ or refused:
        parts = [f"{len(open_)} of {len(judged)} not decided"] if open_ else []
        parts += [f"{len(refused)} cell{'s' if len(refused) > 1 else ''} refused"] if refused else []
        most = max((one.starts_needed for one in open_ if one.starts_needed), default=None)
        all_known = most is not None and all(one.starts_needed for one in open_)
        return "inconclusive", f"inconclusive: {', '.join(parts)}" + (f"; about {most} starts per arm would decide" if all_known else "")
    return "within", f"within every limit, proven {words}: {len(judged)} of {len(judged)}"


def _lost(side: str, runs: Sequence[ArmRun], kept: Sequence[ArmRun]) -> str | None:
    """Why a cell of one side has no run that counts; None where it has one."""
    if kept:
        return None
    failed = [run.row for run in runs if run.row["status"] != "done"]
    if failed:
        return f"{side} could not be measured: {failed[-1].get('status_reason') or failed[-1]['status']}"
    reasons = dict.fromkeys(reason for run in runs for reason in run.row.get("validity_reasons") or ())
    return f"every run of {side} is set aside ({'; '.join(list(reasons)[:2]) or 'not sound'}); --with-suspect counts them"


def _counted(start: Sequence[ArmRun]) -> bool:
    return all(run.row.get("n_errors") is not None and run.row.get("n_cohort") for run in start)


def _one_of_each(runs: Sequence[ArmRun], side: str, cell: str) -> None:
    """One side of a cell must be one backend of one model on one machine: others pooled would hide what is compared."""
    for column in ("backend", "model", "comparison_id", "engine_version", "model_hash"):
        values = sorted({str(value) for run in runs if run.row["status"] == "done" and (value := run.row.get(column)) is not None})
        if len(values) > 1:
            raise StoreError(
                f"{side}: {cell}: {len(values)} values of {column}: {', '.join(values)}",
                hint=f"choose one: {side}{',' if ':' in side else ':'}{column}={values[0]}",
            )


def _nearest(ours: dict[Any, list[ArmRun]], theirs: dict[Any, list[ArmRun]], key: Sequence[str]) -> str:
    """In what the first cells differ, where they are near."""
    for a in ours:
        for b in theirs:
            off = [name for name, x, y in zip(key, a, b, strict=True) if x != y]
            if len(off) <= 2:
                return ": " + ", ".join(f"{name} {a[key.index(name)]} and {b[key.index(name)]}" for name in off)
    return ""


_ONE_START = "one start on a side: the spread between starts is unknown; measure 3 or more per arm (--repeats)"
_MATCHED = (
    "cells match by model, backend, variant, workload, load and loop; name what may differ on both sides: FOLDER:backend=A FOLDER:backend=B"
)

"""The report as one self-contained HTML file: opens offline, loads nothing, and its Content-Security-Policy forbids it to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.analyse import co_run
from profiler.analyse.quality_words import at_a_glance, verdict_words
from profiler.analyse.spread import by_cell
from profiler.report import document, figures, goodput, quality_figures, quality_page, runs, telemetry, trust
from profiler.report.answer import answers
from profiler.report.choice import Choice, choices, counts
from profiler.report.selection import Selection, label
from profiler.units import format_duration, format_size, load_label

if TYPE_CHECKING:
    from profiler.analyse.fit import Answer
    from profiler.report.figures import Figure

DEFINITIONS = (
    ("TTFT", "arrival of the first read that carries an output token − intended send. In a closed loop the intended send is the moment the user's slot became free."),
    ("TPOT", "(last token arrival − first token arrival) / (output tokens − tokens in the first read); without TTFT; none for an answer of one token."),
    ("output tokens/s", "output tokens whose arrival falls inside the window / length of the window."),
    ("goodput", "requests of the cohort that keep every threshold of the target / length of the window."),
    ("cohort, n", "the requests whose intended send falls in the window; load goes on until each of them is done. Failed and unfinished ones count as infinitely late."),
    ("percentile", "an order statistic, no interpolation, with exact binomial bounds at 95 %."),
    ("closed loop, open loop", "closed: a fixed number of users, each waits for an answer before asking again. Open: requests arrive at a rate, whatever the server does."),
    ("FITS, FAILS, UNDECIDED", "proven by exact binomial bounds on the share of requests that miss the target; what n does not allow is UNDECIDED. It holds for the load and loop it stands at. One engine start screens; three or more decide, by bounds over starts."),
    ("valid, suspect, invalid", "what a run says of its own measurement; a suspect run proves no FITS, an invalid one proves nothing."),
    ("measured, imported, predicted", "the provenance class: measured here, taken from another tool's figures, or computed. They are never ranked together."),
)  # fmt: skip
FACTS = "report-facts"  # the block by which `profile report --index` knows a report


def write(selection: Selection, out: Path, planned: Answer | None = None) -> Path:
    """Write the report (with the section of a planner's answer) beside `out` and rename it into place; returns `out`. Raises ReportError when it cannot be written."""
    return document.write(render(selection, planned), out)


def render(selection: Selection, planned: Answer | None = None) -> str:
    """The page. Text from anywhere (model names, answers, errors) is escaped; numbers are those of the runs' columns."""
    filters = {"joules": telemetry.joules, "duration": format_duration, "size": format_size, "number": _number, "percent": _percent}
    environment = document.environment(filters)
    script = document.asset("table.js") + document.asset("report.js") + document.asset("draw.js")
    library, library_hash = document.packed_plotly()
    per_workload = {name: _figures(selection, name) for name in selection.workloads}
    planning = _planning(planned) if planned is not None else None
    drawn = [figure for parts in per_workload.values() for group in parts.values() for figure in group]
    of_quality = quality_page.section(selection)
    quality_drawn = quality_figures.all_of(selection) if of_quality is not None else []
    drawn += quality_drawn
    drawn += [figure for part in (planning or ()) for figure in part["figures"]]
    keys = _element_ids(figure.key for figure in drawn)
    chosen = choices(selection)
    return environment.get_template("report.html").render(
        title=_title(selection),
        selection=selection,
        choices=chosen,
        answers={answer.workload: answer for answer in answers(selection)},
        trust=trust.header(selection, planned),
        quality=of_quality,
        quality_figures=quality_drawn,
        planning=planning,
        planned=planned,
        verdicts={name: _matrix(selection, name) for name in selection.workloads},
        figures=per_workload,
        keys=keys,
        data={keys[figure.key]: document.script_json(json.loads(figure.plot.to_json())) for figure in drawn},
        no_energy=_no_energy(selection),
        samples=_samples(selection),
        definitions=DEFINITIONS,
        label=label,
        load_label=load_label,
        together=selection.together,
        spreads=by_cell(selection.rows),
        shared=co_run.pairs(selection.own),
        limits=co_run.limits(selection.own),
        run_facts=runs.facts(selection),
        machines=runs.machines(selection.documents),
        checks=runs.checks,
        models=list(dict.fromkeys(str(row["model"]) for row in selection.rows)),
        style=document.asset("report.css"),
        script=script,
        library=library,
        policy=document.policy(library_hash, document.hash_of(script)),
        facts=document.script_json(facts(selection, chosen)),
        facts_id=FACTS,
        library_hash=library_hash,
        warnings=[*selection.store.warnings, *selection.evaluations.problems, *telemetry.warnings(selection.done)],
    )


def facts(selection: Selection, chosen: Iterable[Choice]) -> dict[str, Any]:
    """What an index says of this report."""
    days = sorted(str(row["started_at"])[:10] for row in selection.rows if row["started_at"])
    return {
        "kind": "report",
        "title": _title(selection),
        "sweep_id": selection.sweep_id,
        "first_day": days[0] if days else None,
        "last_day": days[-1] if days else None,
        "models": _distinct(row["model"] for row in selection.rows),
        "backends": selection.backends,
        "devices": _distinct(row["device"] for row in selection.done),
        "classes": _distinct(row["provenance_class"] for row in selection.rows),
        "runs": len(selection.rows),
        "verdicts": counts(selection.rows),
        "answers": [{"workload": choice.workload, "sentence": choice.headline} for choice in chosen],
    }


def _figures(selection: Selection, workload: str) -> dict[str, list[Figure]]:
    parts = (figures.all_of, goodput.all_of, telemetry.all_of)
    return {name: found for part in parts for name, found in part(selection, workload).items()}


def _element_ids(keys: Iterable[str]) -> dict[str, str]:
    """An id without spaces and markup for each key: ids are named in lists and in the fragments of addresses."""
    made: dict[str, str] = {}
    for key in keys:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", key)
        made[key] = plain if plain not in made.values() else f"{plain}-{len(made)}"
    return made


def _planning(planned: Answer) -> list[dict[str, Any]]:
    """Per workload of a planner's answer: its ranking in words, rows and figures."""
    from profiler.analyse.rightsize import rankings
    from profiler.report import money

    words = {
        "span": money.span_words,
        "replicas": money.replicas_words,
        "point": money.point_words,
        "price": money.qos_price_words,
        "month": money.month_words,
        "idle": money.idle_words,
        "quality": lambda standing: at_a_glance(standing) or verdict_words(standing),
    }
    return [
        {"ranking": r, "own": planned.of(r.workload), "figures": _planned_figures(planned, r.workload), "words": words}
        for r in rankings(planned)
    ]


def _planned_figures(planned: Answer, workload: str) -> list[Figure]:
    from profiler.report import money_figures

    return [*money_figures.all_of(planned, workload), *quality_figures.of_answer(planned, workload)]


def _matrix(selection: Selection, workload: str) -> dict[str, dict[tuple[str, float], list[Any]]]:
    """backend -> load point -> the runs there (several only when the cell was repeated)."""
    matrix: dict[str, dict[tuple[str, float], list[Any]]] = {backend: {} for backend in selection.backends}
    for row in selection.of(workload):
        matrix[row["backend"]].setdefault((row["load_kind"], row["load"]), []).append(row)
    return {backend: cells for backend, cells in matrix.items() if cells}


def _no_energy(selection: Selection) -> str | None:
    """Why there is no energy figure; None where there is one."""
    if not selection.done or any(row["energy_j"] is not None for row in selection.done):
        return None
    return "; ".join(_distinct(row["energy_reason"] for row in selection.done)) or "no run says why"


def _samples(selection: Selection) -> list[dict[str, str]]:
    """One answer per workload and backend: that real text came out, for every variant."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for run, row in zip(selection.documents, selection.rows, strict=True):
        for sample in run.get("samples") or ():
            key = (row["workload"], row["backend"])
            if sample.get("answer") and key not in found:
                found[key] = {
                    "workload": row["workload"],
                    "backend": row["backend"],
                    "model": str(row["model"]),
                    "variant": str(row["variant"]),
                    **sample,
                }
    return list(found.values())


def _title(selection: Selection) -> str:
    """`MODEL on DEVICE`; of the null engine, which serves no model, the engine's name."""
    models = _distinct(row["model"] for row in selection.rows) or [f"{engine} engine" for engine in _distinct(row["engine"] for row in selection.rows)]  # fmt: skip
    devices = _distinct(row["device"] for row in selection.done)
    return f"{_some(models)} on {_some(devices) or 'an undeclared device'}"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _number(value: float | None, digits: int = 0) -> str:
    return "—" if value is None else f"{value:,.{digits}f}"

"""One self-contained HTML file: opens offline, loads nothing, and its Content-Security-Policy forbids it to."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.analyse import co_run
from profiler.analyse.spread import by_cell
from profiler.errors import ReportError
from profiler.plan import load_label
from profiler.report import figures, telemetry, trust
from profiler.report.answer import answers
from profiler.report.selection import Selection, label
from profiler.units import format_duration

if TYPE_CHECKING:
    from profiler.analyse.fit import Answer

DEFINITIONS = (
    ("TTFT", "arrival of the first read that carries an output token − intended send. In a closed loop the intended send is the moment the user's slot became free."),
    ("TPOT", "(last token arrival − first token arrival) / (output tokens − tokens in the first read); without TTFT; none for an answer of one token."),
    ("output tokens/s", "output tokens whose arrival falls inside the window / length of the window."),
    ("cohort, n", "the requests whose intended send falls in the window; load goes on until each of them is done. Failed and unfinished ones count as infinitely late."),
    ("percentile", "an order statistic, no interpolation, with exact binomial bounds at 95 %."),
    ("FITS, FAILS, UNDECIDED", "proven by exact binomial bounds on the share of requests that miss the target; what n does not allow is UNDECIDED. It holds for the load and loop it stands at. One engine start screens; three or more decide, by bounds over starts."),
    ("valid, suspect, invalid", "what a run says of its own measurement; a suspect run proves no FITS, an invalid one proves nothing."),
)  # fmt: skip


def write(selection: Selection, out: Path, planned: Answer | None = None) -> Path:
    """Write the report (with the section of a planner's answer) beside `out` and rename it into place; returns `out`. Raises ReportError when it cannot be written."""
    text = render(selection, planned)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            file.write(text)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(out)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ReportError(f"{out}: cannot be written: {reason}", hint="give another file with --out") from error
    return out


def render(selection: Selection, planned: Answer | None = None) -> str:
    """The page. Text from anywhere (model names, answers, errors) is escaped; numbers are those of the runs' columns."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    page = resources.files("profiler.report") / "page"
    script, library = (page / "report.js").read_text(encoding="utf-8"), get_plotlyjs()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"joules": telemetry.joules, "duration": format_duration, "number": _number, "percent": _percent}
    per_workload = {name: figures.all_of(selection, name) | telemetry.all_of(selection, name) for name in selection.workloads}
    drawn = [figure for parts in per_workload.values() for group in parts.values() for figure in group]
    planning = _planning(planned) if planned is not None else None
    drawn += [figure for part in (planning or ()) for figure in part["figures"]]
    by_workload = {answer.workload: answer for answer in answers(selection)}
    return environment.from_string((page / "report.html").read_text(encoding="utf-8")).render(
        title=f"{_models(selection)} on {_device(selection)}",
        selection=selection,
        answers=by_workload,
        trust=trust.header(selection),
        planning=planning,
        planned=planned,
        verdicts={name: _matrix(selection, name) for name in selection.workloads},
        figures=per_workload,
        data={figure.key: _script_json(figure.plot.to_json()) for figure in drawn},
        samples=_samples(selection),
        definitions=DEFINITIONS,
        label=label,
        load_label=load_label,
        together=selection.together,
        spreads=by_cell(selection.rows),
        shared=co_run.pairs(selection.own),
        limits=co_run.limits(selection.own),
        style=(page / "report.css").read_text(encoding="utf-8"),
        script=script,
        library=library,
        policy=_policy(library, script),
        warnings=[*selection.store.warnings, *telemetry.warnings(selection.done)],
    )


def _planning(planned: Answer) -> list[dict[str, Any]]:
    """Per workload of a planner's answer: its ranking in words, rows and figures."""
    from profiler.analyse.rightsize import rankings
    from profiler.report import money, money_figures

    words = {
        "span": money.span_words,
        "replicas": money.replicas_words,
        "point": money.point_words,
        "price": money.qos_price_words,
        "idle": money.idle_words,
    }
    return [
        {"ranking": r, "own": planned.of(r.workload), "figures": money_figures.all_of(planned, r.workload), "words": words}
        for r in rankings(planned)
    ]


def _policy(*scripts: str) -> str:
    """Scripts by hash and nothing from anywhere. Plotly writes style attributes and makes its images from blobs."""
    hashes = " ".join("'sha256-" + base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() + "'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def _script_json(text: str) -> str:
    """JSON that is safe inside a script element: no `<` at all, so neither an end tag nor a comment."""
    json.loads(text)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _matrix(selection: Selection, workload: str) -> dict[str, dict[tuple[str, float], list[Any]]]:
    """backend -> load point -> the runs there (several only when the cell was repeated)."""
    matrix: dict[str, dict[tuple[str, float], list[Any]]] = {backend: {} for backend in selection.backends}
    for row in selection.of(workload):
        matrix[row["backend"]].setdefault((row["load_kind"], row["load"]), []).append(row)
    return matrix


def _samples(selection: Selection) -> list[dict[str, str]]:
    """One answer per workload and backend: that real text came out, for every variant."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for document in selection.documents:
        row = document["run"]
        for sample in document.get("samples") or ():
            key = (row["workload"], row["backend"])
            if sample.get("answer") and key not in found:
                found[key] = {"workload": row["workload"], "backend": row["backend"], "variant": str(row["variant"]), **sample}
    return list(found.values())


def _models(selection: Selection) -> str:
    models = dict.fromkeys(str(row["model"]) for row in selection.rows if row["model"])
    return ", ".join(models) or ", ".join(f"{engine} engine" for engine in dict.fromkeys(row["engine"] for row in selection.rows))


def _device(selection: Selection) -> str:
    devices = list(dict.fromkeys(str(row["device"]) for row in selection.done if row["device"]))
    return ", ".join(devices) or "an undeclared device"


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _number(value: float | None, digits: int = 0) -> str:
    return "—" if value is None else f"{value:,.{digits}f}"

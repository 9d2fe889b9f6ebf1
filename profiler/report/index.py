"""The index of a folder of reports: index.html lists each with its answer, ready for any static host. Reads the facts block of each page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from profiler.errors import ReportError
from profiler.report import document
from profiler.report.html import FACTS

INDEX = "index.html"
_BLOCK = re.compile(rf'<script type="application/json" id="{FACTS}">(.*?)</script>', re.S)


@dataclass(frozen=True)
class Listed:
    """One report: `href` is relative to the index; `answers` are (sentence, link to it filtered to its workload)."""

    href: str
    facts: Mapping[str, Any]
    answers: tuple[tuple[str, str], ...]


def write(folder: Path) -> tuple[Path, list[Listed], list[str]]:
    """Write FOLDER/index.html; returns it, what it lists (newest first) and the HTML files left out as no reports. Raises ReportError."""
    if not folder.is_dir():
        raise ReportError(f"{folder}: is not a folder", hint="give the folder that holds the reports")
    found, others = [], []
    for path in sorted(folder.rglob("*.html")):
        if path == folder / INDEX:
            continue
        name = path.relative_to(folder).as_posix()
        facts = read(path)
        if facts is None:
            others.append(name)
        else:
            found.append(_listed(name, facts))
    found.sort(key=lambda one: str(one.facts["last_day"] or ""), reverse=True)
    script = document.asset("table.js")
    text = (
        document.environment({})
        .get_template("index.html")
        .render(
            reports=found,
            style=document.asset("report.css"),
            script=script,
            policy=document.policy(document.hash_of(script)),
        )
    )
    return document.write(text, folder / INDEX, "give another folder with --index"), found, others


def read(path: Path) -> dict[str, Any] | None:
    """The facts of a report; None of any other file. Raises ReportError when it cannot be read."""
    try:
        found = _BLOCK.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror}", hint="mend its permissions or take it out") from error
    try:
        facts = json.loads(found.group(1)) if found else None
    except ValueError:
        return None
    wanted = {"title", "last_day", "models", "backends", "devices", "classes", "runs", "verdicts", "answers"}
    return facts if isinstance(facts, dict) and wanted <= facts.keys() else None


def _listed(name: str, facts: Mapping[str, Any]) -> Listed:
    href = quote(name)
    several = len(facts["answers"]) > 1
    links = (
        href + "#" + urlencode({"workload": a["workload"], "at": "verdicts"}) if several else href + "#verdicts" for a in facts["answers"]
    )
    return Listed(href, facts, tuple((str(a["sentence"]), link) for a, link in zip(facts["answers"], links, strict=True)))

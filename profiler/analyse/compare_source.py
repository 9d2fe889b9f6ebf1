"""What `profile compare` takes for BASE and NEW: a results folder, a sweep, a run, or a choice of runs by their columns.

results/                          all its runs
results:backend=vllm-cpu-bf16     those whose columns are so; several with commas; an id may be cut short
results:sweep=ID   sweep:ID       one sweep, of the folder or of --results; sweep:latest, sweep:latest~1 (the one before)
results:run=ID     run:ID   ID    one run; a bare name is a run, a sweep's id or a sweep's name
results:since=2026-11-24          by started_at, UTC; before=… is the other end
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from profiler import catalog
from profiler.analyse import compare_arms
from profiler.analyse.compare_arms import Arm
from profiler.errors import StoreError, UnknownNameError, UsageError
from profiler.store import schema
from profiler.store.store import Store

WORDS = ("sweep", "run", "since", "before")
_COLUMNS = {column.name: column.type for column in schema.RUNS}
_CHOICE = re.compile(r"(?:(?P<folder>[^=]*?):)?(?P<pairs>[a-z_0-9]+=.*)$")
_LATEST = re.compile(r"latest(?:~([0-9]+))?$")
Row = Mapping[str, Any]


def arm(text: str, results: Path, stores: dict[Path, Store] | None = None) -> Arm:
    """The runs that `text` names. Raises UsageError, StoreError. `stores` are shared between the arms, so that each folder is read once."""
    folder, chosen = _split(text, results)
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such results folder", hint="give FOLDER, FOLDER:backend=NAME, sweep:ID or run:ID")
    store = (stores if stores is not None else {}).setdefault(folder, Store(folder))
    rows = store.rows()
    if not rows:
        raise StoreError(f"{folder}: no runs in it", hint="`profile sweep` measures some")
    if chosen and chosen[0][0] == "any":  # a bare name
        chosen = [("run" if any(str(row["run_id"]).startswith(chosen[0][1]) for row in rows) else "sweep", chosen[0][1])]
    for name, value in chosen:
        rows = _kept(store, rows, name, value, text)
    documents = [store.run(str(row["run_id"])) for row in rows]
    named = {name for name, _ in chosen}
    if "run" in named:  # one run against another: whatever they are of
        named |= {"backend", "variant", "model"}
    return compare_arms.load(text, store, documents, named)


def _split(text: str, results: Path) -> tuple[Path, list[tuple[str, str]]]:
    """Folder and (column, value) pairs."""
    folder = catalog.results(Path(text).expanduser())
    if folder.is_dir():
        return folder, []
    if found := _CHOICE.match(text):
        inside = Path(found["folder"]).expanduser() if found["folder"] else results
        return catalog.results(inside), [_pair(part, text) for part in found["pairs"].split(",")]
    before, colon, after = text.rpartition(":")
    if colon and before in ("sweep", "run"):
        return catalog.results(results), [(before, after)]
    if colon and catalog.results(Path(before).expanduser()).is_dir():
        raise UsageError(f"{text}: {after!r} chooses nothing", hint="write KEY=VALUE, such as backend=NAME, sweep=ID, engine_version=1.2")
    if "/" in text or not catalog.results(results).is_dir():
        return folder, []
    return catalog.results(results), [("any", text)]


def _pair(part: str, text: str) -> tuple[str, str]:
    name, equals, value = (word.strip() for word in part.partition("="))
    if not equals or not value:
        raise UsageError(f"{text}: {part!r} chooses nothing", hint="write KEY=VALUE, such as backend=NAME")
    if name not in WORDS and _COLUMNS.get(name) not in ("string", "int64", "float64"):
        raise UnknownNameError("column of runs", name, [*WORDS, *(c for c, kind in _COLUMNS.items() if kind == "string")])
    return name, value


def _kept(store: Store, rows: Sequence[dict[str, Any]], name: str, value: str, text: str) -> list[dict[str, Any]]:
    if name == "sweep":
        return _sweep(store, rows, value, text)
    if name == "run":
        return _run(rows, value, text)
    if name in ("since", "before"):
        if not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise UsageError(f"{text}: {value!r} is not a day", hint=f"write {name}=2026-11-24 or {name}=2026-11-24T08:00")
        found = [row for row in rows if row["started_at"] and (str(row["started_at"]) >= value) == (name == "since")]
        return found or _none(rows, text, f"no run {name} {value}")
    found = [row for row in rows if _same(row.get(name), value, name)]
    known = sorted({str(row[name]) for row in rows if row.get(name) is not None})
    return found or _none(rows, text, f"no run with {name} {value!r}", f"there are: {', '.join(known[:8]) or 'none with a value'}")


def _same(seen: Any, value: str, name: str) -> bool:
    if _COLUMNS[name] == "string":
        return seen is not None and (str(seen) == value or (name.endswith(("_id", "_hash")) and str(seen).startswith(value)))
    try:
        return seen is not None and float(seen) == float(value)
    except ValueError:
        return False


def _run(rows: Sequence[dict[str, Any]], value: str, text: str) -> list[dict[str, Any]]:
    found = [row for row in rows if str(row["run_id"]).startswith(value)]
    if len(found) > 1:
        raise StoreError(f"{text}: {len(found)} runs begin so", hint="`profile results ls` shows the ids")
    return found or _none(rows, text, f"no run called {value!r}")


def _sweep(store: Store, rows: Sequence[dict[str, Any]], value: str, text: str) -> list[dict[str, Any]]:
    """The runs of one sweep, and of its cells that another one had measured before it."""
    newest = {str(row["sweep_id"]): row["run_id"] for row in rows}
    ordered = sorted(newest, key=lambda name: str(newest[name]), reverse=True)
    if latest := _LATEST.match(value):
        back = int(latest.group(1) or 0)
        if back >= len(ordered):
            return _none(rows, text, f"there are {len(ordered)} sweeps")
        sweep_id = ordered[back]
    else:
        found = [name for name in ordered if name.startswith(value)]
        found = found or sorted({str(row["sweep_id"]) for row in rows if row["sweep_name"] == value})
        if len(found) != 1:
            _none(rows, text, f"{'no sweep' if not found else f'{len(found)} sweeps'} called {value!r}")
        sweep_id = found[0]
    own = [row for row in rows if row["sweep_id"] == sweep_id]
    # Its other cells had been measured before it; those that it measured itself are its own runs alone.
    cells = set(store.run(str(own[-1]["run_id"]))["provenance"].get("cells") or ()) - {row["cell_id"] for row in own}
    return [row for row in rows if row["sweep_id"] == sweep_id or row["cell_id"] in cells]


def _none(rows: Sequence[Row], text: str, what: str, hint: str = "`profile results ls` shows the ids") -> list[dict[str, Any]]:
    raise StoreError(f"{text}: {what} among {len(rows)} runs", hint=hint)

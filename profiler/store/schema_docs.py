"""What is made from the schema: docs/schema.md, results/README.md and the JSON Schema of run.json.

`python -m profiler.store.schema_docs` in a checkout writes them anew; a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from profiler.store import schema

JSON_SCHEMA = "profiler/store/run.schema.json"
_JSON_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "int64": {"type": "integer"},
    "int32": {"type": "integer"},
    "float64": {"type": "number"},
    "bool": {"type": "boolean"},
    "list<string>": {"type": "array", "items": {"type": "string"}},
    "list<int32>": {"type": "array", "items": {"type": "integer"}},
}
_NEEDED = ("run_id", "cell_id", "environment_hash", "repeat", "status", "validity")  # what a reader takes no run without
_CHOICES = {
    "status": ("done", "failed", "interrupted"),
    "validity": ("valid", "suspect", "invalid"),
    "provenance_class": ("measured", "imported", "predicted"),
    "load_kind": ("concurrency", "rate"),
    "qos_result": ("FITS", "FAILS", "UNDECIDED"),
}


def markdown() -> str:
    """The text of docs/schema.md."""
    versions = "".join(f"| {version} | {what} |\n" for version, what in schema.HISTORY.items())
    parts = [_INTRO.format(version=schema.SCHEMA_VERSION, json_schema=JSON_SCHEMA, versions=versions)]
    for table, columns in schema.TABLES.items():
        parts.append(f"## {table}\n\n{_WHERE[table]}\n\n{_rows(columns)}\n")
        if table in schema.STORED:
            named = ", ".join(f"`{stored.name}` for `{name}`" for name, stored in schema.STORED[table].items())
            parts.append(f"Its file has {named}:\n\n{_rows(list(schema.STORED[table].values()))}\n")
    return "".join(parts).rstrip() + "\n"


def readme() -> str:
    """The text of results/README.md."""
    return _README.format(version=schema.SCHEMA_VERSION)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of run.json of the present version. Of older versions it holds as well: what came later is not required."""
    columns = {c.name: _property(c) for c in schema.RUNS}
    file = {
        "type": "object",
        "properties": {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "bytes": {"type": "integer", "minimum": 0}},
        "required": ["sha256", "bytes"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "run.json of slm-profiler",
        "description": "One run. Columns are defined in docs/schema.md; keys that are not named here may come and go.",
        "type": "object",
        "properties": {
            "schema_version": {"type": "integer", "minimum": 1, "maximum": schema.SCHEMA_VERSION},
            "run": {"type": "object", "properties": columns, "required": list(_NEEDED), "additionalProperties": False},
            "provenance": {"type": "object", "description": "spec, machine, engine, model and prompts the figures depend on"},
            "quality": {"type": "object", "description": "what the run says of its own measurement"},
            "energy": {"type": "array", "items": {"type": "object"}, "description": "energy in the window by scope"},
            "samples": {"type": "array", "items": {"type": "object"}, "description": "a few answers, as text"},
            "verdicts": {"type": "array", "items": {"type": "object"}, "description": "the QoS verdict with its constraints and bounds"},
            "files": {"type": "object", "additionalProperties": file, "description": "checksums of the run's other files"},
        },
        "required": ["schema_version", "run", "files"],
    }


def json_schema_text() -> str:
    """The text of the file that ships."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


MADE: dict[str, Callable[[], str]] = {"docs/schema.md": markdown, "results/README.md": readme, JSON_SCHEMA: json_schema_text}


def _rows(columns: Sequence[schema.Column]) -> str:
    head = "| column | type | unit | definition | since |\n|---|---|---|---|---|\n"
    return head + "".join(f"| `{c.name}` | {c.type} | {c.unit} | {c.definition.replace('|', '·')} | {c.since} |\n" for c in columns)


def _property(column: schema.Column) -> dict[str, Any]:
    kind = _JSON_TYPES[column.type]
    allowed: dict[str, Any] = {**kind, "type": kind["type"] if column.name in _NEEDED else [kind["type"], "null"]}
    if column.name in _CHOICES:
        allowed["enum"] = [*_CHOICES[column.name], *([] if column.name in _NEEDED else [None])]
    return {**allowed, "description": column.definition + (f" ({column.unit})" if column.unit else "")}


_LAYOUT = """    runs/<yyyy-mm-dd>/<run_id>/
        run.json            columns of `runs`, provenance, quality block, verdicts, samples, checksums of the other files
        requests.parquet    one row per request, warm-up and cool-down included and labelled
        telemetry.parquet   samples of sensors, where there are any
        engine_metrics.parquet  the server's own metrics through the run, where it has any
        engine.log          what the engine printed (its last MiB)
    .incoming/              cells being measured; nobody reads here
    .interrupted/           what was left of cells whose sweep was killed
    .index.jsonl            a cache of the run.json files, in big stores; it may be deleted at any time
"""
_MADE_BY = "<!-- made by `python -m profiler.store.schema_docs`; a test compares the two -->"

_INTRO = (
    f"""# The store's schema

{_MADE_BY}

One immutable folder per run:

{_LAYOUT}"""
    + """
Schema version {version}. Units are in the names and in the Parquet field metadata. Times are CLOCK_MONOTONIC nanoseconds of the machine that
measured; wall time is only in `started_at`. Missing is NULL, never 0, never NaN. Ask with
`profile results sql "select backend, load, output_tps from runs"`, or read the Parquet files with anything. Arrival stamps are exact to 1 µs.
`run.json` has a JSON Schema: [run.schema.json](../{json_schema}).

## Versions

| version | what it brought |
|---|---|
{versions}
`since` below is the version that brought a column. A run of an older version is read through `profiler/store/migrate.py`, step by step; its
files are never rewritten, and columns that came later are NULL. A version is not raised for columns that are only added: an older program
leaves out those it does not know. A run of a newer version is named in a warning and left out; a store of nothing else is an error, one
line, that says to update.

"""
)
_README = f"""# The results folder

{_MADE_BY}

One immutable folder per run:

{_LAYOUT}
Schema version {{version}}: every column with its type, unit and definition is in [docs/schema.md](../docs/schema.md). `reference/` holds
figures that ship with the program.
"""
_WHERE = {
    "runs": "`run.json`, key `run`; DuckDB view `runs`.",
    "requests": "`requests.parquet`; DuckDB view `requests`. The view `tokens` has one row per token-bearing read: run_id, request_id, "
    "t_offset_us (from sent_ns), tokens.",
    "telemetry": "`telemetry.parquet`; DuckDB view `telemetry`, empty where nothing was sampled.",
    "engine_metrics": "`engine_metrics.parquet`; DuckDB view `engine_metrics`, empty where the server has no metrics page. One row per series and "
    "scrape; histogram buckets of the first and last scrape only.",
}


if __name__ == "__main__":
    for path, text in MADE.items():
        Path(path).write_text(text(), encoding="utf-8")

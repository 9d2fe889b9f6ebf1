"""Answers against a JSON Schema (draft 2020-12), by the `jsonschema` library. References are resolved inside the schema only: nothing is fetched."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from profiler.quality import bounded


def check(schema: Any) -> None:
    """Raises ValueError on what is no schema."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"{error.json_path.replace('$', 'the schema', 1)}: {error.message}") from None


def problem(value: Any, schema: Any) -> str | None:
    """Why `value` does not satisfy `schema`, the first reason; None where it does. A schema with patterns is tried with a limit of time."""
    if '"pattern' not in json.dumps(schema):
        return first_problem(value, schema)
    try:
        return bounded.schema_problem(value, schema)
    except bounded.NoAnswer as error:
        return str(error)


def first_problem(value: Any, schema: Any) -> str | None:
    """The same without a limit."""
    try:
        found = next(Draft202012Validator(schema, registry=Registry()).iter_errors(value), None)
    except Unresolvable as error:
        return f"the schema refers to {error.ref!r}, which is not in it"
    except RecursionError:
        return "schema or value are nested too deeply"
    return None if found is None else f"{found.json_path}: {found.message}"

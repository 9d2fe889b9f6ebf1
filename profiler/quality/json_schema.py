"""The part of JSON Schema (draft 2020-12) that answers of a small model are checked with; a keyword that is not known here is an error."""

from __future__ import annotations

import json
import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_PLAIN = ("type", "enum", "const", "required", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems")
_NESTED = ("properties", "items", "additionalProperties")
_NOTES = ("title", "description", "$schema")


def check(schema: Any, where: str = "the schema") -> None:
    """Raises ValueError on what this file cannot judge."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise ValueError(f"{where} must be an object")
    for key, value in schema.items():
        if key not in (*_PLAIN, *_NESTED, *_NOTES):
            raise ValueError(f"{where}: the keyword {key!r} is not supported; known: {', '.join((*_PLAIN, *_NESTED))}")
        if key == "type" and not set(value if isinstance(value, list) else [value]) <= set(_TYPES):
            raise ValueError(f"{where}: no type {value!r}")
        if key == "pattern":
            try:
                re.compile(value)
            except (re.error, TypeError) as error:
                raise ValueError(f"{where}: pattern {value!r}: {error}") from None
        if key == "properties":
            if not isinstance(value, dict):
                raise ValueError(f"{where}: properties must be an object")
            for name, part in value.items():
                check(part, f"{where}.{name}")
        if key in ("items", "additionalProperties"):
            check(value, f"{where}.{key}")


def problem(value: Any, schema: Any, where: str = "$") -> str | None:
    """Why `value` does not satisfy `schema`; None where it does."""
    if isinstance(schema, bool):
        return None if schema else f"{where}: nothing is allowed here"
    wanted = schema.get("type")
    if wanted is not None and not any(_is(value, name) for name in (wanted if isinstance(wanted, list) else [wanted])):
        return f"{where}: not of type {wanted}"
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        return f"{where}: none of the allowed values"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{where}: not the one allowed value"
    found = None
    if isinstance(value, str):
        found = _size(len(value), schema, "minLength", "maxLength", where)
        if found is None and "pattern" in schema and not re.search(schema["pattern"], value):
            found = f"{where}: does not match {schema['pattern']}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = _size(value, schema, "minimum", "maximum", where)
    elif isinstance(value, list):
        found = _size(len(value), schema, "minItems", "maxItems", where)
        parts = (problem(one, schema["items"], f"{where}[{k}]") for k, one in enumerate(value)) if "items" in schema else ()
        found = found or next((part for part in parts if part), None)
    elif isinstance(value, dict):
        found = _object(value, schema, where)
    return found


def _object(value: dict[str, Any], schema: dict[str, Any], where: str) -> str | None:
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{where}: {name} is missing"
    for name, one in value.items():
        part = known.get(name, schema.get("additionalProperties", True))
        found = problem(one, part, f"{where}.{name}")
        if found:
            return found
    return None


def _size(size: float, schema: dict[str, Any], least: str, most: str, where: str) -> str | None:
    if size < schema.get(least, size):
        return f"{where}: {least} is {schema[least]}"
    return f"{where}: {most} is {schema[most]}" if size > schema.get(most, size) else None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _TYPES[name])


def _same(a: Any, b: Any) -> bool:
    """JSON equality: 1 and 1.0 are the same, 1 and true are not."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True) or (
        isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool) and not isinstance(b, bool) and a == b
    )

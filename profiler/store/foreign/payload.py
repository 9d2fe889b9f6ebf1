"""A tool's file as it was read: JSON, JSON lines, YAML or text, with what stood in it that is no number."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from profiler.errors import StoreError
from profiler.store.foreign.table import decode

Kind = Literal["json", "jsonl", "yaml", "text", "table"]


@dataclass(frozen=True)
class Payload:
    """`whole`: a dict or list (json, yaml), a list of objects (jsonl), a str (text), None (table). `not_finite`: dotted places of NaN and
    infinity, each read as missing."""

    path: Path
    sha256: str
    kind: Kind
    whole: Any
    not_finite: tuple[str, ...] = ()


def read(path: Path) -> Payload:
    """Raises StoreError in one line: cannot be read, cut off, neither UTF-8 nor UTF-16."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read: {error.strerror}", hint="give a file of a load generator, or a table with --map"
        ) from error
    digest = hashlib.sha256(raw).hexdigest()
    if raw[:4] == b"PAR1":
        return Payload(path, digest, "table", None)
    text, _ = decode(path, raw)
    start = text.lstrip()[:1]
    if not start:
        raise StoreError(f"{path}: is empty", hint="did the tool end before it wrote its results?")
    if start in "{[":
        kind, whole = _json(path, text)
    elif path.suffix in (".yaml", ".yml"):
        kind, whole = "yaml", _yaml(path, text)
    else:
        return Payload(path, digest, "text", text)
    places: list[str] = []
    return Payload(path, digest, kind, _finite(whole, "", places), tuple(places))


def _json(path: Path, text: str) -> tuple[Kind, Any]:
    try:
        return "json", json.loads(text)
    except RecursionError:
        raise StoreError(f"{path}: JSON nested too deeply", hint="no load generator writes such a file") from None
    except ValueError as error:
        first_line = text.lstrip().partition("\n")[0]
        try:
            json.loads(first_line)
        except ValueError:
            raise StoreError(f"{path}: not JSON ({error})", hint="is the file cut off? let the tool write it again") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise StoreError(f"{path}, line {number}: not JSON ({error})", hint="is the file cut off?") from error
    return "jsonl", rows


def _yaml(path: Path, text: str) -> Any:
    import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise StoreError(f"{path}: not YAML ({' '.join(str(error).split())[:160]})", hint="is the file cut off?") from error


def _finite(value: Any, place: str, places: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        places.append(place)
        return None
    if isinstance(value, dict):
        return {key: _finite(item, f"{place}.{key}" if place else str(key), places) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item, f"{place}.{index}", places) for index, item in enumerate(value)]
    return value


def at(tree: Any, dotted: str) -> Any:
    """What stands at `a.b.0.c`; None where the way ends early."""
    for key in dotted.split("."):
        if isinstance(tree, dict):
            tree = tree.get(key)
        elif isinstance(tree, list) and key.isdigit() and int(key) < len(tree):
            tree = tree[int(key)]
        else:
            return None
    return tree


def number(value: Any) -> float | None:
    """A JSON number, else None: true is none, and texts are not guessed at."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None

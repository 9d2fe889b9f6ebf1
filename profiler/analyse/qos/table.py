"""A target as a TOML table: each key is the left side of a condition, its value the rest; read by the one parser.

[qos]
ttft_p95 = "<=500ms"
output_tps = ">=100"

[[qos.joint]]
percent = 99
ttft = "<=500ms"
tpot = "<=50ms"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiler.analyse.qos.read import parse
from profiler.analyse.qos.target import QosTarget
from profiler.errors import QosError


def load(text: str) -> QosTarget:
    """What a user gives as --qos: a target, a preset, or a TOML file (its [qos] table, or the whole file). Raises QosError."""
    if not text.strip().lower().endswith(".toml"):
        return parse(text)
    path = Path(text.strip()).expanduser()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QosError(f"{path}: cannot be read: {error.strerror}", hint="docs/qos.md has an example") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QosError(f"{path}: not valid TOML: {error}", hint="docs/qos.md has an example") from error
    table = raw.get("qos", {key: value for key, value in raw.items() if key != "quality"})  # [quality]: profiler.analyse.margins
    if isinstance(table, str):
        return parse(table)
    if not isinstance(table, dict):
        raise QosError(f"{path}: qos: must be a table or a text", hint='write qos = "chat", or a [qos] table')
    return of_table(table, str(path))


def of_table(table: Mapping[str, Any], where: str = "qos") -> QosTarget:
    """The target of a table. Raises QosError that names the key."""
    clauses, joints = [], []
    for key, value in table.items():
        if key == "preset":
            clauses += [str(c) for c in _read(str(value), f"{where}: preset").constraints if c.kind != "joint"]
            joints += [str(c) for c in _read(str(value), f"{where}: preset").constraints if c.kind == "joint"]
        elif key == "joint":
            if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
                raise QosError(f"{where}: joint: must be tables", hint="write [[qos.joint]] with percent and the limits")
            joints += [_joint(row, f"{where}: joint {n}") for n, row in enumerate(value, 1)]
        else:
            clauses.append(_condition(key, value, f"{where}: {key}"))
    if not clauses and not joints:
        raise QosError(f"{where}: no condition", hint='write e.g. ttft_p95 = "<=500ms"')
    return parse("; ".join([*([", ".join(clauses)] if clauses else []), *joints]))


def to_table(target: QosTarget) -> dict[str, Any]:
    """The table that reads back to the same conditions, joint ones last. Raises QosError where one is asked twice: a table has each key once."""
    table: dict[str, Any] = {}
    joints = []
    for c in target.constraints:
        if c.kind == "joint":
            row: dict[str, Any] = {"percent": c.percent}
            for limit in c.limits:
                if limit.metric in row:
                    raise QosError(f"{limit.metric}: twice in one condition", hint="leave the looser one out")
                row[limit.metric] = str(limit).removeprefix(limit.metric)
            joints.append(row)
            continue
        text = str(c)
        key = text[: min(text.index(sign) for sign in "<>" if sign in text)]
        if key in table:
            raise QosError(f"{key}: twice", hint="leave the looser one out")
        table[key] = text.removeprefix(key)
    return table | ({"joint": joints} if joints else {})


def _condition(key: str, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise QosError(f"{where}: must be a text with its sign (got {value!r})", hint='write e.g. ttft_p95 = "<=500ms"')
    text = f"{key}{value}"
    found = _read(text, where)
    if len(found.constraints) != 1:
        raise QosError(f"{where}: one condition for each key (got {value!r})", hint="give the others keys of their own")
    return text


def _joint(row: Mapping[str, Any], where: str) -> str:
    if "percent" not in row or len(row) < 2:
        raise QosError(f"{where}: needs percent and at least one limit", hint='write percent = 99 and ttft = "<=500ms"')
    limits = ", ".join(f"{key}{value}" for key, value in row.items() if key != "percent")
    text = f"{row['percent']}% of requests: {limits}"
    _read(text, where)
    return text


def _read(text: str, where: str) -> QosTarget:
    try:
        return parse(text)
    except QosError as error:
        raise QosError(f"{where}: {error.message}", hint=error.hint, detail=error.detail) from None

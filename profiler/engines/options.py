"""Checks a backend's `[options]` table: each engine declares its own keys, a wrong one is refused with "did you mean"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from profiler.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

Check = Callable[[Any], str | None]  # None if the value is right, else what it must be


def one_of(*values: str) -> Check:
    return lambda v: None if v in values else f"one of {', '.join(values)}"


def integer(least: int) -> Check:
    return lambda v: None if type(v) is int and v >= least else f"a whole number of at least {least}"


def number(least: float) -> Check:
    return lambda v: None if type(v) in (int, float) and v >= least else f"a number of at least {least:g}"


def boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text"


def share(value: Any) -> str | None:
    return None if type(value) in (int, float) and 0 < value <= 1 else "a share above 0 and up to 1"


def texts(value: Any) -> str | None:
    return None if isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value) else "a list of texts"


def table(value: Any) -> str | None:
    return None if isinstance(value, Mapping) and value else "a table"


def table_of_texts(value: Any) -> str | None:
    return table(value) or (texts(list(value.values())) and "a table of texts")


def check(backend: BackendSpec, known: Mapping[str, Check]) -> None:
    """Raises SpecError that names the backend and the key."""
    for key, value in backend.options.items():
        where = f"backend {backend.name}: options.{key}"
        if key not in known:
            raise SpecError(f"{where}: unknown option", hint=did_you_mean(key, known) or f"known options: {', '.join(sorted(known))}")
        wanted = known[key](value)
        if wanted:
            raise SpecError(f"{where}: must be {wanted} (got {value!r})")

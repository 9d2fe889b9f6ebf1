"""One TOML file, or one mapping, to one spec. Errors name the file and the key, and what would have been right."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from profiler.errors import SpecError, did_you_mean

Spec = TypeVar("Spec", bound=BaseModel)


def load_spec(path: Path, kind: type[Spec]) -> Spec:
    """Read and validate one TOML file; `name` defaults to the file's stem. Raises SpecError naming file and key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}", hint="give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid TOML: {error}", hint="see docs/specs.md for an example") from error
    raw.setdefault("name", path.stem)
    return validate_spec(raw, kind, str(path))


def validate_spec(raw: Mapping[str, Any], kind: type[Spec], where: str) -> Spec:
    """Validate a mapping as a spec. `where` is named in errors (a file, or "the command line")."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _as_spec_error(error, kind, where) from None


def _as_spec_error(error: ValidationError, kind: type[BaseModel], where: str) -> SpecError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    hint: str | None
    if first["type"] == "extra_forbidden":
        known = _keys_beside(kind, first["loc"])
        hint = did_you_mean(str(first["loc"][-1]), known) or f"known keys: {', '.join(sorted(known))}"
        message = f"{where}: {key}: unknown key"
    elif first["type"] == "missing":
        message, hint = f"{where}: {key}: missing", "add the key; docs/specs.md shows each one"
    else:
        text = first["msg"].removeprefix("Value error, ")
        message, hint = f"{where}: {key or kind.__name__}: {text} (got {_short(first['input'])})", None
    more = len(error.errors()) - 1
    return SpecError(message + (f" (and {more} more)" if more else ""), hint=hint)


def _keys_beside(kind: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys that would have been right at the place of a wrong one."""
    candidates: list[type[BaseModel]] = [kind]
    for part in loc[:-1]:
        found = (
            [m for c in candidates for m in _models_in(c.model_fields[str(part)].annotation) if str(part) in c.model_fields]
            if any(str(part) in c.model_fields for c in candidates)
            else candidates
        )
        candidates = found or candidates
    return {name for c in candidates for name in c.model_fields}


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in get_args(annotation) for m in _models_in(arg)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

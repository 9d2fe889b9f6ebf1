"""Engines by name. Built-ins and plug-ins enter by the same door: entry points in the group `slm_profiler.engines`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from profiler.errors import EngineError, UnknownNameError

if TYPE_CHECKING:
    from profiler.engines.protocol import Engine

GROUP = "slm_profiler.engines"


def names() -> list[str]:
    """All engine names, sorted; loads none of them."""
    return sorted(_entries())


def get(name: str) -> Engine:
    """The engine called `name`. Raises UnknownNameError, or EngineError when a plug-in cannot be imported."""
    entries = _entries()
    if name not in entries:
        raise UnknownNameError("engine", name, entries)
    entry = entries[name]
    try:
        return cast("Engine", entry.load())
    except Exception as error:
        package = entry.dist.name if entry.dist else entry.value
        raise EngineError(
            f"engine {name!r} cannot be loaded: {error}", hint=f"it comes from {package}: reinstall or remove that package"
        ) from error


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}

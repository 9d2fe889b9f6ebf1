"""Every error this program raises on purpose.

* ProfilerError: something the user can act on; `exit_code` 1
    * UsageError: the request itself is wrong; `exit_code` 2
        * SpecError: a TOML file, key or value (names file:key and what would be right)
        * QosError: a QoS target that does not parse (points at the character)
        * UnknownNameError: no such backend, workload, model, engine (did you mean ...)
    * ModelError: a model that cannot be found, read, checked or converted
    * EnvironmentError_: an engine environment that cannot be built or used
    * EngineError: an engine that cannot start, or died (carries the log's last lines)
    * LoadError: the load driver could not do its work
    * StoreError: a results store that cannot be read or written
    * ReportError: a report that cannot be made

Library code raises these; only `profiler.cli` catches them and prints one line, a hint and an exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProfilerError(Exception):
    """`message`: what was wrong and where, one line. `hint`: what would be right, or the command that mends it."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail  # longer evidence, such as the tail of an engine's log


class UsageError(ProfilerError):
    exit_code = 2


class SpecError(UsageError):
    pass


class QosError(UsageError):
    pass


class UnknownNameError(UsageError):
    """A name that is not in a list; the hint offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"no {kind} called {name!r}", hint=did_you_mean(name, names) or f"known: {', '.join(names)}")


class ModelError(ProfilerError):
    pass


class EnvironmentError_(ProfilerError):
    pass


class EngineError(ProfilerError):
    pass


class LoadError(ProfilerError):
    pass


class StoreError(ProfilerError):
    pass


class ReportError(ProfilerError):
    pass


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A "did you mean ..." sentence for the nearest known names, or None when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else None

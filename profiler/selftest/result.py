"""What one check of the self-test found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "not run"]


@dataclass(frozen=True)
class Result:
    """`name` is the check, with the backend it was run on after a space. `reason`: of a failure or of not running, one line."""

    name: str
    status: Status
    reason: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)  # units in the keys


def of(name: str, problems: list[str], **figures: Any) -> Result:
    """Passed if there are no problems."""
    return Result(name, "failed" if problems else "passed", "; ".join(problems) or None, figures)


def not_run(name: str, reason: str) -> Result:
    return Result(name, "not run", reason)

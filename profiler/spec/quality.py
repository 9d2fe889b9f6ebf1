"""What of a sweep's backends is evaluated beside their speed: docs/quality.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from profiler.spec.backend import Strict


def share(value: object) -> object:
    """`"10%"` as 0.1. Raises ValueError for a share that is not between 0 and 1."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            value = float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{value!r} is not a share such as 10%") from None
    if isinstance(value, (int, float)) and not 0 < value < 1:
        raise ValueError("a share must be above 0% and below 100%")
    return value


class QualitySpec(BaseModel):
    """An empty table asks the text and the examples that ship, and gives no verdict."""

    model_config = Strict
    text: str | None = None  # a file in UTF-8; None: the one that ships
    tasks: str | None = None  # JSON lines of examples; None: those that ship, too few to rank models
    margin: Annotated[float, BeforeValidator(share)] | None = None  # how far the pass rate may fall
    drift_margin: Annotated[float, BeforeValidator(share)] | None = None  # how far the perplexity may rise
    reference: str | None = None  # the backend the others are compared with; None: the first of the sweep
    parallel: int | None = Field(default=None, ge=1)  # asked at once; None: the most that changes no answer, found by asking

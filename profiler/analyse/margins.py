"""How much worse than the reference may be: what a user states with --margin, --drift-margin, --reference, or as [quality] in a TOML target.

[quality]
margin = "5%"          # of the pass rate
drift_margin = 0.02    # of the perplexity
reference = "openvino-xeon-bf16"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import SpecError, did_you_mean

KEYS = ("margin", "drift_margin", "reference", "text", "tasks")  # the last two say what is evaluated: nothing that an answer needs


@dataclass(frozen=True)
class Margins:
    """`margin`: of the pass rate, `drift_margin`: of the perplexity, both shares; None: no verdict on that part. `reference`: a backend."""

    margin: float | None = None
    drift_margin: float | None = None
    reference: str | None = None

    @property
    def stated(self) -> bool:
        return self.margin is not None or self.drift_margin is not None

    def over(self, other: Margins) -> Margins:
        """These, and of `other` what these leave open: options over a file."""
        return Margins(
            self.margin if self.margin is not None else other.margin,
            self.drift_margin if self.drift_margin is not None else other.drift_margin,
            self.reference if self.reference is not None else other.reference,
        )

    @property
    def words(self) -> str:
        """`perplexity at most 2 % above, pass rate at most 5 points below`."""
        parts = [f"perplexity at most {self.drift_margin * 100:g} % above"] if self.drift_margin is not None else []
        parts += [f"pass rate at most {self.margin * 100:g} points below"] if self.margin is not None else []
        return ", ".join(parts) or "no margin was stated"

    @property
    def options(self) -> str:
        """As one would type them, to evaluate by the same margins."""
        parts = [f"--drift-margin {self.drift_margin * 100:g}%"] if self.drift_margin is not None else []
        return " ".join(parts + ([f"--margin {self.margin * 100:g}%"] if self.margin is not None else []))


NONE_STATED = Margins()


def share(where: str, value: Any) -> float | None:
    """`5%`, `"0.05"` or 0.05; None stays None. Raises SpecError."""
    if value is None:
        return None
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = 0.0
    if isinstance(value, bool) or not 0 < number < 1:
        raise SpecError(f"{where} {text!r}: not a share between 0 and 1", hint="write 5% or 0.05")
    return number


def given(margin: str | None = None, drift_margin: str | None = None, reference: str | None = None) -> Margins:
    """Of the options. Raises SpecError."""
    return Margins(share("--margin", margin), share("--drift-margin", drift_margin), reference)


def of_table(table: Any, where: str) -> Margins:
    """Of a [quality] table. Raises SpecError that names the key."""
    if not isinstance(table, Mapping):
        raise SpecError(f"{where}: quality: must be a table", hint="write [quality]")
    for key in table:
        if key not in KEYS:
            raise SpecError(f"{where}: quality.{key}: unknown key", hint=did_you_mean(key, KEYS) or f"known keys: {', '.join(KEYS)}")
    reference = table.get("reference")
    if reference is not None and not isinstance(reference, str):
        raise SpecError(f"{where}: quality.reference: must be the name of a backend (got {reference!r})")
    margin, drift_margin = (share(f"{where}: quality.{key}", table.get(key)) for key in ("margin", "drift_margin"))
    return Margins(margin, drift_margin, reference)


def of_target(qos: str) -> Margins:
    """Of the file that was given as --qos; none where it was no file. The target itself was read before, so the file is sound."""
    if not qos.strip().lower().endswith(".toml"):
        return NONE_STATED
    path = Path(qos.strip()).expanduser()
    return of_table(tomllib.loads(path.read_text(encoding="utf-8")).get("quality", {}), str(path))

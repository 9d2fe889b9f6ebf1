"""What an evaluation came to: as a table with its notes, or as JSON. For `profile evaluate` and for the `[quality]` of a sweep."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from profiler.analyse.quality_rows import Row


@dataclass(frozen=True)
class Evaluated:
    """`failed`: why a backend has no document. Margins are shares; None: that part gets no verdict."""

    reference: str
    margin: float | None
    drift_margin: float | None
    documents: list[dict[str, Any]]
    results: Path  # the folder that they are in
    failed: dict[str, str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> list[Row]:
        from profiler.analyse.quality_rows import rows

        reference = next((document for document in self.documents if document["backend"]["name"] == self.reference), None)
        return rows(self.documents, reference, self.drift_margin, self.margin, self.results)

    @property
    def proven(self) -> bool:
        """Whether every variant is NON-INFERIOR; nothing is proven of a reference alone."""
        compared = [row for row in self.rows if not row.is_reference]
        return not self.failed and bool(compared) and all(row.verdict == "NON-INFERIOR" for row in compared)

    def told(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "margin": self.margin,
            "drift_margin": self.drift_margin,
            "failed": self.failed,
            "determinism": {document["backend"]["name"]: document.get("determinism") for document in self.documents},
            "variants": [asdict(row) for row in self.rows],
        }

    def show(self) -> None:
        from profiler.cli import evaluate_show

        evaluate_show.show(self.rows, self.documents, self.failed)

"""Names for what a store measured: the backend, and what else it takes to tell the rows of one answer apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

APART = ("model", "variant", "machine_id")  # what a backend's name does not say, the more telling first


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One for each row: `vllm-cpu-bf16`, with ` · MODEL` where the rows have several models of that backend, and so on through APART."""
    return [str(row["backend"]) + "".join(f" · {row.get(key) or f'no {key}'}" for key in _telling(row, rows)) for row in rows]


def _telling(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    same = [other for other in rows if other["backend"] == row["backend"]]
    found = []
    for key in APART:
        # The device stands beside a name: machines are told apart only where it does not.
        alike = [other for other in same if key != "machine_id" or other.get("device") == row.get("device")]
        if len({other.get(key) for other in alike}) > 1:
            found.append(key)
        same = [other for other in same if other.get(key) == row.get(key)]
    return found

"""Some of the runs of a store, read through the same methods: what analyses and figures are given when only a part is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from profiler.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from profiler.records import RequestRecord
    from profiler.store.store import Store

Some = str | Iterable[str]


class Where(TypedDict, total=False):
    """Which runs: columns of `runs`, each one value or several. Conditions are joined by "and"."""

    run_id: Some
    sweep_id: Some
    cell_id: Some
    model: Some
    variant: Some
    backend: Some
    engine: Some
    engine_version: Some
    device: Some
    machine_id: Some
    comparison_id: Some
    workload: Some
    load_kind: Some
    load: float | Iterable[float]
    repeat: int | Iterable[int]
    start_id: Some
    status: Some
    validity: Some
    provenance_class: Some


class Part:
    """The runs named by `run_ids` of `store`, oldest first. Runs are immutable, so a part never changes."""

    def __init__(self, store: Store, run_ids: Iterable[str]) -> None:
        self._store = store
        self.run_ids = tuple(dict.fromkeys(run_ids))
        self._wanted = frozenset(self.run_ids)

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def warnings(self) -> list[str]:
        return self._store.warnings

    def rows(self) -> list[dict[str, Any]]:
        return [row for row in self._store.rows() if row["run_id"] in self._wanted]

    def runs(self) -> pd.DataFrame:
        frame = self._store.runs()
        return frame[frame["run_id"].isin(self._wanted)].reset_index(drop=True)

    def run(self, run_id: str) -> dict[str, Any]:
        return self._store.run(run_id)

    def records(self, run_ids: Iterable[str]) -> dict[str, list[RequestRecord]]:
        return self._store.records(self._wanted & set(run_ids))

    def requests(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        return self._store.requests(self._wanted if run_ids is None else self._wanted & set(run_ids))

    def telemetry(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        return self._store.telemetry(self._wanted if run_ids is None else self._wanted & set(run_ids))

    def view(self, name: str) -> pd.DataFrame:
        """All columns of the DuckDB view `name` (tokens, engine_metrics) of these runs."""
        ids = ", ".join("'" + run_id.replace("'", "''") + "'" for run_id in self.run_ids)
        return self._store.sql(f"SELECT * FROM {name} WHERE run_id IN ({ids or 'NULL'})")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def choose(rows: Iterable[Mapping[str, Any]], where: Where) -> list[str]:
    """run_ids of the rows that meet every condition. Raises UsageError for an unknown column, UnknownNameError for a value no run has."""
    chosen = list(rows)
    for column, asked in where.items():
        if column not in Where.__annotations__:
            raise UsageError(f"runs are not chosen by {column!r}", hint=f"by {', '.join(sorted(Where.__annotations__))}")
        values = {asked} if isinstance(asked, str | int | float) else set(asked)  # type: ignore[call-overload]
        known = {row[column] for row in chosen}
        for value in values - known:
            raise UnknownNameError(f"{column} among these runs", str(value), [str(name) for name in known if name is not None])
        chosen = [row for row in chosen if row[column] in values]
    return [str(row["run_id"]) for row in chosen]

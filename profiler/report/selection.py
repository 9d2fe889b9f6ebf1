"""What a report is about: the runs of one sweep, newest measurement of each cell, in a reader's order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from profiler.analyse.together import Together, judge_together
from profiler.errors import ReportError
from profiler.plan import load_label

if TYPE_CHECKING:
    import pandas as pd

    from profiler.store.store import Store

Row = Mapping[str, Any]
PRECISIONS = ("f32", "bf16", "fp16", "fp8", "int8", "int4")


@dataclass(frozen=True)
class Selection:
    """`documents` are run.json of the chosen runs, sorted by workload, backend, loop, load, repeat."""

    sweep_id: str
    store: Store
    documents: Sequence[Mapping[str, Any]]

    @property
    def own(self) -> list[Row]:
        """The runs as they are in the store."""
        return [document["run"] for document in self.documents]

    @property
    def rows(self) -> list[Row]:
        """The runs; of a co-run each backend alone and beside the others is a backend of its own, so that no figure mixes them."""
        return [{**row, "backend": _as_shared(row)} if row.get("co_run_with") else row for row in self.own]

    @property
    def done(self) -> list[Row]:
        return [row for row in self.rows if row["status"] == "done"]

    @property
    def workloads(self) -> list[str]:
        return list(dict.fromkeys(row["workload"] for row in self.rows))

    @property
    def backends(self) -> list[str]:
        return list(dict.fromkeys(row["backend"] for row in self.rows))

    @cached_property
    def requests(self) -> pd.DataFrame:
        """All requests of the measured runs, one row each."""
        return self.store.requests({row["run_id"] for row in self.done})

    def together(self, rows: Sequence[Row]) -> Together:
        """The verdict of one cell over its engine starts."""
        wanted = {row["run_id"] for row in rows}
        return judge_together(document for document in self.documents if document["run"]["run_id"] in wanted)

    @cached_property
    def telemetry(self) -> pd.DataFrame:
        """What the sensors said during the measured runs."""
        return self.store.telemetry({row["run_id"] for row in self.done})

    def of(self, workload: str, backend: str | None = None) -> list[Row]:
        return [row for row in self.rows if row["workload"] == workload and backend in (None, row["backend"])]

    def loads(self, workload: str) -> list[tuple[str, float]]:
        """The load points of a workload: closed loops by users, then open loops by rate."""
        return list(dict.fromkeys((row["load_kind"], row["load"]) for row in sorted(self.of(workload), key=_load_order)))

    def load_words(self, workload: str, point: tuple[str, float]) -> str:
        """A load point as a heading: `8 users`, `0.2/s trace FILE …`."""
        row = next(row for row in self.of(workload) if (row["load_kind"], row["load"]) == point)
        return label({**row, "repeat": 0})

    def qos(self, workload: str) -> str | None:
        return next((row["qos"] for row in self.of(workload) if row["qos"]), None)


def select(store: Store, sweep_id: str | None = None) -> Selection:
    """The runs of `sweep_id` (an unambiguous beginning will do), or of the newest sweep. Raises ReportError.

    A sweep that found cells already measured by another one is about those runs as well: each run's document names all cells of its
    sweep. A failed run is left out when the same cell succeeded since.
    """
    frame = store.runs()
    if frame.empty:
        raise ReportError(f"{store.path}: no runs to report", hint="`profile sweep` measures some")
    if sweep_id is None:
        measured = frame[frame["provenance_class"] != "imported"]  # an import is nobody's newest sweep, unless it is all there is
        sweep_id = str((frame if measured.empty else measured).sort_values("run_id")["sweep_id"].iloc[-1])
    found = sorted({str(name) for name in frame["sweep_id"] if str(name).startswith(sweep_id)})
    if len(found) != 1:
        what = "no sweep" if not found else f"{len(found)} sweeps"
        raise ReportError(f"{store.path}: {what} called {sweep_id!r}", hint="`profile results ls` shows the ids")
    own = frame[frame["sweep_id"] == found[0]]["run_id"]
    cells = store.run(str(own.iloc[-1]))["provenance"].get("cells") or []
    return of_cells(store, found[0], cells)


def of_cells(store: Store, sweep_id: str, cells: Collection[str]) -> Selection:
    """The runs of one sweep and of its cells, whoever measured them."""
    frame = store.runs()
    chosen = frame[(frame["sweep_id"] == sweep_id) | frame["cell_id"].isin(list(cells))]
    documents = [store.run(str(run_id)) for run_id in chosen["run_id"]]
    measured = {_key(d["run"]) for d in documents if d["run"]["status"] == "done"}
    kept = [d for d in documents if d["run"]["status"] == "done" or _key(d["run"]) not in measured]
    return Selection(sweep_id, store, sorted(kept, key=_order))


def label(row: Row) -> str:
    """`8 users` or `3/s Poisson`, with the repeat when it is not the first."""
    how = row.get("arrivals") or ("closed" if row["load_kind"] == "concurrency" else "poisson")
    return load_label(row["load_kind"], row["load"], how) + (f" · repeat {row['repeat']}" if row["repeat"] else "")


def _as_shared(row: Row) -> str:
    """`A (alone)` where the others were idle, `A beside B` otherwise."""
    idle = set(str(row["co_run_load"]).split(" + ")) == {"idle"}
    return f"{row['backend']} (alone)" if idle else f"{row['backend']} beside {row['co_run_with']}"


def _key(row: Row) -> tuple[str, int]:
    return row["cell_id"], row["repeat"]


def _load_order(row: Row) -> tuple[str, float]:
    return row["load_kind"], row["load"]  # "concurrency" sorts before "rate"


def _order(document: Mapping[str, Any]) -> tuple[Any, ...]:
    row = document["run"]
    return row["workload"], _precision_rank(row), row["backend"], *_load_order(row), row["repeat"], row["run_id"]


def _precision_rank(row: Row) -> int:
    """Widest precision first, so that a table reads from the reference down. Of `int8-from-q4_1-in-f32` the weights count: int8."""
    name = str(row["variant"] or row["backend"].rpartition("-")[2]).partition("-")[0]
    return PRECISIONS.index(name) if name in PRECISIONS else len(PRECISIONS)

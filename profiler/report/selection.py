"""What a report is about: the runs of one sweep, newest measurement of each cell, in a reader's order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from profiler.analyse.co_run import beside
from profiler.analyse.margins import NONE_STATED, Margins
from profiler.analyse.quality_store import Evaluations, Standing, open_all
from profiler.analyse.together import Together, judge_together
from profiler.errors import ReportError
from profiler.store import schema
from profiler.units import load_label

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from profiler.store.store import Store

Row = Mapping[str, Any]
LATENCIES = ("in_window", "error_kind", "ttft_sched_s", "tpot_s")
PRECISIONS = ("f32", "bf16", "fp16", "fp8", "int8", "int4")


@dataclass(frozen=True)
class Selection:
    """`documents` are run.json of the chosen runs, sorted by workload, backend (of a co-run alone, then beside others), loop, load, repeat."""

    sweep_id: str
    store: Store
    documents: Sequence[Mapping[str, Any]]
    margins: Margins = NONE_STATED  # for quality; with one the answer is of quality and QoS together

    @cached_property
    def own(self) -> list[Row]:
        """The runs as they are in the store."""
        return [document["run"] for document in self.documents]

    @cached_property
    def rows(self) -> list[Row]:
        """The runs; of a co-run each backend alone and beside the others is a backend of its own, and so is each model of a backend that
        served several, so that no figure mixes them."""
        named = ((row, self.shown(row)) for row in self.own)
        return [row if name == row["backend"] else {**row, "backend": name} for row, name in named]

    def shown(self, row: Row) -> str:
        """The name its backend has in the report: `openvino-xeon-int8 · smollm2` where that backend served several models."""
        name = _as_shared(row) if row.get("co_run_with") else str(row["backend"])
        return name + (f" · {row['model'] or 'no model'}" if len(self._models.get(row["backend"], ())) > 1 else "")

    @cached_property
    def _models(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in self.own:
            found.setdefault(row["backend"], set()).add(str(row["model"]))
        return found

    @cached_property
    def done(self) -> list[Row]:
        return [row for row in self.rows if row["status"] == "done"]

    @cached_property
    def workloads(self) -> list[str]:
        return list(dict.fromkeys(row["workload"] for row in self.rows))

    @cached_property
    def backends(self) -> list[str]:
        return list(dict.fromkeys(row["backend"] for row in self.rows))

    def cohort_values(self, run_id: str, column: str, vacuous: bool) -> tuple[list[float], int]:
        """Sorted values of a run's answered cohort, and the size of the cohort (without single-token answers where they have no value)."""
        return cohort_values(self._latencies.get(run_id), column, vacuous)

    @cached_property
    def _latencies(self) -> dict[str, pa.Table]:
        """What the distributions of the measured runs are drawn from; of requests never more than a figure needs, stamps least of all."""
        return self.store.request_columns((row["run_id"] for row in self.done), LATENCIES)

    @cached_property
    def evaluations(self) -> Evaluations:
        """What RESULTS/quality holds."""
        return open_all(self.store.path, self.margins)

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        """What is known of the quality of each backend, by the runs shown here."""
        found: dict[str, Standing] = {}
        pairs = sorted(zip(self.rows, self.documents, strict=True), key=lambda pair: pair[0]["status"] != "done")
        for row, document in pairs:
            if row["backend"] not in found:
                options = (document["provenance"].get("backend") or {}).get("options")
                found[row["backend"]] = self.evaluations.of(document["run"], options)
        return found

    def together(self, rows: Sequence[Row]) -> Together:
        """The verdict of one cell over its engine starts."""
        key = tuple(row["run_id"] for row in rows)
        if key not in self._together:
            self._together[key] = judge_together(self._by_id[run_id] for run_id in key if run_id in self._by_id)
        return self._together[key]

    @cached_property
    def _together(self) -> dict[tuple[str, ...], Together]:
        return {}

    @cached_property
    def _by_id(self) -> dict[str, Mapping[str, Any]]:
        return {document["run"]["run_id"]: document for document in self.documents}

    @cached_property
    def requests(self) -> pd.DataFrame:
        """The requests of all measured runs, without their arrival stamps; of many runs cohort_values is many times faster."""
        columns = [c.name for c in schema.REQUESTS if not c.type.startswith("list<")]
        return self.store.requests({row["run_id"] for row in self.done}, columns)

    @cached_property
    def telemetry(self) -> pd.DataFrame:
        """What the sensors said during all measured runs."""
        return self.store.telemetry({row["run_id"] for row in self.done})

    def telemetry_of(self, run_id: str) -> pd.DataFrame:
        """The same of one run, without reading the others'."""
        return self.store.telemetry([run_id])

    def of(self, workload: str, backend: str | None = None) -> list[Row]:
        own = self._of[workload]
        return list(own) if backend is None else [row for row in own if row["backend"] == backend]

    @cached_property
    def _of(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {name: [] for name in self.workloads}
        for row in self.rows:
            found[row["workload"]].append(row)
        return found

    def loads(self, workload: str) -> list[tuple[str, float]]:
        """The load points of a workload: closed loops by users, then open loops by rate."""
        return list(dict.fromkeys((row["load_kind"], row["load"]) for row in sorted(self.of(workload), key=_load_order)))

    def load_words(self, workload: str, point: tuple[str, float]) -> str:
        """A load point as a heading: `8 users`, `0.2/s trace FILE …`."""
        row = next(row for row in self.of(workload) if (row["load_kind"], row["load"]) == point)
        return label({**row, "repeat": 0})

    def qos(self, workload: str) -> str | None:
        return next((row["qos"] for row in self.of(workload) if row["qos"]), None)


def select(store: Store, sweep_id: str | None = None, margins: Margins = NONE_STATED) -> Selection:
    """The runs of `sweep_id` (an unambiguous beginning will do), or of the newest sweep. Raises ReportError.

    A sweep that found cells already measured by another one is about those runs as well: each run's document names all cells of its
    sweep. A failed run is left out when the same cell succeeded since.
    """
    rows = store.rows()
    if not rows:
        raise ReportError(f"{store.path}: no runs to report", hint="`profile sweep` measures some")
    if sweep_id is None:
        measured = [row for row in rows if row["provenance_class"] != "imported"]  # an import is nobody's newest sweep, unless it is all
        sweep_id = str((measured or rows)[-1]["sweep_id"])
    found = sorted({str(row["sweep_id"]) for row in rows if str(row["sweep_id"]).startswith(sweep_id)})
    if len(found) != 1:
        what = "no sweep" if not found else f"{len(found)} sweeps"
        raise ReportError(f"{store.path}: {what} called {sweep_id!r}", hint="`profile results ls` shows the ids")
    newest = [row["run_id"] for row in rows if row["sweep_id"] == found[0]][-1]
    cells = store.run(newest)["provenance"].get("cells") or []
    return of_cells(store, found[0], cells, margins)


def of_cells(store: Store, sweep_id: str, cells: Collection[str], margins: Margins = NONE_STATED) -> Selection:
    """The runs of one sweep and of its cells, whoever measured them."""
    wanted = set(cells)
    documents = store.documents(row["run_id"] for row in store.rows() if row["sweep_id"] == sweep_id or row["cell_id"] in wanted)
    measured = {_key(d["run"]) for d in documents if d["run"]["status"] == "done"}
    kept = [d for d in documents if d["run"]["status"] == "done" or _key(d["run"]) not in measured]
    return Selection(sweep_id, store, sorted(kept, key=_order), margins)


def cohort_values(requests: pa.Table | None, column: str, vacuous: bool) -> tuple[list[float], int]:
    """Of a run's requests (columns LATENCIES; None: it has no readable file): see Selection.cohort_values."""
    if requests is None:
        return [], 1
    inside = requests["in_window"].to_numpy().astype(bool)  # NULL becomes None, which is not in it
    answered = inside & requests["error_kind"].is_null().to_numpy()
    values = requests[column].to_numpy()[answered]  # NULL becomes NaN
    values = values[values == values]
    without = int(answered.sum()) - len(values) if vacuous else 0
    return sorted(values.tolist()), max(1, int(inside.sum()) - without)


def label(row: Row) -> str:
    """`8 users` or `3/s Poisson`, with the repeat when it is not the first."""
    how = row.get("arrivals") or ("closed" if row["load_kind"] == "concurrency" else "poisson")
    return load_label(row["load_kind"], row["load"], how) + (f" · repeat {row['repeat']}" if row["repeat"] else "")


def _as_shared(row: Row) -> str:
    """`A (alone)` where the others were idle, `A beside B` otherwise."""
    return f"{row['backend']} beside {row['co_run_with']}" if beside(row) else f"{row['backend']} (alone)"


def _key(row: Row) -> tuple[str, int]:
    return row["cell_id"], row["repeat"]


def _load_order(row: Row) -> tuple[str, float]:
    return row["load_kind"], row["load"]  # "concurrency" sorts before "rate"


def _order(document: Mapping[str, Any]) -> tuple[Any, ...]:
    row = document["run"]
    backend = _precision_rank(row), row["backend"], str(row["model"]), beside(row)
    return row["workload"], *backend, *_load_order(row), row["repeat"], row["run_id"]


def _precision_rank(row: Row) -> int:
    """Widest precision first, so that a table reads from the reference down. Of `int8-from-q4_1-in-f32` the weights count: int8."""
    name = str(row["variant"] or row["backend"].rpartition("-")[2]).partition("-")[0]
    return PRECISIONS.index(name) if name in PRECISIONS else len(PRECISIONS)

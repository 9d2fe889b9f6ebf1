"""`profiler.open(folder)`: typed access to a results folder that returns pandas frames; `.arrow` the same as Arrow tables, `.plot` figures.

Nothing is measured, no run is changed. What is asked twice is computed once: runs are immutable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from profiler.frames import latency, money, nulls
from profiler.frames.frame import Frame, describe, of_table
from profiler.frames.money import Options
from profiler.frames.part import Part, Where, choose

if TYPE_CHECKING:
    from profiler.analyse.fit import Answer
    from profiler.frames.arrow import Arrow
    from profiler.frames.plot import Plot
    from profiler.report.selection import Selection
    from profiler.store.store import Store

_TOKENS = {"t_offset_us": "arrival of a token-bearing read, from sent_ns", "tokens": "output tokens in that read"}


class Results:
    """Runs of a results folder, all or those chosen with `where`; oldest first.

    `runs`, `requests()`, `tokens()`, `telemetry()`, `engine_metrics()` are the tables of the store with every column;
    `conditions` is what was chosen by, `part` the store narrowed to it. `latency()` is tidy; `fit()`, `verdicts()`, `cost()` answer for any QoS target; `quality()` says what was evaluated; `compare()` what became worse; `plot` draws.
    """

    def __init__(self, store: Store, where: Where | None = None, run_ids: Iterable[str] | None = None) -> None:
        self._store = store
        self.conditions: Where = where or {}
        self.part = Part(store, (row["run_id"] for row in store.rows()) if run_ids is None else run_ids)
        self._answers: dict[str, Answer] = {}

    def where(self, **conditions: Unpack[Where]) -> Results:
        """The same of some runs: `r.where(backend="openvino-xeon-int8", load=[1, 4])`. Raises UsageError or UnknownNameError."""
        chosen = choose(self.part.rows(), conditions)
        return Results(self._store, cast(Where, {**self.conditions, **conditions}), chosen)

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def run_ids(self) -> tuple[str, ...]:
        return self.part.run_ids

    @property
    def warnings(self) -> list[str]:
        """What of the store could not be read, and runs of machines that differ."""
        machines = {row["comparison_id"] for row in self.part.rows() if row["comparison_id"]}
        told = [f"runs of {len(machines)} differing machines or settings: compare within one comparison_id"] if len(machines) > 1 else []
        return [*self._store.warnings, *told]

    @cached_property
    def runs(self) -> Frame:
        """One row per run, all columns of `runs`."""
        frame = self.part.runs()
        return of_table(frame, "runs", str(self.path), nulls.of_runs(frame), {})

    def run(self, run_id: str) -> dict[str, Any]:
        """Everything stored of one run (run.json); an unambiguous beginning of its id will do. Raises StoreError."""
        return self.part.run(run_id)

    def requests(self, **conditions: Unpack[Where]) -> Frame:
        """One row per request, warm-up included and labelled: `in_window` is the cohort that every percentile is of."""
        own = self.where(**conditions)
        frame = own.part.requests()
        return of_table(frame, "requests", str(self.path), nulls.of_requests(frame), own._classes())

    def tokens(self, **conditions: Unpack[Where]) -> Frame:
        """One row per read that brought tokens: when (`t_offset_us` from its request's `sent_ns`) and how many."""
        own = self.where(**conditions)
        frame = own.part.view("tokens")
        units = {"t_offset_us": "µs", "tokens": "tokens"}
        made = describe(frame, "tokens", str(self.path), nulls.plain(frame, nulls.NO_REASON), units, _TOKENS)
        made.attrs["provenance"] = own._classes()
        return made

    def telemetry(self, **conditions: Unpack[Where]) -> Frame:
        """One row per sample of a sensor; the unit is in `metric`. Empty where nothing was sampled."""
        own = self.where(**conditions)
        frame = own.part.telemetry()
        return of_table(frame, "telemetry", str(self.path), nulls.plain(frame, "the sensor gave no value"), own._classes())

    def engine_metrics(self, **conditions: Unpack[Where]) -> Frame:
        """One row per series and scrape of the server's own metrics."""
        own = self.where(**conditions)
        frame = own.part.view("engine_metrics")
        return of_table(frame, "engine_metrics", str(self.path), nulls.plain(frame, "the server gave no value"), own._classes())

    def latency(self, **conditions: Unpack[Where]) -> Frame:
        """Tidy: one row per run, metric and statistic (p50 … p99; mean of imported runs) with bounds, n, and why a value is missing."""
        own = self.where(**conditions)
        return latency.frame(own.part.rows(), str(self.path))

    def answer(self, qos: str, demand: str | None = None, **options: Unpack[Options]) -> Answer:
        """The planner's answer as objects: what `fit`, `cost` and the figures are made of. Arguments as the options of `profile fit`."""
        asked = repr((qos, demand, sorted(options.items())))
        if asked not in self._answers:
            self._answers[asked] = money.ask(cast("Store", self.part), qos, demand, options)  # the same public methods, of these runs
        return self._answers[asked]

    def fit(self, qos: str, demand: str | None = None, **options: Unpack[Options]) -> Frame:
        """One row per model, variant, backend, device and workload: how far it keeps `qos`, replicas for `demand`, cost a month."""
        return money.fit(self.answer(qos, demand, **options), str(self.path))

    def verdicts(self, qos: str, **options: Unpack[Options]) -> Frame:
        """One row per measured load: FITS, FAILS or UNDECIDED for any target, with the finding behind it."""
        return money.verdicts(self.answer(qos, None, **options), str(self.path))

    def quality(self, margin: float | str | None = None, drift_margin: float | str | None = None, reference: str | None = None) -> Frame:
        """One row per model, variant and backend of these runs: what `profile evaluate` found of it, and its verdict at the margins given."""
        from profiler.analyse.margins import Margins, share
        from profiler.frames import quality

        return quality.frame(self.part, Margins(share("margin", margin), share("drift_margin", drift_margin), reference))

    def cost(self, qos: str, demand: str | None = None, **options: Unpack[Options]) -> Frame:
        """One row per candidate, offer and point (at the demand, at λ*, at saturation)."""
        return money.cost(self.answer(qos, demand, **options), str(self.path))

    def compare(
        self,
        base: Results | Where,
        new: Results | Where,
        fail_if: str | Iterable[str] = (),
        confidence: float = 0.95,
        *,
        with_suspect: bool = False,
        allow_differing: bool = False,
    ) -> Frame:
        """One row per cell of both sides and rule (`"ttft_p99 > +5%"`): proven regression, proven within the limit, or inconclusive.

        `base` and `new` are conditions on these runs, `r.compare({"sweep_id": A}, {"sweep_id": B})`, or results of two folders.
        """
        from profiler.frames import comparison

        first, second = (one if isinstance(one, Results) else self.where(**one) for one in (base, new))
        rules = [fail_if] if isinstance(fail_if, str) else fail_if
        return comparison.compare(first, second, rules, confidence, with_suspect, allow_differing, str(self.path))

    def selection(self) -> Selection:
        """These runs as the report sees them. Raises ReportError when there is none."""
        from profiler.errors import ReportError
        from profiler.report.selection import of_cells

        rows = self.part.rows()
        if not rows:
            raise ReportError(f"{self.path}: no runs to show", hint="`profile sweep` measures some")
        return of_cells(cast("Store", self.part), str(rows[-1]["sweep_id"]), {row["cell_id"] for row in rows})

    @cached_property
    def plot(self) -> Plot:
        """The figures of the report, one call each: `r.plot.throughput_latency()`."""
        from profiler.frames.plot import Plot

        return Plot(self)

    @cached_property
    def arrow(self) -> Arrow:
        """The same tables as pyarrow.Table, units and definitions in the fields' metadata."""
        from profiler.frames.arrow import Arrow

        return Arrow(self)

    def __len__(self) -> int:
        return len(self.run_ids)

    def __repr__(self) -> str:
        chosen = "".join(f", {name}={value!r}" for name, value in self.conditions.items())
        return f"<Results {str(self.path)!r}: {len(self)} runs{chosen}>"

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{escape(text)}</li>" for text in self._summary())
        warned = "".join(f"<div>⚠ {escape(text)}</div>" for text in self.warnings)
        return f"<div><b>{escape(repr(self).strip('<>'))}</b><ul>{lines}</ul>{warned}</div>"

    def _summary(self) -> list[str]:
        rows = self.part.rows()
        parts = [f"{name}: {_counted(rows, name)}" for name in ("provenance_class", "status", "validity", "model", "device")]
        parts += [f"{name}: {_counted(rows, name)}" for name in ("backend", "workload")]
        loads = {kind: sorted({row["load"] for row in rows if row["load_kind"] == kind}) for kind in ("concurrency", "rate")}
        words = {"concurrency": "closed loops, users", "rate": "open loops, requests/s"}
        return parts + [f"{words[kind]}: {', '.join(f'{load:g}' for load in found)}" for kind, found in loads.items() if found]

    def _classes(self) -> dict[str, int]:
        """Runs by provenance class."""
        counted: dict[str, int] = {}
        for row in self.part.rows():
            name = str(row["provenance_class"])
            counted[f"runs {name}"] = counted.get(f"runs {name}", 0) + 1
        return counted


def _counted(rows: Iterable[Mapping[str, Any]], column: str) -> str:
    counted: dict[str, int] = {}
    for row in rows:
        name = "not stated" if row[column] is None else str(row[column])
        counted[name] = counted.get(name, 0) + 1
    return ", ".join(f"{name} {n}" for name, n in counted.items()) or "none"

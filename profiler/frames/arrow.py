"""The tables of the store as Arrow tables, with the schema's types; unit and definition in each field's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from profiler.store import schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from profiler.frames.part import Where
    from profiler.frames.results import Results


class Arrow:
    """`r.arrow.runs`, `r.arrow.requests(backend=…)` …: as of `r`, in Arrow."""

    def __init__(self, results: Results) -> None:
        self._results = results

    @property
    def runs(self) -> pa.Table:
        return _typed(self._results.runs, "runs")

    def requests(self, **conditions: Unpack[Where]) -> pa.Table:
        return _typed(self._results.requests(**conditions), "requests")

    def telemetry(self, **conditions: Unpack[Where]) -> pa.Table:
        return _typed(self._results.telemetry(**conditions), "telemetry")

    def engine_metrics(self, **conditions: Unpack[Where]) -> pa.Table:
        return _typed(self._results.engine_metrics(**conditions), "engine_metrics")

    def tokens(self, **conditions: Unpack[Where]) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pandas(self._results.tokens(**conditions), preserve_index=False)

    def latency(self, **conditions: Unpack[Where]) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pandas(self._results.latency(**conditions), preserve_index=False)


def _typed(frame: pd.DataFrame, table: str) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, schema=schema.arrow_schema(table), preserve_index=False)

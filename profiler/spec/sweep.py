"""Sweeps as users write them in TOML, or say them by flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from profiler.spec.backend import Strict
from profiler.spec.quality import QualitySpec, share


class MeterSpec(BaseModel):
    """A power meter outside this program, joined to a run by clock: docs/telemetry.md."""

    model_config = Strict
    scope: Literal["gpu_board", "cpu_package", "dram", "host", "wall"]  # what it measures: nobody else can know
    url: str | None = None  # ends in /metrics: readings as they are now (DCGM's exporter); else a Prometheus server
    metric: str | None = None  # with url
    labels: Mapping[str, str] = Field(default_factory=dict)  # of the readings that count
    csv: str | None = None  # columns time and watts, device if there are several
    kind: Literal["power", "energy"] | None = None  # W, or a counter in J; None: known for DCGM's, else power
    scale: float | None = Field(default=None, gt=0)  # what one unit is in W or J

    @model_validator(mode="after")
    def _one_source(self) -> MeterSpec:
        if (self.url is None) == (self.csv is None):
            raise ValueError("a meter has either a url or a csv")
        if (self.url is None) != (self.metric is None):
            raise ValueError("url and metric go together")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        return self


class CoRunSpec(BaseModel):
    """The load of one backend of a co-run; what is left out is the sweep's."""

    model_config = Strict
    concurrency: tuple[int, ...] | None = None
    rates: tuple[float, ...] | None = None


def _as_table(value: object) -> object:
    """`["A", "B"]` as {"A": {}, "B": {}}."""
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        if len(set(value)) < len(value):
            raise ValueError("each backend once; the same one twice needs two TOML files")
        return {name: {} for name in value}
    return value


class SweepSpec(BaseModel):
    """An ordered set of cells: what `profile sweep` measures."""

    model_config = Strict
    name: str = "sweep"
    model: str = "smollm2-135m-instruct"
    backends: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    # Two or more backends at once on this machine, each under its own load: alone (the others started, idle) and together, interleaved.
    co_run: Annotated[Mapping[str, CoRunSpec], BeforeValidator(_as_table)] = Field(default_factory=dict)
    concurrency: tuple[int, ...] | Literal["auto"] = "auto"
    rates: Mapping[str, tuple[float, ...]] | tuple[float, ...] = ()  # requests/s, for all workloads or by workload name
    arrivals: str = "poisson"  # how open-loop requests are spaced: profiler/workload/arrivals.py
    think: str = "0s"  # closed loop: pause of a slot between an answer and its next request; "exponential:2s" for a mean
    trace: str | None = None  # a trace file: replaces the file of the trace workloads, or is replayed as it is
    qos: Mapping[str, str] | str | None = None  # one target, or one by workload name; None takes the workload's own
    requests: int = Field(default=60, ge=1)  # finished requests each cell's cohort needs at least
    # A cell ends at its `requests`, or, where one of these is given, once it has seen enough (docs/steady.md) or spent its window_max_s.
    until: Literal["requests", "decided", "screened"] = "requests"  # decided: every constraint of the QoS target FITS, or one FAILS
    find_limit: bool = False  # search the highest rate that keeps the QoS target, instead of measuring given loads
    most_starts: int = Field(default=8, ge=3)  # engine starts that the search may take
    rung: Annotated[float, BeforeValidator(share)] = 0.05  # how well, either side, the limit has to be known for the search to end earlier
    precision: Annotated[float, BeforeValidator(share)] | None = None  # "10%": p50 and p95 of TTFT and TPOT are known that well
    window_min_s: float = Field(default=5.0, gt=0)
    window_max_s: float = Field(default=180.0, gt=0)
    warmup_s: float = Field(default=3.0, ge=0)
    request_timeout_s: float = Field(default=120.0, gt=0)
    repeats: int = Field(default=1, ge=1)  # engine starts per backend, interleaved
    runs_per_start: int = Field(default=1, ge=1)  # of each cell: how far runs of one start lie apart
    seed: int = 1
    client_cpus: tuple[int, ...] = ()  # cores the load client is pinned to; none: it runs where the kernel puts it
    telemetry_period_s: float = Field(default=0.5, gt=0, le=60)  # between samples of power, clocks, memory, ...
    meter: MeterSpec | None = None  # a power meter outside this program
    quality: QualitySpec | None = None  # given: each backend is evaluated once too, after the timed cells, in an engine start of its own
    tokenizer: str | None = None  # a folder; for endpoints whose model is not on this disk
    url: str | None = None  # an endpoint that already runs
    endpoint_kind: Literal["completions", "chat"] = "completions"
    # Of an endpoint one does not own: what its owner says, marked `declared` in the runs. Undeclared is NULL and not costed.
    device: str | None = Field(default=None, min_length=1)
    device_count: int | None = Field(default=None, ge=1)
    price_usd_per_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # of the whole endpoint, all its devices
    server_metrics: str | None = None  # URL of its counters, where the endpoint itself shows none
    isl: int | None = Field(default=None, gt=0)  # with osl: an ad-hoc workload of fixed lengths
    osl: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _together(self) -> SweepSpec:
        if (self.isl is None) != (self.osl is None):
            raise ValueError("isl and osl go together")
        if len(self.co_run) == 1:
            raise ValueError("co_run needs two backends or more")
        if self.co_run and (self.until != "requests" or self.precision is not None or self.trace or self.url):
            raise ValueError("co_run excludes until, precision, trace and url: the loads share one window")
        if self.window_max_s < self.window_min_s:
            raise ValueError("window_max_s must be at least window_min_s")
        if isinstance(self.concurrency, tuple) and any(c < 1 for c in self.concurrency):
            raise ValueError("concurrency must be 1 or more")
        return self

"""What users write in TOML, validated once at the edge and frozen after. Unknown keys are refused with "did you mean".

`load_spec(path, BackendSpec)` reads a file; errors name the file and the key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from profiler.errors import SpecError, did_you_mean
from profiler.units import parse_duration_s, parse_size_bytes

Strict = ConfigDict(extra="forbid", frozen=True)


class CalibrationSpec(BaseModel):
    """The text that a quantizer looks at: named and seeded, the same on every machine."""

    model_config = Strict
    text: Literal["english"] = "english"  # profiler/english.py, our own sentences: no licence, no download
    seed: int = 1
    samples: int = Field(default=128, gt=0)
    tokens: int = Field(default=512, gt=0)  # most of each sample


class VariantSpec(BaseModel):
    """How a backend's variant is made from the model's own weights, or where a ready one is (`checkpoint`)."""

    model_config = Strict
    weight_format: Literal["bf16", "fp16", "int8", "int4", "fp8", "w8a8", "w8a16", "w4a16", "as-is"] = "as-is"
    group_size: int | None = Field(default=None, gt=0)
    method: Literal["rtn", "gptq", "awq"] | None = None  # None: rounded to nearest, looks at no text
    calibration: CalibrationSpec | None = None  # for gptq and awq; None takes the defaults
    reduced_range: bool = False  # w8a8: weights within -64..64, exact on CPUs whose int8 products saturate (docs/variants.md)
    checkpoint: str | None = None  # a ready quantized one of the same model: hub id or folder

    @model_validator(mode="after")
    def _one_way(self) -> VariantSpec:
        if self.checkpoint is not None and (self.weight_format != "as-is" or self.group_size or self.method or self.calibration):
            raise ValueError("a checkpoint is served as it is: leave out weight_format, group_size, method and calibration")
        if self.reduced_range and (self.weight_format != "w8a8" or self.method not in (None, "rtn")):
            raise ValueError("reduced_range is for w8a8 weights rounded to nearest")
        if self.calibration is not None and self.method in (None, "rtn"):
            raise ValueError("calibration belongs to method gptq or awq; rtn looks at no text")
        return self


class NeedsSpec(BaseModel):
    """What a backend needs of a machine; `profile list backends` compares it with what is here."""

    model_config = Strict
    device: Literal["cpu", "cuda", "any"] = "any"
    arch: str | None = None
    memory: str | None = None  # such as "4GiB"; the GPU's where device is cuda
    isa: tuple[str, ...] = ()  # as /proc/cpuinfo names them
    driver: str | None = None  # NVIDIA's, at least

    @field_validator("memory")
    @classmethod
    def _size(cls, text: str | None) -> str | None:
        if text is not None:
            parse_size_bytes(text)
        return text


class PlacementSpec(BaseModel):
    """Which cores and memory each server of a backend gets (docs/deployment.md). Its presence alone keeps servers and client apart."""

    model_config = Strict
    numa: Literal["none", "per-node", "per-socket"] = "none"  # replica k on node (socket) k mod their number; replicas is a multiple of it
    sockets: tuple[int, ...] | None = None  # only these
    cores: tuple[str, ...] | None = None  # CPU numbers such as "0-15": one list for each replica, or one for all
    threads: int | None = Field(default=None, gt=0)  # physical cores of each replica
    smt: bool = True  # with the siblings of its cores
    memory: Literal["local", "any"] = "local"  # bound to the nodes of its cores, where these were chosen by node or are of one
    devices: tuple[str, ...] | None = None  # CUDA_VISIBLE_DEVICES of each replica

    @field_validator("cores")
    @classmethod
    def _lists(cls, lists: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in lists or ():
            if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
                raise ValueError(f"{text!r} is not a list of CPUs such as 0-15,32-47")
        return lists

    @model_validator(mode="after")
    def _one_way(self) -> PlacementSpec:
        if self.cores is not None and (self.sockets is not None or self.numa != "none" or self.threads is not None):
            raise ValueError("cores excludes numa, sockets and threads")
        return self


class BackendSpec(BaseModel):
    """engine + device + precision + flags: one row of a comparison."""

    model_config = Strict
    name: str
    version: int = Field(default=1, ge=1)
    summary: str
    engine: str
    device: Literal["cpu", "cuda", "remote"]
    precision: str
    variant: VariantSpec = VariantSpec()
    options: Mapping[str, Any] = Field(default_factory=dict)  # the engine's own, checked by it
    needs: NeedsSpec = NeedsSpec()
    replicas: int = Field(default=1, ge=1, le=64)  # servers behind one workload, round robin
    placement: PlacementSpec | None = None

    @model_validator(mode="after")
    def _ours(self) -> BackendSpec:
        if self.device == "remote" and (self.replicas > 1 or self.placement is not None):
            raise ValueError("replicas and placement are for servers that we start, not for an endpoint that already runs")
        devices = self.placement.devices if self.placement is not None else None
        if devices is not None and (self.device != "cuda" or len(devices) != self.replicas):
            raise ValueError("placement.devices are of cuda and one for each replica")
        return self


class FixedLengths(BaseModel):
    model_config = Strict
    kind: Literal["fixed"]
    isl: int = Field(gt=0)
    osl: int = Field(gt=0)


class QuantileLengths(BaseModel):
    """Lengths drawn by inverse transform from published quantiles, log-linear between them."""

    model_config = Strict
    kind: Literal["quantiles"]
    isl: Mapping[str, int]  # {"0": 3, "0.5": 1020, "0.95": 4083, "1": 14050}
    osl: Mapping[str, int]
    correlation: float = Field(default=0.0, ge=-1, le=1)  # rank correlation of isl and osl (Gaussian copula)


Lengths = Union[FixedLengths, QuantileLengths]  # noqa: UP007 - pydantic's discriminator wants a plain union alias


class SharedPrefix(BaseModel):
    """`groups` system prompts of `tokens` tokens; each request begins with one of them (seeded, all equally likely)."""

    model_config = Strict
    groups: int = Field(gt=0)
    tokens: int = Field(gt=0)  # counted in isl; at least one token of a prompt stays its own


class PromptsSpec(BaseModel):
    """Where the words of the prompts come from. Every prompt starts differently unless `unique_prefix` is off or a prefix is shared.

    `hit_rate` h: all prompts begin with the same text, h of each one's input tokens long.
    """

    model_config = Strict
    kind: Literal["text", "random-tokens"] = "text"
    unique_prefix: bool = True
    shared_prefix: SharedPrefix | None = None
    hit_rate: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_prefix(self) -> PromptsSpec:
        if self.shared_prefix is not None and self.hit_rate is not None:
            raise ValueError("shared_prefix and hit_rate exclude one another")
        return self


class SessionsSpec(BaseModel):
    """Conversations: each turn waits for the answer before it, then for `think`, and carries the whole history."""

    model_config = Strict
    turns: int | Mapping[str, int]  # a number, or quantiles like those of lengths
    think: str = "0s"  # "2s", or "exponential:2s" for pauses with that mean

    @field_validator("turns")
    @classmethod
    def _some(cls, turns: int | Mapping[str, int]) -> int | Mapping[str, int]:
        if isinstance(turns, int) and turns < 1:
            raise ValueError("a session has at least 1 turn")
        return turns


class AgenticSpec(BaseModel):
    """Tool-call chains: `steps` dependent calls with growing context; every second step is `branches` calls side by side that join."""

    model_config = Strict
    steps: int = Field(gt=0)
    branches: int = Field(default=1, gt=0)
    result_tokens: int = Field(default=128, gt=0)  # new input (a tool's result and an instruction) before each call after the first
    tool_time: str = "0s"  # between an answer and the call that uses it; "exponential:2s" for times with that mean


class TraceSpec(BaseModel):
    """A slice of a recorded trace, and every factor by which its replay differs from the record."""

    model_config = Strict
    file: str  # relative to the workload's own file
    format: Literal["auto", "azure", "mooncake", "burstgpt", "jsonl"] = "auto"
    start: str = "0s"  # of the slice, from the first row
    length: str | None = None  # of the slice in recorded time; None goes to the end
    speed: float = Field(default=1.0, gt=0, allow_inf_nan=False)  # 2 replays an hour in half an hour
    thin: float = Field(default=1.0, gt=0, le=1)  # each request (or session) is kept with this probability
    thin_seed: int = 1
    divide_lengths: int = Field(default=1, ge=1)  # input and output tokens are divided by it

    @field_validator("start", "length")
    @classmethod
    def _duration(cls, text: str | None) -> str | None:
        if text is not None:
            parse_duration_s(text)
        return text


class WorkloadSpec(BaseModel):
    """Lengths + prompts + sessions + output rule, versioned. The load (how fast, how many) is the sweep's, except for a trace's."""

    model_config = Strict
    name: str
    version: int = Field(ge=1)
    summary: str
    source: str  # where the lengths come from, with date or section
    lengths: Lengths | None = Field(default=None, discriminator="kind")
    prompts: PromptsSpec = PromptsSpec()
    sessions: SessionsSpec | None = None
    agentic: AgenticSpec | None = None
    trace: TraceSpec | None = None  # brings lengths and times of its own
    adapters: Literal["mixed"] | None = (
        None  # mixed: each request (a session as a whole) asks for the base or an adapter, seeded, all equally likely
    )
    pin_output: bool = True  # ignore_eos + min_tokens: every backend writes the same number of tokens
    qos: str | None = None  # a sensible QoS target for this kind of work

    @model_validator(mode="after")
    def _one_kind(self) -> WorkloadSpec:
        if (self.lengths is None) == (self.trace is None):
            raise ValueError("a workload has either lengths or a trace")
        if self.sessions is not None and self.agentic is not None:
            raise ValueError("sessions and agentic exclude one another")
        if self.trace is not None and (self.sessions or self.agentic):
            raise ValueError("a trace brings its own sessions: leave out sessions and agentic")
        if self.trace is not None and (self.prompts.shared_prefix or self.prompts.hit_rate):
            raise ValueError("a trace brings its own prefixes: leave out shared_prefix and hit_rate")
        return self


def _share(value: object) -> object:
    """`"10%"` as 0.1. Raises ValueError for a share that is not between 0 and 1."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            value = float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{value!r} is not a share such as 10%") from None
    if isinstance(value, (int, float)) and not 0 < value < 1:
        raise ValueError("a share must be above 0% and below 100%")
    return value


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
    rung: Annotated[float, BeforeValidator(_share)] = 0.05  # how close the two loads that end the search lie, such as "5%"
    precision: Annotated[float, BeforeValidator(_share)] | None = None  # "10%": p50 and p95 of TTFT and TPOT are known that well
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


Spec = TypeVar("Spec", BackendSpec, WorkloadSpec, SweepSpec)


def load_spec(path: Path, kind: type[Spec]) -> Spec:
    """Read and validate one TOML file; `name` defaults to the file's stem. Raises SpecError naming file and key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}", hint="give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid TOML: {error}", hint="see docs/specs.md for an example") from error
    raw.setdefault("name", path.stem)
    return validate_spec(raw, kind, str(path))


def validate_spec(raw: Mapping[str, Any], kind: type[Spec], where: str) -> Spec:
    """Validate a mapping as a spec. `where` is named in errors (a file, or "the command line")."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _as_spec_error(error, kind, where) from None


def _as_spec_error(error: ValidationError, kind: type[BaseModel], where: str) -> SpecError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    hint: str | None
    if first["type"] == "extra_forbidden":
        known = _keys_beside(kind, first["loc"])
        hint = did_you_mean(str(first["loc"][-1]), known) or f"known keys: {', '.join(sorted(known))}"
        message = f"{where}: {key}: unknown key"
    elif first["type"] == "missing":
        message, hint = f"{where}: {key}: missing", "add the key; docs/specs.md shows each one"
    else:
        text = first["msg"].removeprefix("Value error, ")
        message, hint = f"{where}: {key or kind.__name__}: {text} (got {_short(first['input'])})", None
    more = len(error.errors()) - 1
    return SpecError(message + (f" (and {more} more)" if more else ""), hint=hint)


def _keys_beside(kind: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys that would have been right at the place of a wrong one."""
    candidates: list[type[BaseModel]] = [kind]
    for part in loc[:-1]:
        found = (
            [m for c in candidates for m in _models_in(c.model_fields[str(part)].annotation) if str(part) in c.model_fields]
            if any(str(part) in c.model_fields for c in candidates)
            else candidates
        )
        candidates = found or candidates
    return {name for c in candidates for name in c.model_fields}


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in get_args(annotation) for m in _models_in(arg)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

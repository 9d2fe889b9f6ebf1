"""What users write in TOML, validated once at the edge and frozen after. Unknown keys are refused with "did you mean".

`load_spec(path, BackendSpec)` reads a file; errors name the file and the key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from profiler.errors import SpecError, did_you_mean

Strict = ConfigDict(extra="forbid", frozen=True)


class VariantSpec(BaseModel):
    """How a backend's variant is made from the model's own weights."""

    model_config = Strict
    weight_format: Literal["bf16", "fp16", "int8", "int4", "fp8", "as-is"] = "as-is"
    group_size: int | None = Field(default=None, gt=0)


class NeedsSpec(BaseModel):
    """What a backend needs of a machine; `profile list backends` compares it with what is here."""

    model_config = Strict
    device: Literal["cpu", "cuda", "any"] = "any"
    arch: str | None = None
    memory: str | None = None  # such as "4GiB"
    isa: tuple[str, ...] = ()


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


class PromptsSpec(BaseModel):
    """Where the words of the prompts come from. Every prompt starts differently unless `unique_prefix` is off."""

    model_config = Strict
    kind: Literal["text", "random-tokens"] = "text"
    unique_prefix: bool = True


class WorkloadSpec(BaseModel):
    """Lengths + prompts + output rule, versioned. The load (how fast, how many) is the sweep's."""

    model_config = Strict
    name: str
    version: int = Field(ge=1)
    summary: str
    source: str  # where the lengths come from, with date or section
    lengths: Lengths = Field(discriminator="kind")
    prompts: PromptsSpec = PromptsSpec()
    pin_output: bool = True  # ignore_eos + min_tokens: every backend writes the same number of tokens
    qos: str | None = None  # a sensible QoS target for this kind of work


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


class SweepSpec(BaseModel):
    """An ordered set of cells: what `profile sweep` measures."""

    model_config = Strict
    name: str = "sweep"
    model: str = "smollm2-135m-instruct"
    backends: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    concurrency: tuple[int, ...] | Literal["auto"] = "auto"
    rates: Mapping[str, tuple[float, ...]] | tuple[float, ...] = ()  # requests/s, for all workloads or by workload name
    qos: Mapping[str, str] | str | None = None  # one target, or one by workload name; None takes the workload's own
    requests: int = Field(default=60, ge=1)  # finished requests each cell's cohort needs at least
    # A cell ends at its `requests`, or, where one of these is given, once it has seen enough (docs/steady.md) or spent its window_max_s.
    until: Literal["requests", "decided"] = "requests"  # decided: every constraint of the QoS target FITS, or one FAILS
    precision: Annotated[float, BeforeValidator(_share)] | None = None  # "10%": p50 and p95 of TTFT and TPOT are known that well
    window_min_s: float = Field(default=5.0, gt=0)
    window_max_s: float = Field(default=180.0, gt=0)
    warmup_s: float = Field(default=3.0, ge=0)
    request_timeout_s: float = Field(default=120.0, gt=0)
    repeats: int = Field(default=1, ge=1)  # engine starts per backend, interleaved
    runs_per_start: int = Field(default=1, ge=1)  # of each cell: how far runs of one start lie apart
    seed: int = 1
    tokenizer: str | None = None  # a folder; for endpoints whose model is not on this disk
    url: str | None = None  # an endpoint that already runs
    endpoint_kind: Literal["completions", "chat"] = "completions"
    isl: int | None = Field(default=None, gt=0)  # with osl: an ad-hoc workload of fixed lengths
    osl: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _together(self) -> SweepSpec:
        if (self.isl is None) != (self.osl is None):
            raise ValueError("isl and osl go together")
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

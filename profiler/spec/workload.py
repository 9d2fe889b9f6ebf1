"""Workloads as users write them in TOML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Union

from pydantic import BaseModel, Field, field_validator, model_validator

from profiler.spec.backend import Strict
from profiler.units import parse_duration_s


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

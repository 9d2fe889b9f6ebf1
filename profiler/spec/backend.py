"""Backends as users write them in TOML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from profiler.units import parse_size_bytes

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

"""Engine `openvino`: OpenVINO GenAI's continuous batching on the CPU, behind the project's own server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import environments
from profiler.engines import options
from profiler.engines.protocol import Engine, Progress, RunningEngine
from profiler.errors import EngineError, EnvironmentError_, SpecError
from profiler.records import LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

SERVER = Path(__file__).parent / "server" / "__main__.py"
KNOWN = {
    "inference_precision": options.one_of("bf16", "f16", "f32"),
    "kv_cache_precision": options.one_of("bf16", "f16", "f32", "u8"),
    "cache_size_gb": options.integer(1),
    "max_num_batched_tokens": options.integer(1),
    "max_num_seqs": options.integer(1),
    "threads": options.integer(1),
    "prefix_caching": options.boolean,
    "port": options.integer(1),
}
# Defaults of an option that a backend leaves out: said here, not left to OpenVINO, whose own change with the weight format.
DEFAULTS = {"inference_precision": "bf16", "kv_cache_precision": "bf16", "cache_size_gb": 2, "prefix_caching": False}
WEIGHT_FORMATS = ("bf16", "fp16", "int8", "int4", "as-is")


class OpenVinoEngine:
    name = "openvino"
    summary = "OpenVINO GenAI continuous batching on the CPU"
    needs_model = True

    def problems(self, backend: BackendSpec) -> list[str]:
        found = []
        if sys.platform != "linux":
            found.append(f"the launcher and its guardian need Linux, this is {sys.platform}")
        for name in ("openvino", "openvino-export"):
            try:
                environments.installed(environments.ENVIRONMENTS[name])
            except EnvironmentError_ as error:
                found.append(error.message)
        return found

    def validate(self, backend: BackendSpec) -> None:
        options.check(backend, KNOWN)
        variant = backend.variant
        where = f"backend {backend.name}: variant"
        if variant.weight_format not in WEIGHT_FORMATS:
            raise SpecError(f"{where}.weight_format: OpenVINO has no {variant.weight_format}", hint=f"one of {', '.join(WEIGHT_FORMATS)}")
        if variant.group_size is not None and variant.weight_format != "int4":
            raise SpecError(f"{where}.group_size: only int4 weights have groups here", hint="remove it, or set weight_format = 'int4'")
        if variant.weight_format in ("bf16", "fp16"):
            asked = {"bf16": "bf16", "fp16": "f16"}[variant.weight_format]
            got = backend.options.get("inference_precision", asked)
            if variant.weight_format == "bf16" and got != "bf16":
                hint = f"weight_format = 'fp16' computes in {got}"
                raise SpecError(f"{where}.weight_format: bf16 means that it computes in bf16, but inference_precision is {got}", hint=hint)

    def prepare(self, model: LocalModel | None, backend: BackendSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
        from profiler.engines import openvino_cpu, openvino_variant

        self.validate(backend)
        if model is None:
            raise EngineError(f"{backend.name}: the openvino engine needs a model", hint="give --model NAME")
        runtime = environments.ensure(environments.ENVIRONMENTS["openvino"], progress, pip_args)
        variant = openvino_variant.prepare(model, backend.variant, runtime.env_hash, progress, pip_args)
        return _on_this_cpu(variant, backend, openvino_cpu.capabilities(runtime.python), progress)

    def command(self, variant: Variant, backend: BackendSpec, port: int) -> list[str]:
        runtime = environments.installed(environments.ENVIRONMENTS["openvino"])
        python = str(runtime.python) if runtime else "<python of the openvino environment>"
        merged = {**DEFAULTS, **backend.options, **variant.details.get("computes_in", {})}
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in merged.items() if key not in ("port", "prefix_caching")]
        if merged["prefix_caching"]:
            flags.append("--prefix-caching")
        model = str(variant.path) if variant.path else "<variant>"
        name = f"--served-model-name={variant.variant_id}"
        return [python, "-I", "-u", str(SERVER), "openvino", f"--model={model}", f"--port={port}", name, *flags]

    @contextmanager
    def start(
        self, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, host: str = "127.0.0.1"
    ) -> Iterator[RunningEngine]:
        from profiler.engines.process import Launch, serve

        self.validate(backend)
        runtime = environments.ensure(environments.ENVIRONMENTS["openvino"], progress)
        launch = Launch(
            name=backend.name,
            command=lambda port: [*self.command(variant, backend, port), f"--host={host}"],
            model=variant.variant_id,
            log_path=log_path,
            host=host,
            port=backend.options.get("port"),
            variables={"OPENVINO_TELEMETRY_OPT_OUT": "1"},
            versions=runtime.versions,
            env_hash=runtime.env_hash,
            load_metric="slm_server_load_seconds",
        )
        with serve(launch, progress) as server:
            yield server


def _on_this_cpu(variant: Variant, backend: BackendSpec, able: frozenset[str], progress: Progress) -> Variant:
    """`details["computes_in"]` holds the precisions that `start` sets; the id says where the arithmetic is not the backend's."""
    from profiler.engines import openvino_cpu

    asked = {**DEFAULTS, **backend.options}
    real = openvino_cpu.effective(asked, able)
    name = variant.variant_id
    if real["inference_precision"] != asked["inference_precision"]:
        name += f"-in-{real['inference_precision']}"
        progress(f"{backend.name}: this CPU has no {asked['inference_precision']}, OpenVINO computes in {real['inference_precision']}")
    return replace(variant, variant_id=name, details={**variant.details, "computes_in": real})


ENGINE: Engine = OpenVinoEngine()

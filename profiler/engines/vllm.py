"""Engine `vllm`: vLLM's OpenAI-compatible server, on CUDA GPUs or, with its build for CPUs, on x86-64.

`backend.device` decides which: "cuda" runs in the environment `vllm-cuda`, "cpu" in `vllm-cpu`. Both have the same command line, API and
metrics. The CUDA path is not verified on hardware (docs/engines.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler import environments
from profiler.engines import options, vllm_cpu, vllm_log
from profiler.engines.protocol import Engine, Progress, RunningEngine
from profiler.errors import EngineError, EnvironmentError_, SpecError
from profiler.records import LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

MODULE = "vllm.entrypoints.openai.api_server"
KNOWN = {
    "dtype": options.one_of("auto", "bfloat16", "float16", "float32"),
    "kv_cache_dtype": options.text,
    "quantization": options.text,
    "max_model_len": options.integer(1),
    "max_num_seqs": options.integer(1),
    "max_num_batched_tokens": options.integer(1),
    "block_size": options.integer(1),
    "prefix_caching": options.boolean,
    "enforce_eager": options.boolean,
    "stream_interval": options.integer(1),
    "tensor_parallel_size": options.integer(1),
    "gpu_memory_utilization": options.share,
    "visible_devices": options.text,
    "mig_device": options.text,
    "kv_cache_gb": options.integer(1),
    "threads_bind": options.text,
    "adapters": options.table_of_texts,
    "max_lora_rank": options.integer(1),
    "speculative": options.table,
    "flags": options.texts,
    "port": options.integer(1),
}
# Said here, not left to vLLM: its own defaults change with the device and the release, and a comparison would mix them in.
DEFAULTS: dict[str, Any] = {"dtype": "bfloat16", "prefix_caching": False, "kv_cache_gb": 2, "threads_bind": "auto"}
ONLY = {  # options that one kind of device has
    "cuda": ("tensor_parallel_size", "gpu_memory_utilization", "visible_devices", "mig_device"),
    "cpu": ("kv_cache_gb", "threads_bind"),
}
VALUES = (  # options that are a flag of the same name with a value
    "dtype",
    "kv_cache_dtype",
    "quantization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "block_size",
    "stream_interval",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "max_lora_rank",
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}


class VllmEngine:
    name = "vllm"
    summary = "vLLM on CUDA GPUs, or its build for CPUs"
    needs_model = True

    def problems(self, backend: BackendSpec) -> list[str]:
        from profiler.engines import vllm_variant

        found = []
        if sys.platform != "linux":
            found.append(f"the launcher and its guardian need Linux, this is {sys.platform}")
        try:
            environments.installed(environment_of(backend))
        except EnvironmentError_ as error:
            found.append(error.message)
        refused = vllm_cpu.refusal(vllm_variant.format_of(backend.variant), vllm_cpu.flags()) if backend.device == "cpu" else None
        return found + ([refused] if refused else [])

    def validate(self, backend: BackendSpec) -> None:
        from profiler.engines import vllm_variant

        options.check(backend, KNOWN)
        where = f"backend {backend.name}"
        vllm_variant.check(backend.variant, where)
        if backend.device not in ONLY:
            raise SpecError(f"{where}: device: vLLM runs on cpu or cuda, not {backend.device}")
        for key in ONLY["cpu" if backend.device == "cuda" else "cuda"]:
            if key in backend.options:
                raise SpecError(f"{where}: options.{key}: not for device {backend.device!r}", hint="remove it, or change the device")
        if "visible_devices" in backend.options and "mig_device" in backend.options:
            raise SpecError(f"{where}: options.mig_device: excludes visible_devices", hint="a MIG device is named alone, by its UUID")
        speculative = backend.options.get("speculative", {})
        if speculative and not isinstance(speculative.get("method"), str):
            hint = 'such as { method = "ngram", num_speculative_tokens = 4, prompt_lookup_max = 4 }'
            raise SpecError(f"{where}: options.speculative.method: missing", hint=hint)

    def prepare(self, model: LocalModel | None, backend: BackendSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
        from profiler.engines import vllm_adapters, vllm_variant

        self.validate(backend)
        if model is None:
            raise EngineError(f"{backend.name}: the vllm engine needs a model", hint="give --model NAME")
        runtime = environments.ensure(environment_of(backend), progress, pip_args)
        vllm_adapters.check(backend, model.folder, model.name)
        variant = vllm_variant.prepare(model, backend.variant, runtime.env_hash, progress, pip_args)
        # Of a ready checkpoint only now is it known what it holds.
        if backend.device == "cpu" and (refused := vllm_cpu.refusal(variant.precision, vllm_cpu.flags())):
            raise EngineError(f"{backend.name} cannot run here: {refused}")
        return _on_this_cpu(variant, backend, progress) if backend.device == "cpu" else variant

    def command(self, variant: Variant, backend: BackendSpec, port: int) -> list[str]:
        spec = environment_of(backend)
        runtime = environments.installed(spec)
        python = str(runtime.python) if runtime else f"<python of the {spec.name} environment>"
        model = str(variant.path) if variant.path else "<variant>"
        start = [python, "-u", "-m", MODULE, f"--model={model}", f"--served-model-name={variant.variant_id}", f"--port={port}"]
        return [*start, *_flags(backend, variant)]

    @contextmanager
    def start(
        self, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, host: str = "127.0.0.1"
    ) -> Iterator[RunningEngine]:
        from profiler.engines.process import Launch, serve

        self.validate(backend)
        runtime = environments.ensure(environment_of(backend), progress)
        launch = Launch(
            name=backend.name,
            command=lambda port: [*self.command(variant, backend, port), f"--host={host}"],
            model=variant.variant_id,
            log_path=log_path,
            host=host,
            port=backend.options.get("port"),
            variables=variables(backend),
            versions=runtime.versions,
            env_hash=runtime.env_hash,
            cause=vllm_log.cause,
            load_line=r"Loading weights took ([0-9.]+) seconds",
            timeout_s=1800.0 if backend.device == "cuda" else 600.0,  # graphs are captured and kernels compiled on the first start
        )
        with serve(launch, progress) as server:
            server.endpoint = replace(server.endpoint, adapters=tuple(backend.options.get("adapters", ())))
            yield server


def environment_of(backend: BackendSpec) -> environments.EnvironmentSpec:
    return environments.ENVIRONMENTS["vllm-cuda" if backend.device == "cuda" else "vllm-cpu"]


def variables(backend: BackendSpec) -> dict[str, str]:
    """What vLLM takes from the environment rather than from flags."""
    asked = {**DEFAULTS, **backend.options}
    # The development routes hold /reset_prefix_cache; the server listens on this machine only.
    found = {**OFFLINE, "VLLM_SERVER_DEV_MODE": "1"}
    if backend.device == "cpu":
        return found | {"VLLM_CPU_KVCACHE_SPACE": str(asked["kv_cache_gb"]), "VLLM_CPU_OMP_THREADS_BIND": asked["threads_bind"]}
    devices = asked.get("mig_device") or asked.get("visible_devices")
    return found | ({"CUDA_VISIBLE_DEVICES": devices} if devices else {})


def _on_this_cpu(variant: Variant, backend: BackendSpec, progress: Progress) -> Variant:
    """Full-precision weights in float32 where the CPU would emulate bfloat16; said in the id, as OpenVINO's variants do."""
    asked = {**DEFAULTS, **backend.options}["dtype"]
    if not vllm_cpu.emulates_bf16(vllm_cpu.flags()) or asked != "bfloat16":
        return variant
    progress(f"{backend.name}: this CPU has no AVX-512, where vLLM's bfloat16 is emulated and several times slower; it computes in float32")
    return replace(variant, variant_id=f"{variant.variant_id}-in-f32", details={**variant.details, "computes_in": {"dtype": "float32"}})


def _flags(backend: BackendSpec, variant: Variant) -> list[str]:
    asked = {**DEFAULTS, **backend.options, **variant.details.get("computes_in", {})}
    flags = [f"--{key.replace('_', '-')}={asked[key]}" for key in VALUES if key in asked]
    flags.append("--enable-prefix-caching" if asked["prefix_caching"] else "--no-enable-prefix-caching")
    if asked.get("enforce_eager"):
        flags.append("--enforce-eager")
    # A model's own generation_config.json would add sampling rules that no request asked for, on this engine only.
    flags += ["--generation-config=vllm", "--enable-per-request-metrics", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    if asked.get("adapters"):
        flags += ["--enable-lora", f"--max-loras={len(asked['adapters'])}", "--lora-modules"]
        flags += [f"{name}={Path(folder).expanduser()}" for name, folder in asked["adapters"].items()]
    if asked.get("speculative"):
        flags.append(f"--speculative-config={json.dumps(asked['speculative'], sort_keys=True)}")
    return [*flags, *asked.get("flags", ())]


ENGINE: Engine = VllmEngine()

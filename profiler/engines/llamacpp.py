"""Engine `llamacpp`: llama.cpp's own server binary, if the user has one, on a GGUF file.

Nothing is installed here: PyPI carries no `llama-server`. Not verified with a real binary in this project's tests (docs/engines.md).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler import environments
from profiler.engines import options
from profiler.engines.protocol import Engine, Progress, RunningEngine
from profiler.errors import EngineError, ModelError, SpecError
from profiler.records import LocalModel, Variant

if TYPE_CHECKING:
    from profiler.spec import BackendSpec

BINARY = "llama-server"
VARIABLE = "SLM_PROFILER_LLAMA_SERVER"  # a path; else the binary is looked for on PATH
WHERE = f"get llama.cpp (a release of github.com/ggml-org/llama.cpp, or a package of your system), or set {VARIABLE} to the binary's path"
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
KNOWN = {
    "gguf": options.text,
    "max_model_len": options.integer(1),
    "max_num_seqs": options.integer(1),
    "max_num_batched_tokens": options.integer(1),
    "threads": options.integer(1),
    "kv_cache_type": options.one_of(*CACHE_TYPES),
    "n_gpu_layers": options.integer(0),
    "prefix_caching": options.boolean,
    "flags": options.texts,
    "port": options.integer(1),
}
# Its own defaults follow the model and the release: slots share a context of the model's whole length, and prompts are cached.
DEFAULTS: dict[str, Any] = {"max_model_len": 4096, "max_num_seqs": 8, "kv_cache_type": "f16", "prefix_caching": False}
_QUANTIZATION = re.compile(r"[-_.](i?q\d\w*|bf16|f16|f32)\.gguf$", re.I)  # as llama.cpp's files are named: NAME-Q4_K_M.gguf


class LlamaCppEngine:
    name = "llamacpp"
    summary = "llama.cpp's llama-server, a binary of your own, on a GGUF file"
    needs_model = True

    def problems(self, backend: BackendSpec) -> list[str]:
        return [] if binary() else [f"no {BINARY} to be found: {WHERE}"]

    def validate(self, backend: BackendSpec) -> None:
        options.check(backend, KNOWN)
        if backend.variant.weight_format != "as-is":
            hint = "leave [variant] out: a GGUF holds its precision"
            raise SpecError(f"backend {backend.name}: variant.weight_format: GGUF files are not made here", hint=hint)
        if backend.device == "cpu" and backend.options.get("n_gpu_layers"):
            raise SpecError(f"backend {backend.name}: options.n_gpu_layers: not for device 'cpu'", hint="set device = 'cuda'")

    def prepare(self, model: LocalModel | None, backend: BackendSpec, progress: Progress, pip_args: Sequence[str] = ()) -> Variant:
        self.validate(backend)
        if model is None:
            raise EngineError(f"{backend.name}: the llamacpp engine needs a model", hint="give --model NAME")
        path = gguf_of(model, backend)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        named = _QUANTIZATION.search(path.name)
        precision = named.group(1).lower() if named else backend.precision
        return Variant(
            variant_id=f"gguf-{precision}",
            path=path,
            precision=precision,
            size_bytes=path.stat().st_size,
            env_hash=hashlib.sha256(version(_needed()).encode()).hexdigest()[:12],
            details={"method": "none", "file": path.name, "sha256": content, "source": model.source},
        )

    def command(self, variant: Variant, backend: BackendSpec, port: int) -> list[str]:
        asked = {**DEFAULTS, **backend.options}
        found = [binary() or f"<{BINARY}>", f"--model={variant.path or '<GGUF file>'}", f"--alias={variant.variant_id}", f"--port={port}"]
        # The options take their value as the next word; `--key=value` is not understood.
        words = [word for item in found[1:] for word in item.split("=", 1)]
        slots = asked["max_num_seqs"]
        words += ["--parallel", str(slots), "--ctx-size", str(slots * asked["max_model_len"])]  # the context is shared out over the slots
        words += ["--cache-type-k", asked["kv_cache_type"], "--cache-type-v", asked["kv_cache_type"]]
        for key, flag in (("max_num_batched_tokens", "--batch-size"), ("threads", "--threads")):
            if key in asked:
                words += [flag, str(asked[key])]
        words += ["--n-gpu-layers", str(asked.get("n_gpu_layers", 999 if backend.device == "cuda" else 0))]
        # Without a context shift a full slot ends the answer, as in other engines, instead of forgetting its beginning.
        words += ["--cache-prompt" if asked["prefix_caching"] else "--no-cache-prompt", "--no-context-shift", "--metrics", "--no-webui"]
        return [found[0], *words, *asked.get("flags", ())]

    @contextmanager
    def start(
        self, variant: Variant, backend: BackendSpec, log_path: Path, progress: Progress, host: str = "127.0.0.1"
    ) -> Iterator[RunningEngine]:
        from profiler.engines.process import Launch, serve

        self.validate(backend)
        launch = Launch(
            name=backend.name,
            command=lambda port: [*self.command(variant, backend, port), "--host", host],
            model=variant.variant_id,
            log_path=log_path,
            host=host,
            port=backend.options.get("port"),
            versions={"llama.cpp": version(_needed())},
            env_hash=variant.env_hash,
        )
        with serve(launch, progress) as server:
            yield server


def binary() -> str | None:
    """Path of the server binary, None where there is none."""
    return shutil.which(os.environ.get(VARIABLE) or BINARY)


def _needed() -> str:
    found = binary()
    if found is None:
        raise EngineError(f"no {BINARY} to be found", hint=WHERE)
    return found


@lru_cache
def version(path: str) -> str:
    """What the binary says of itself, such as "6123 (79c1160b)". Raises EngineError when it does not run."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{path} does not run: {error}", hint=WHERE) from error
    said = f"{done.stdout}\n{done.stderr}"
    found = re.search(r"^version: (.+)$", said, flags=re.M)
    if done.returncode != 0 or found is None:
        raise EngineError(f"{path} --version does not tell a version", hint=WHERE, detail=said.strip()[-2000:])
    return found.group(1).strip()


def gguf_of(model: LocalModel, backend: BackendSpec) -> Path:
    """`options.gguf`, or the one in the model's folder, or the one from which the catalogue's model was made. Raises ModelError."""
    asked = backend.options.get("gguf")
    if asked:
        path = Path(asked).expanduser()
        if not path.is_file():
            raise ModelError(f"{backend.name}: {path}: no such GGUF file", hint="options.gguf takes the path of a .gguf file")
        return path.absolute()
    for folder in (model.folder, environments.cache_root() / "models" / f"{model.name}-gguf"):
        found = sorted(folder.glob("*.gguf"))
        if len(found) > 1:
            raise ModelError(f"{folder}: {len(found)} GGUF files", hint=f"name one: options.gguf = {str(found[0])!r}")
        if found:
            return found[0]
    raise ModelError(
        f"{backend.name}: no GGUF of {model.name} to be found", hint="name it in a copy of the backend's TOML: [options] gguf = 'FILE'"
    )


ENGINE: Engine = LlamaCppEngine()

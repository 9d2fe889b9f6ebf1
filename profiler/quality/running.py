"""Backends evaluated one after the other: prepare, start, ask, keep. What is kept already is read; one that fails is named, the others go on."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from profiler import __version__
from profiler.engines import registry
from profiler.errors import ProfilerError, SpecError
from profiler.machine.needs import unmet
from profiler.quality import asking, documents, ir_logits, top_k, windows
from profiler.quality.effort import effort
from profiler.quality.evaluate import evaluate
from profiler.records import Variant
from profiler.store.draft import check_writable

if TYPE_CHECKING:
    from profiler.engines.protocol import Engine
    from profiler.quality.tasks import Tasks
    from profiler.quality.windows import Windows
    from profiler.records import LocalModel
    from profiler.spec import BackendSpec


class Telling(Protocol):
    """Where progress goes."""

    def note(self, text: str) -> None: ...

    def working(self, text: str) -> None: ...

    def live(self, text: str) -> None: ...


@dataclass(frozen=True)
class Asked:
    """What each backend is asked, and of which model. `model`: None where no backend loads one here."""

    model: LocalModel | None
    model_name: str
    tokenizer_json: Path
    text: Windows
    tasks: Tasks
    machine: Mapping[str, Any]
    pip_args: tuple[str, ...] = ()
    at_once: int | None = None  # requests; None: the most at which no answer changes


def asked(
    model: LocalModel | None, name: str, tokenizer: Path | None, text: Path | None, tasks: Tasks, machine: Mapping[str, Any]
) -> Asked:
    """`tokenizer`: a folder, where no backend loads a model here. Raises SpecError."""
    folder = model.folder if model else tokenizer
    if folder is None or not (folder / "tokenizer.json").is_file():
        raise SpecError("the text is asked in tokens, and there is no tokenizer.json", hint="give --tokenizer FOLDER")
    return Asked(model, name, folder / "tokenizer.json", windows.read(text, folder / "tokenizer.json"), tasks, machine)


def uncached(backend: BackendSpec) -> BackendSpec:
    """As it is evaluated: one server, without a prefix cache; a hit has no log-probabilities, and takes values that another batch computed."""
    options = {**backend.options, "prefix_caching": False} if backend.engine in ("openvino", "vllm") else dict(backend.options)
    return backend.model_copy(update={"replicas": 1, "options": options})


def evaluate_all(
    backends: Sequence[BackendSpec], what: Asked, results: Path, work: Path, tell: Telling, *, again: bool = False
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The documents in the order of the backends, and why the others have none; one failure ends nothing."""
    found, failed = [], {}
    for number, backend in enumerate(backends, 1):
        try:
            found.append(evaluate_one(backend, what, results, work, tell, again=again))
            tell.note(f"[quality {number}/{len(backends)}] {backend.name}: {summary(found[-1])}")
        except ProfilerError as error:
            failed[backend.name] = error.message
            tell.note(
                f"[quality {number}/{len(backends)}] {backend.name}: failed: {error.message}" + (f" ({error.hint})" if error.hint else "")
            )
    return found, failed


def evaluate_one(backend: BackendSpec, what: Asked, results: Path, work: Path, tell: Telling, *, again: bool = False) -> dict[str, Any]:
    """The stored document, or a new one. `backend`: as `uncached` gives it. Raises ProfilerError."""
    engine = registry.get(backend.engine)
    problems = [*unmet(backend), *engine.problems(backend)]
    if problems:
        raise ProfilerError(f"cannot run here: {'; '.join(problems)}", hint="`profile list backends` shows those that can")
    if again or not any(one.get("key") == key_like(one, backend, what) for one in documents.load_sound(results)):
        check_writable(results, documents.FOLDER)  # before hours are spent, and not for what will only be read
    variant = engine.prepare(what.model, backend, tell.working, what.pip_args)
    made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    key = key_of(backend, variant, what, made_at)

    def load() -> dict[str, Any] | None:
        stored = None if again else documents.load(results, key)
        if stored is not None:
            tell.note(f"{backend.name}: evaluated already, {stored['made_at']}")
        return stored

    if (stored := load()) is not None:
        return stored
    waits = f"{backend.name}: another process evaluates it, waiting"
    with documents.alone(results, key, lambda: tell.note(waits)):
        if (stored := load()) is not None:  # kept by the one that was waited for
            return stored
        if again:
            documents.forget_part(results, key)
        documents.keep(results, key, _evaluated(_Job(engine, backend, variant, what, results, key, work, tell), made_at))
        kept = documents.load(results, key)
    assert kept is not None
    return kept


@dataclass(frozen=True)
class _Job:
    """One evaluation that has to be made, under `key`."""

    engine: Engine
    backend: BackendSpec
    variant: Variant
    what: Asked
    results: Path
    key: str
    work: Path
    tell: Telling


def _evaluated(job: _Job, made_at: str) -> dict[str, Any]:
    """The document; goes on after what an evaluation that was broken off had kept."""
    backend, variant, what = job.backend, job.variant, job.what
    so_far = documents.load_part(job.results, job.key)
    if so_far:
        job.tell.note(f"{backend.name}: goes on after {len(so_far.get('examples', []))} of {len(what.tasks.examples)} examples")
    parts = _ask(job, so_far)
    return {
        "made_at": made_at,
        "profiler_version": __version__,
        "model": _model(what.model, what.model_name),
        "backend": {"name": backend.name, "engine": backend.engine, "options": backend.options},
        "variant": {"variant_id": variant.variant_id, "precision": variant.precision, "size_bytes": variant.size_bytes}
        | {"details": dict(variant.details), "env_hash": variant.env_hash},
        "machine": what.machine,
        "demonstration_only": _demonstration(what.model),
        "asked": f"{_many(parts, what.at_once)}, greedy, prefix caching off",
        **parts,
    }


def key_of(backend: BackendSpec, variant: Variant, what: Asked, made_at: str) -> str:
    """Of what the figures depend on. What runs behind somebody else's endpoint may change under the same name: it is asked again every time."""
    served = [what.machine["machine_id"], backend.name, backend.engine, backend.options, variant.env_hash, variant.variant_id]
    many = [f"{what.at_once} at once"] if (what.at_once or 1) > 1 else []  # one by one changes nothing, and neither does what was found so
    ours = what.model.content_hash if what.model else f"none, slm-profiler {__version__}"  # an engine of ours may serve no model
    weights = made_at if backend.engine == "openai" else ours
    return documents.key_of(served, weights, [what.text.digest, what.tasks.asked, f"top {asking.TOP_K}", *many])


def key_like(document: Mapping[str, Any], backend: BackendSpec, what: Asked) -> str:
    """The key that this backend would have if its variant and environment are still those of the document."""
    kept = document.get("variant") or {}  # empty in somebody else's: then it is nobody's key
    return key_of(backend, Variant(kept.get("variant_id", ""), None, "", None, kept.get("env_hash")), what, "")


def _ask(job: _Job, so_far: dict[str, Any]) -> dict[str, Any]:
    """Start the engine and ask; what is known so far is kept underway. Raises EngineError."""
    backend, what, tell = job.backend, job.what, job.tell
    with job.engine.start(job.variant, backend, job.work / f"{backend.name}.log", tell.working) as running:
        began_s, before_s = time.monotonic(), float(so_far.get("asked_s", 0.0))

        harness_before_s = float(so_far.get("harness_s", 0.0))

        def keep(part: dict[str, Any]) -> None:
            harness_s = part.get("harness_s", 0.0) - harness_before_s
            part["asked_s"] = round(before_s + time.monotonic() - began_s - harness_s, 3)
            documents.keep_part(job.results, job.key, part)

        so_far.setdefault("starts", []).append(running.start_id)
        parts = evaluate(
            running.endpoint,
            what.text,
            what.tasks,
            what.tokenizer_json,
            lambda line: tell.live(f"{backend.name}: {line}"),
            so_far,
            keep,
            lambda ids, log_probs: top_k.keep(job.results, job.key, ids, log_probs),
            what.at_once,
        )
        start = {"start_ids": so_far["starts"], "command": list(running.command), "versions": dict(running.versions)}
    parts["drift"] = ir_logits.added(parts["drift"], backend, job.variant, what.text, job.results, job.key, tell.working)
    needed = effort(what.text.tokens, what.tasks, what.at_once)
    seconds = {name: so_far.get(name) for name in ("asked_s", "harness_s")}
    return {"start": start, "effort": {**seconds, **needed}, **parts}


def summary(document: Mapping[str, Any]) -> str:
    """`perplexity 36.87, 19 of 24 examples passed`."""
    windows = document["drift"]["windows"]
    told = []
    if windows:
        told.append(f"perplexity {math.exp(-math.fsum(map(math.fsum, windows)) / sum(map(len, windows))):.2f}")
    passed = [one["passed"] for one in document["tasks"]["examples"] if one["passed"] is not None]
    if passed:
        told.append(f"{sum(passed)} of {len(passed)} examples passed")
    return ", ".join(told) or "nothing that can be compared"


def _many(parts: Mapping[str, Any], wanted: int | None) -> str:
    found = wanted or (parts["determinism"] or {}).get("parallel", 1)
    return f"{found} requests at once" if found > 1 else "one request at a time"


def _model(model: LocalModel | None, name: str) -> dict[str, Any]:
    if model is None:
        return {"name": name, "content_hash": None, "source": "endpoint"}
    return {"name": model.name, "content_hash": model.content_hash, "source": model.source, "base_precision": model.base_precision}


def _demonstration(model: LocalModel | None) -> str | None:
    """Why the figures of this model only show that evaluation works."""
    if model is None or model.base_precision in ("bf16", "fp16", "f32"):
        return None
    return f"demonstration only: the weights were dequantised from {model.base_precision}, so a quantized variant is quantized twice"

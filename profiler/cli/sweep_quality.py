"""The `[quality]` of a sweep: each of its backends evaluated once, in engine starts of their own, when its last timed cell is done.

After all cells and not between them: the interleaved starts stay as close together as without an evaluation, and whoever stops an
evaluation loses no cell. Never in the start of a timed cell: prefix caching is off here, and the asking is no load that anyone measures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from profiler.errors import ProfilerError, SpecError

if TYPE_CHECKING:
    from profiler.cli.evaluated import Evaluated
    from profiler.cli.progress import Progress
    from profiler.quality.tasks import Tasks
    from profiler.records import LocalModel
    from profiler.spec import BackendSpec, SweepSpec


def check(spec: SweepSpec) -> None:
    """What can be wrong with `[quality]`, before minutes are spent. Raises SpecError, UnknownNameError."""
    if spec.quality is None:
        return
    from profiler.cli.sweep_spec import tokenizer_of
    from profiler.engines import registry

    backends = backends_of(spec)
    for backend in backends:
        registry.get(backend.engine).validate(backend)
    examples(spec)
    if spec.quality.text is not None and not Path(spec.quality.text).is_file():
        raise SpecError(f"{spec.name}: quality.text: {spec.quality.text}: no such file", hint="a text file in UTF-8; paths are from here")
    if not any(registry.get(backend.engine).needs_model for backend in backends) and tokenizer_of(spec, None) is None:
        raise SpecError(
            f"{spec.name}: quality: the text is asked in tokens, and no backend has a model", hint="give tokenizer (--tokenizer)"
        )


def backends_of(spec: SweepSpec) -> list[BackendSpec]:
    """The reference first, each once, as they are evaluated."""
    from profiler import catalog
    from profiler import plan as planning
    from profiler.quality.running import uncached

    assert spec.quality is not None
    own = {backend.name: backend for backend in (*planning.parts(spec)[0], *map(catalog.backend, spec.co_run))}
    wanted = spec.quality.reference
    first = next(iter(own.values())) if wanted is None else own.get(wanted) or catalog.backend(wanted)
    return [uncached(backend) for backend in {first.name: first, **own}.values()]


def examples(spec: SweepSpec) -> Tasks:
    """Raises SpecError."""
    from profiler.quality import tasks

    assert spec.quality is not None
    return tasks.read(Path(spec.quality.tasks) if spec.quality.tasks else None)


def dry_run(spec: SweepSpec, results: Path, *, again: bool) -> tuple[list[str], dict[str, Any]]:
    """The lines of `--dry-run`, and the same for `--json`."""
    from profiler.cli import evaluate_ahead

    assert spec.quality is not None
    what, many = examples(spec), spec.quality.parallel
    found = evaluate_ahead.look(backends_of(spec), spec.model, _folder(spec), _text(spec), what, results, many, again=again)
    return evaluate_ahead.lines(found, what, many), evaluate_ahead.told(found, many)


def evaluate(
    spec: SweepSpec, results: Path, progress: Progress, flags: dict[str, Any], unmeasured: Collection[str] = ()
) -> Evaluated | None:
    """None without `[quality]`. One that fails is named and ends nothing; `unmeasured`: backends of which no cell could be measured."""
    if spec.quality is None:
        return None
    from profiler.cli.evaluated import Evaluated
    from profiler.quality import running

    backends = backends_of(spec)
    found = Evaluated(backends[0].name, spec.quality.margin, spec.quality.drift_margin, [], results)
    left_out = [backend for backend in backends[1:] if backend.name in unmeasured]  # the reference is asked all the same
    for backend in left_out:
        found.failed[backend.name] = "not evaluated: none of its cells could be measured"
    backends = [backend for backend in backends if backend not in left_out]
    progress.note(f"quality: {len(backends)} backend{'s' if len(backends) != 1 else ''} to evaluate, reference {found.reference}")
    try:
        what = _asked(spec, backends, progress, flags)
    except ProfilerError as error:
        progress.note(f"quality: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        found.failed.update({backend.name: error.message for backend in backends})
        return found
    with TemporaryDirectory(prefix="slm-profiler-") as work:
        documents, failed = running.evaluate_all(backends, what, results, Path(work), progress, again=flags["again"])
    found.documents.extend(documents)
    found.failed.update(failed)
    return found


def _asked(spec: SweepSpec, backends: Sequence[BackendSpec], progress: Progress, flags: dict[str, Any]) -> Any:
    from profiler.cli.engines import split_pip_args
    from profiler.cli.sweep import resolve_model
    from profiler.machine.fingerprint import full_fingerprint
    from profiler.quality import running

    assert spec.quality is not None
    tasks = examples(spec)
    for line in tasks.bad_lines:
        progress.note(f"quality: {spec.quality.tasks}: {line}; left out")
    model: LocalModel | None = resolve_model([backend.engine for backend in backends], spec.model, progress, flags)
    what = running.asked(model, spec.model, _folder(spec), _text(spec), tasks, full_fingerprint())
    return replace(what, pip_args=tuple(split_pip_args(flags["pip_args"])), at_once=spec.quality.parallel)


def _text(spec: SweepSpec) -> Path | None:
    return Path(spec.quality.text) if spec.quality and spec.quality.text else None


def _folder(spec: SweepSpec) -> Path | None:
    """Of the tokenizer, where no backend loads a model here."""
    if spec.tokenizer is None:
        return None
    path = Path(spec.tokenizer)
    return path if path.is_dir() else path.parent

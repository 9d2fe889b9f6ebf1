"""`profile evaluate`: start each backend, ask the same text and examples, keep, compare with the reference, print."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from profiler.cli import complete
from profiler.cli.exit_codes import ExitCode
from profiler.cli.results_folder import RESULTS
from profiler.errors import ProfilerError, SpecError

if TYPE_CHECKING:
    from profiler.cli.progress import Progress
    from profiler.quality.tasks import Tasks
    from profiler.quality.windows import Windows
    from profiler.records import LocalModel
    from profiler.spec import BackendSpec

MODEL = "smollm2-135m-instruct"
BACKENDS = ("openvino-xeon-bf16", "openvino-xeon-int8", "openvino-xeon-int4")


@click.command("evaluate")
@click.option("--model", default=MODEL, show_default=True, shell_complete=complete.models, help="Hub id, folder or catalogue name.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=complete.backends,
    help="Backend name or TOML file; repeat to compare.  [default: OpenVINO bf16, int8, int4]",
)
@click.option("--reference", shell_complete=complete.backends, help="The backend the others are compared with.  [default: the first]")
@click.option("--text", type=click.Path(path_type=Path), help="Text file for the perplexity.  [default: one of ours, 1,658 words]")
@click.option("--tasks", type=click.Path(path_type=Path), help="JSON lines of examples.  [default: 24 of ours, too few to rank models]")
@click.option("--harness", metavar="TASKS", help="Tasks of lm-evaluation-harness: names, YAML files or folders, with commas between.")
@click.option("--harness-limit", type=click.IntRange(1), metavar="N", help="Of each of these the first N questions.")
@click.option("--margin", metavar="SHARE", help="How far the pass rate may fall, e.g. 5%. Without it examples get no verdict.")
@click.option("--drift-margin", metavar="SHARE", help="How far the perplexity may rise, e.g. 2%. Without it drift gets no verdict.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Folder with tokenizer.json, where no backend loads a model here.")
@click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
@click.option("--again", is_flag=True, help="Evaluate once more what is already there.")
@click.option("--pip-args", multiple=True, metavar="ARGS", help="Passed to pip when an engine environment is built.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model. Off unless you say so.")
@click.option("--fail-on-quality", is_flag=True, help="Exit 3 unless every variant is proven non-inferior.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(results: Path, **flags: Any) -> int:
    """Say whether a variant is still as good as its reference.

    The same text and the same examples go through each backend's server, one request at a time, with prefix caching off; nothing is timed.
    Verdicts: NON-INFERIOR or INFERIOR by more than the margin, each with 95 % confidence, or UNDECIDED with what would decide it.

    \b
    profile evaluate --drift-margin 2% --margin 5%
    profile evaluate --model ./my-model --backend vllm-cuda-bf16 --backend vllm-cuda-fp8 --tasks mine.jsonl --margin 3%
    """
    from profiler.analyse.quality_rows import rows
    from profiler.cli import evaluate_show, harness_show
    from profiler.cli.progress import Progress
    from profiler.quality import tasks as examples

    margin, drift_margin = _share("--margin", flags["margin"]), _share("--drift-margin", flags["drift_margin"])
    if flags["fail_on_quality"] and margin is None and drift_margin is None:
        raise SpecError("--fail-on-quality: no margin was stated", hint="give --margin or --drift-margin")
    backends = _backends(flags["backends"] or BACKENDS, flags["reference"])
    tasks, progress = examples.read(flags["tasks"]), Progress(len(backends))
    for line in tasks.bad_lines:
        progress.note(f"{flags['tasks']}: {line}; left out")
    tasks = _with_harness(tasks, progress, flags)
    documents, failed = _evaluate_all(backends, tasks, results, progress, flags)
    reference = next((document for document in documents if document["backend"]["name"] == backends[0].name), None)
    table = rows(documents, reference, drift_margin, margin)
    if flags["as_json"]:
        report = {"reference": backends[0].name, "margin": margin, "drift_margin": drift_margin, "failed": failed}
        if tasks.harness:
            report["harness"] = harness_show.as_json(documents)
        click.echo(json.dumps(report | {"variants": [asdict(row) for row in table]}, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        evaluate_show.show(table, documents, failed)
    if not documents:
        return 1
    judged = [row.verdict for row in table if not row.is_reference]
    proven = not failed and all(result == "NON-INFERIOR" for result in judged)
    return ExitCode.NOT_PROVEN if flags["fail_on_quality"] and not proven else 0


def _share(option: str, text: str | None) -> float | None:
    """`5%` or `0.05`. Raises SpecError."""
    if text is None:
        return None
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise SpecError(f"{option} {text!r}: not a share between 0 and 1", hint="write 5% or 0.05")
    return value


def _backends(names: tuple[str, ...], reference: str | None) -> list[BackendSpec]:
    """The reference first, each once; one server each, without a prefix cache. Raises SpecError, UnknownNameError."""
    from profiler import catalog
    from profiler.engines import registry

    found: dict[str, BackendSpec] = {}
    for name in ([reference] if reference else []) + list(names):
        backend = catalog.backend(name)
        registry.get(backend.engine).validate(backend)
        found.setdefault(backend.name, backend.model_copy(update={"replicas": 1, "options": _uncached(backend)}))
    return list(found.values())


def _uncached(backend: BackendSpec) -> dict[str, Any]:
    """A prefix-cache hit has no log-probabilities, and takes values that another batch computed."""
    return {**backend.options, "prefix_caching": False} if backend.engine in ("openvino", "vllm") else dict(backend.options)


def _evaluate_all(
    backends: list[BackendSpec], tasks: Tasks, results: Path, progress: Progress, flags: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The documents in the order of the backends, and why the others have none; one failure ends nothing."""
    from profiler.cli.sweep import resolve_model
    from profiler.machine.fingerprint import full_fingerprint
    from profiler.quality import windows

    model = resolve_model([backend.engine for backend in backends], flags["model"], progress, flags)
    folder = model.folder if model else flags["tokenizer"]
    if folder is None or not (folder / "tokenizer.json").is_file():
        raise SpecError("the text is asked in tokens, and there is no tokenizer.json", hint="give --tokenizer FOLDER")
    text = windows.read(flags["text"], folder / "tokenizer.json")
    machine = full_fingerprint()
    documents, failed = [], {}
    with TemporaryDirectory(prefix="slm-profiler-") as work:
        for backend in backends:
            try:
                documents.append(
                    _one(backend, model, folder / "tokenizer.json", text, tasks, machine, results, Path(work), progress, flags)
                )
            except ProfilerError as error:
                failed[backend.name] = error.message
                progress.note(f"{backend.name}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    return documents, failed


def _one(
    backend: BackendSpec,
    model: LocalModel | None,
    tokenizer_json: Path,
    text: Windows,
    tasks: Tasks,
    machine: dict[str, Any],
    results: Path,
    work: Path,
    progress: Progress,
    flags: dict[str, Any],
) -> dict[str, Any]:
    """The stored document, or a new one. Raises ProfilerError."""
    from profiler import __version__
    from profiler.cli.engines import split_pip_args
    from profiler.engines import registry
    from profiler.machine.needs import unmet
    from profiler.quality import documents
    from profiler.quality.evaluate import evaluate

    engine = registry.get(backend.engine)
    problems = [*unmet(backend), *engine.problems(backend)]
    if problems:
        raise ProfilerError(f"cannot run here: {'; '.join(problems)}", hint="`profile list backends` shows those that can")
    variant = engine.prepare(model, backend, progress.working, split_pip_args(flags["pip_args"]))
    made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    asked = [text.digest, tasks.asked]
    served = [machine["machine_id"], backend.name, backend.engine, backend.options, variant.env_hash, variant.variant_id]
    # What runs behind somebody else's endpoint may change under the same name: it is asked again every time.
    key = documents.key_of(served, model.content_hash if model else made_at, asked)
    stored = None if flags["again"] else documents.load(results, key)
    if stored is not None:
        progress.note(f"{backend.name}: evaluated already, {stored['made_at']}")
        return stored
    if flags["again"]:
        documents.forget_part(results, key)
    so_far = documents.load_part(results, key)
    if so_far:
        progress.note(f"{backend.name}: goes on after {len(so_far.get('examples', []))} of {len(tasks.examples)} examples")
    with engine.start(variant, backend, work / f"{backend.name}.log", progress.working) as running:
        so_far.setdefault("starts", []).append(running.start_id)
        parts = evaluate(
            running.endpoint,
            text,
            tasks,
            tokenizer_json,
            lambda line: progress.live(f"{backend.name}: {line}"),
            so_far,
            lambda part: documents.keep_part(results, key, part),
        )
        started = {"start_ids": so_far["starts"], "command": list(running.command), "versions": dict(running.versions)}
    document = {
        "made_at": made_at,
        "profiler_version": __version__,
        "model": _model(model, flags["model"]),
        "backend": {"name": backend.name, "engine": backend.engine, "options": backend.options},
        "variant": {"variant_id": variant.variant_id, "precision": variant.precision, "size_bytes": variant.size_bytes}
        | {"details": dict(variant.details), "env_hash": variant.env_hash},
        "start": started,
        "machine": machine,
        "demonstration_only": _demonstration(model),
        "asked": "one request at a time, greedy, prefix caching off",
        **parts,
    }
    documents.keep(results, key, document)
    kept = documents.load(results, key)
    assert kept is not None
    return kept


def _model(model: LocalModel | None, name: str) -> dict[str, Any]:
    if model is None:
        return {"name": name, "content_hash": None, "source": "endpoint"}
    return {"name": model.name, "content_hash": model.content_hash, "source": model.source, "base_precision": model.base_precision}


def _demonstration(model: LocalModel | None) -> str | None:
    """Why the figures of this model only show that evaluation works."""
    if model is None or model.base_precision in ("bf16", "fp16", "f32"):
        return None
    return f"demonstration only: the weights were dequantised from {model.base_precision}, so a quantized variant is quantized twice"


def _with_harness(tasks: Tasks, progress: Progress, flags: dict[str, Any]) -> Tasks:
    """Loads the tasks before any server starts: a wrong name is said at once. Raises SpecError."""
    from profiler.cli.engines import split_pip_args
    from profiler.quality import lm_eval

    if flags["harness"] is None:
        if flags["harness_limit"] is not None:
            raise SpecError("--harness-limit: without --harness there is nothing to limit", hint="give --harness TASK")
        return tasks
    read = lm_eval.read(flags["harness"], flags["harness_limit"], progress.working, split_pip_args(flags["pip_args"]))
    return replace(tasks, harness=read)

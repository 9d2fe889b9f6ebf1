"""`profile evaluate`: start each backend, ask the same text and examples, keep, compare with the reference, print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from profiler.cli import complete
from profiler.cli.exit_codes import ExitCode
from profiler.cli.results_folder import RESULTS
from profiler.errors import SpecError

if TYPE_CHECKING:
    from profiler.cli.progress import Progress
    from profiler.quality.tasks import Tasks
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
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    metavar="N",
    help="Requests asked at once.  [default: the most at which no answer changes, found by asking]",
)
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Folder with tokenizer.json, where no backend loads a model here.")
@click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
@click.option("--again", is_flag=True, help="Evaluate once more what is already there.")
@click.option("--pip-args", multiple=True, metavar="ARGS", help="Passed to pip when an engine environment is built.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model. Off unless you say so.")
@click.option("--fail-on-quality", is_flag=True, help="Exit 3 unless every variant is proven non-inferior.")
@click.option("--dry-run", is_flag=True, help="Show what would be asked of whom, what is there already, and about how long; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(results: Path, **flags: Any) -> int:
    """Say whether a variant is still as good as its reference.

    The same text and the same examples go through each backend's server, at a load that does not change the answers, with prefix caching off;
    nothing is timed.
    Verdicts: NON-INFERIOR or INFERIOR by more than the margin, each with 95 % confidence, or UNDECIDED with what would decide it.

    \b
    profile evaluate --drift-margin 2% --margin 5%
    profile evaluate --model ./my-model --backend vllm-cuda-bf16 --backend vllm-cuda-fp8 --tasks mine.jsonl --margin 3%
    """
    from profiler.analyse.margins import share
    from profiler.cli import harness_show
    from profiler.cli.evaluated import Evaluated
    from profiler.cli.progress import Progress
    from profiler.quality import tasks as examples

    margin, drift_margin = share("--margin", flags["margin"]), share("--drift-margin", flags["drift_margin"])
    if flags["fail_on_quality"] and margin is None and drift_margin is None:
        raise SpecError("--fail-on-quality: no margin was stated", hint="give --margin or --drift-margin")
    backends = _backends(flags["backends"] or BACKENDS, flags["reference"])
    if flags["fail_on_quality"] and len(backends) < 2:
        raise SpecError("--fail-on-quality: only the reference is evaluated, nothing is compared", hint="give a second --backend")
    tasks, progress = examples.read(flags["tasks"]), Progress(len(backends))
    for line in tasks.bad_lines:
        progress.note(f"{flags['tasks']}: {line}; left out")
    if flags["harness_limit"] is not None and flags["harness"] is None:
        raise SpecError("--harness-limit: without --harness there is nothing to limit", hint="give --harness TASK")
    if flags["dry_run"]:
        from profiler.cli.evaluate_ahead import dry_run

        dry_run(backends, tasks, results, flags)
        return 0
    tasks = _with_harness(tasks, progress, flags)
    documents, failed = _evaluate_all(backends, tasks, results, progress, flags)
    found = Evaluated(backends[0].name, margin, drift_margin, documents, results, failed)
    if flags["as_json"]:
        harness = {"harness": harness_show.as_json(documents)} if tasks.harness else {}
        click.echo(json.dumps(found.told() | harness, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        found.show()
    if not found.documents:
        return 1
    return ExitCode.NOT_PROVEN if flags["fail_on_quality"] and not found.proven else 0


def _backends(names: tuple[str, ...], reference: str | None) -> list[BackendSpec]:
    """The reference first, each once, as they are evaluated. Raises SpecError, UnknownNameError."""
    from profiler import catalog
    from profiler.engines import registry
    from profiler.quality.running import uncached

    found: dict[str, BackendSpec] = {}
    for name in ([reference] if reference else []) + list(names):
        backend = catalog.backend(name)
        registry.get(backend.engine).validate(backend)
        found.setdefault(backend.name, uncached(backend))
    return list(found.values())


def _evaluate_all(
    backends: list[BackendSpec], tasks: Tasks, results: Path, progress: Progress, flags: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The documents in the order of the backends, and why the others have none."""
    from profiler.cli.engines import split_pip_args
    from profiler.cli.sweep import resolve_model
    from profiler.machine.fingerprint import full_fingerprint
    from profiler.quality import running

    model = resolve_model([backend.engine for backend in backends], flags["model"], progress, flags)
    what = running.asked(model, flags["model"], flags["tokenizer"], flags["text"], tasks, full_fingerprint())
    what = replace(what, pip_args=tuple(split_pip_args(flags["pip_args"])), at_once=flags["parallel"])
    with TemporaryDirectory(prefix="slm-profiler-") as work:
        return running.evaluate_all(backends, what, results, Path(work), progress, again=flags["again"])


def _with_harness(tasks: Tasks, progress: Progress, flags: dict[str, Any]) -> Tasks:
    """Loads the tasks before any server starts: a wrong name is said at once. Raises SpecError, EnvironmentError_."""
    from profiler.cli.engines import split_pip_args
    from profiler.quality import lm_eval

    if flags["harness"] is None:
        return tasks
    read = lm_eval.read(flags["harness"], flags["harness_limit"], progress.working, split_pip_args(flags["pip_args"]))
    return replace(tasks, harness=read)

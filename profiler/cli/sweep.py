"""`profile sweep`: load the spec, plan the cells, measure what is missing, keep, judge, print, report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from profiler.cli import complete
from profiler.cli.exit_codes import ExitCode
from profiler.cli.results_folder import RESULTS
from profiler.errors import ProfilerError

if TYPE_CHECKING:
    from profiler.analyse.memory import Prediction
    from profiler.cli.progress import Progress
    from profiler.plan import Plan, Start
    from profiler.records import LocalModel
    from profiler.report.selection import Selection
    from profiler.store.store import Store


@click.command("sweep")
@click.argument("spec_file", required=False, metavar="[SPEC.toml]")
@click.option(
    "--model",
    shell_complete=complete.models,
    help="Hub id, folder, catalogue name or synthetic:NAME. With --url: the name the endpoint serves.",
)
@click.option(
    "--backend", "backends", multiple=True, shell_complete=complete.backends, help="Backend name or TOML file; repeat to compare."
)
@click.option("--co-run", metavar="A,B", help="Backends to measure at once on this machine: each alone and all together.")
@click.option(
    "--workload", "workloads", multiple=True, shell_complete=complete.workloads, help="Workload name or TOML file; repeat for several."
)
@click.option("--concurrency", metavar="N,N,…|auto", help="Closed loop: that many users, each waits for its answer.")
@click.option("--rate", "rates", metavar="R,R,…", help="Open loop: requests arrive at R per second, whatever the server does.")
@click.option(
    "--arrivals", metavar="HOW", help="Open loop: poisson (default), constant, gamma:cv=2, ramp:from=1,to=4,over=60s, step:1x30s,3x30s."
)
@click.option("--think", metavar="TIME", help="Closed loop: pause between an answer and the next request, 2s or exponential:2s.")
@click.option("--trace", metavar="FILE", help="Replay FILE (Azure, BurstGPT, Mooncake, own JSONL) in place of a trace workload's file.")
@click.option("--qos", shell_complete=complete.presets, help='QoS target, e.g. "ttft_p95<=1s, tpot_p95<=80ms".')
@click.option("--url", help="Measure an OpenAI-compatible endpoint that already runs (its /v1 URL) instead of a backend.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Folder with the model's tokenizer.json (for --url).")
@click.option("--endpoint", "endpoint_kind", type=click.Choice(["completions", "chat"]), help="Which endpoint to send to.")
@click.option("--device", metavar="TEXT", help="What the endpoint runs on, in your words: declared, as nobody here can see it.")
@click.option("--device-count", type=int, help="How many of these devices serve the endpoint.")
@click.option("--price-usd-per-hour", type=float, help="What the whole endpoint costs, all its devices.")
@click.option("--server-metrics", metavar="URL", help="The server's counters: a Prometheus text page, or a query of Prometheus's API.")
@click.option("--isl", type=int, help="Input tokens per request, with --osl instead of a workload.")
@click.option("--osl", type=int, help="Output tokens per request.")
@click.option("--requests", type=int, help="Finished requests each cell needs at least.")
@click.option("--precision", metavar="SHARE", help="End a cell once p50 and p95 of TTFT and TPOT are known this well, e.g. 10%.")
@click.option("--until", type=click.Choice(["requests", "decided"]), help="decided: end a cell once its QoS target is.")
@click.option("--duration", metavar="TIME", help="Shortest window of a cell, e.g. 20s.")
@click.option("--repeats", type=int, help="Engine starts per backend, interleaved.")
@click.option("--find-limit", is_flag=True, help="Search the highest request rate that keeps --qos, instead of measuring given loads.")
@click.option("--most-starts", type=int, metavar="N", help="With --find-limit: engine starts it may take per backend.  [default: 8]")
@click.option("--rung", metavar="SHARE", help="With --find-limit: how well the limit has to be known, either side.  [default: 5%]")
@click.option("--seed", type=int, help="Seed of prompts, arrivals and the order of cells.")
@click.option("--client-cpus", metavar="N,N,…", help="Pin the load client to these cores. Keep the engine off them.")
@click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Where the report goes.  [default: RESULTS/report.html]")
@click.option("--again", is_flag=True, help="Measure cells that are already in the store once more.")
@click.option("--pip-args", multiple=True, metavar="ARGS", help="Passed to pip when an engine environment is built.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model. Off unless you say so.")
@click.option("--fail-on-qos", is_flag=True, help="Exit 3 unless every cell FITS its QoS target.")
@click.option("--dry-run", is_flag=True, help="Show the planned cells, their order and the time they take; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(spec_file: str | None, results: Path, out: Path | None, **flags: Any) -> int:
    """Measure models on backends under workloads.

    Without arguments: the quickstart (a 135M model in bf16, int8 and int4 on this CPU, two workloads, twenty to forty minutes). Stop it at
    any time with Ctrl-C: finished cells are kept, and the same command goes on with the missing ones.

    \b
    profile sweep
    profile sweep --model ./my-model --backend openvino-xeon-int8 --workload chat --concurrency 1,2,4,8 --qos "ttft_p95<=1s"
    profile sweep --url http://host:8000/v1 --model NAME --tokenizer ./folder --isl 128 --osl 128 --concurrency 64 --duration 20s
    profile sweep my-sweep.toml --dry-run
    """
    from profiler import plan as planning
    from profiler.cli import sweep_quality, sweep_show
    from profiler.cli.sweep_spec import read_spec

    spec = read_spec(spec_file, flags)
    sweep_quality.check(spec)
    if spec.find_limit:
        from profiler.cli.find_limit import find_limit

        return find_limit(spec, results, out, flags)
    plan = planning.make(spec)
    check(plan)
    if flags["dry_run"]:
        quality = sweep_quality.dry_run(spec, results, again=flags["again"]) if spec.quality else None
        sweep_show.dry_run(plan, quality, as_json=flags["as_json"])
        return 0

    from profiler.analyse.recover import open_store
    from profiler.cli.progress import Progress
    from profiler.report import html
    from profiler.report.selection import of_cells

    store = open_store(results)
    if flags["again"]:
        plan = planning.make(spec, first_repeat=store.next_repeat(plan.cell_ids))
    progress = Progress(len(plan.cells))
    sweep_show.announce(plan, progress)
    measure(plan, store, progress, flags)
    evaluated = sweep_quality.evaluate(spec, results, progress, flags, unmeasured(plan, store))
    selection = of_cells(store, plan.sweep_id, plan.cell_ids)
    report = html.write(selection, out or results / "report.html")
    sweep_show.answer(selection, report, evaluated, as_json=flags["as_json"])
    return exit_code(selection, progress, flags["fail_on_qos"])


def check(plan: Plan) -> None:
    """Everything that can be wrong before minutes are spent: QoS targets, engine options, what this machine cannot run."""
    from profiler.analyse import qos
    from profiler.engines import registry

    for target in {cell.qos for cell in plan.cells if cell.qos}:
        qos.parse(target)
    for backend in (backend for start in plan.starts for backend in start.backends):
        registry.get(backend.engine).validate(backend)


def measure(plan: Plan, store: Store, progress: Progress, flags: dict[str, Any]) -> None:
    """Prepare and start each backend in the plan's order and measure its missing cells; one failure never ends the sweep."""
    from profiler.analyse.assess import SweepFacts
    from profiler.cli.sweep_co_run import measure_co_run
    from profiler.cli.sweep_spec import tokenizer_of
    from profiler.machine.fingerprint import full_fingerprint

    facts = SweepFacts(plan.sweep_id, plan.cell_ids, plan.sweep, full_fingerprint())
    model = resolve_model([backend.engine for start in plan.starts for backend in start.backends], plan.sweep.model, progress, flags)
    tokenizer_json = tokenizer_of(plan.sweep, model)
    with TemporaryDirectory(prefix="slm-profiler-") as work:
        for start in plan.starts:
            one = measure_co_run if start.others else measure_backend
            one(start, facts, store, model, tokenizer_json, Path(work), progress, flags)


def measure_backend(
    start: Start,
    facts: Any,
    store: Store,
    model: LocalModel | None,
    tokenizer_json: Path | None,
    work: Path,
    progress: Progress,
    flags: dict[str, Any],
) -> None:
    """One engine start: prepare, skip what is measured, measure the rest, keep each cell as it ends."""
    from profiler.analyse.assess import failed
    from profiler.cli.measuring import measured_runs, prepare

    start, forecasts = keep_fitting(start, facts, store, model, progress)
    if not start.cells:
        return
    try:
        engine, variant, environment = prepare(start.backend, facts, model, progress, flags)
    except ProfilerError as error:
        progress.note(f"{start.backend.name}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        for cell in start.cells:
            store.keep(failed(facts, cell, start.repeat, error.message, model))
            progress.cell_done(cell, f"failed: {error.message}", failed=True)
        return
    done = store.measured()
    missing = [cell for cell in start.cells if (cell.cell_id, environment, start.repeat) not in done]
    progress.already(len(start.cells) - len(missing), start.backend.name)
    for _ in measured_runs(start, missing, engine, variant, environment, facts, store, model, tokenizer_json, work, progress, forecasts):
        pass


def keep_fitting(
    start: Start, facts: Any, store: Store, model: LocalModel | None, progress: Progress
) -> tuple[Start, dict[str, Prediction | None]]:
    """The start without the cells whose memory does not fit (recorded as failed, with the numbers), and each cell's prediction.

    A cell that the store has measured stays in: little free memory today is no failure of what was measured.
    """
    from profiler.analyse.assess import failed
    from profiler.analyse.memory import forecast

    measured = {(cell_id, repeat) for cell_id, _, repeat in store.measured()}
    forecasts: dict[str, Prediction | None] = {}
    fitting = []
    for cell in start.cells:
        predicted = forecasts[cell.cell_id] = forecast(cell, model, facts.machine.get("isa") or ())
        if predicted is None or predicted.problem is None or (cell.cell_id, start.repeat) in measured:
            fitting.append(cell)
            continue
        store.keep(failed(facts, cell, start.repeat, predicted.problem, model, predicted))
        progress.cell_done(cell, f"failed: {predicted.problem}", failed=True)
    return replace(start, cells=tuple(fitting)), forecasts


def unmeasured(plan: Plan, store: Store) -> set[str]:
    """Backends of the plan of which no cell was ever measured: too little memory, an engine that does not start."""
    ids = set(plan.cell_ids)
    measured = {str(row["backend"]) for row in store.rows() if row["cell_id"] in ids and row["status"] == "done"}
    return {backend.name for start in plan.starts for backend in start.backends} - measured


def resolve_model(engines: Iterable[str], name: str, progress: Progress, flags: dict[str, Any]) -> LocalModel | None:
    """The model on this disk, or None when none of the engines loads one."""
    from profiler import environments, models
    from profiler.cli.engines import split_pip_args
    from profiler.engines import registry

    if not any(registry.get(engine).needs_model for engine in engines):
        return None

    def convert_python() -> Path:
        spec = environments.ENVIRONMENTS["openvino-export"]
        return environments.ensure(spec, progress.working, split_pip_args(flags["pip_args"])).python

    return models.resolve(name, progress.working, trust_remote_code=flags["trust_remote_code"], convert_python=convert_python)


def exit_code(selection: Selection, progress: Progress, fail_on_qos: bool) -> int:
    """0; 1 when every cell failed; 3 with --fail-on-qos when a target is not proven to be met."""
    if progress.failed and progress.failed == progress.done:
        return 1
    return ExitCode.NOT_PROVEN if fail_on_qos and any(row["qos_result"] != "FITS" for row in selection.rows) else 0

"""One cell, measured: prompts -> bodies -> load -> records. Knows nothing of the store, of verdicts or of where it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import LoadError
from profiler.plan import Cell
from profiler.records import DriveResult, Endpoint, LoadPlan, RequestRecord
from profiler.run.bodies import PATHS, make_body
from profiler.run.decode import RequestMeta, decode
from profiler.run.drive import DriveProgress, drive
from profiler.run.enough import Looks, Rule
from profiler.run.system import Sampler, SystemUse
from profiler.workload import arrivals
from profiler.workload.prompts import PromptSet, build

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# No engine of today answers a stream faster than this, so a window never needs more prepared prompts than it allows.
FASTEST_TTFT_S, FASTEST_TPOT_S = 0.01, 0.002
MAX_PROMPTS = 20_000
SAMPLES = 3  # answers kept as text in a run


@dataclass(frozen=True)
class Measured:
    """A finished cell, before anything is computed from it."""

    cell: Cell
    requests: Sequence[RequestRecord]
    drive: DriveResult
    prompts: PromptSet
    samples: Sequence[dict[str, str]]  # {"prompt_tail", "answer"}
    system: SystemUse | None = None
    prefix_hit_rate: float | None = None  # by the server's counters, over the whole run
    looks: int = 0  # at the cohort while it grew
    cut_s: float = 0.0  # by how much the window was opened later than planned


def measure(
    cell: Cell,
    endpoint: Endpoint,
    tokenizer_json: Path | None,
    max_context_tokens: int | None,
    folder: Path,
    on_progress: Callable[[DriveProgress], None] | None = None,
    rule: Rule | None = None,
    engine_pid: int | None = None,
) -> Measured:
    """Offer the cell's load to `endpoint` and decode what came back. `folder` keeps the client's spool.

    `rule` lets the run end as soon as it has seen enough; without one the cohort is the sweep's. `engine_pid` is the server's, if ours.
    Raises LoadError when the client could not do its work, or when not one request of the cohort was answered.
    """
    asked = cell
    if rule is not None:
        cell = replace(cell, sweep=cell.sweep.model_copy(update={"requests": rule.most}))
    spec = cell.sweep
    prompts = build(cell.workload, tokenizer_json, prompt_count(cell), cell.prompt_seed, max_context_tokens)
    tokenizer = _tokenizer(tokenizer_json)
    chat = spec.endpoint_kind == "chat"
    bodies = [
        make_body(
            prompt,
            endpoint.model,
            kind=spec.endpoint_kind,
            pin_output=cell.workload.pin_output,
            text=_text(prompt.token_ids, tokenizer) if chat else None,
        )
        for prompt in prompts.prompts
    ]
    meta = [
        RequestMeta(prompt.request_id, prompt.session_id, prompt.turn, len(prompt.token_ids), prompt.max_tokens)
        for prompt in prompts.prompts
    ]
    count = (lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)) if tokenizer else None
    looks = Looks(rule, folder, meta, count) if rule is not None else None
    with Sampler(engine_pid) as sampler:
        result = drive(endpoint, PATHS[spec.endpoint_kind], bodies, load_plan(cell), folder, on_progress, enough=looks)
    if looks is not None:
        looks.finish()
        if result.stop_reason == "precise enough" and looks.reason:
            result = replace(result, stop_reason=looks.reason)
    decoded = decode(folder, meta, count)
    requests = decoded.requests
    result = replace(result, read_delay_p50_s=decoded.read_delay_p50_s, read_delay_p99_s=decoded.read_delay_p99_s)
    if not any(r.in_window and r.error_kind is None for r in requests):
        errors = sorted({f"{r.error_kind}: {r.error}" for r in requests if r.error_kind and r.error_kind != "cancelled"})
        raise LoadError(f"no request of the window was answered ({result.stop_reason})", detail="\n".join(errors[:5]) or None)
    return Measured(
        asked,
        requests,
        result,
        prompts,
        _samples(requests, prompts, tokenizer),
        system=sampler.over(result.window_open_ns, result.window_close_ns),
        looks=looks.taken if looks is not None else 0,
    )


def load_plan(cell: Cell) -> LoadPlan:
    """The load of a cell: warm-up at the cell's own load, then the window.

    A closed loop warms up until every slot has been answered once; an open loop for `warmup_s`. Open-loop arrivals go on past the
    longest window by one request time-out, so that the load is still there while the last requests of the cohort are served.
    """
    spec = cell.sweep
    offsets: tuple[int, ...] = ()
    if cell.load_kind == "rate":
        horizon_s = spec.warmup_s + spec.window_max_s + spec.request_timeout_s
        offsets = arrivals.poisson_offsets_ns(cell.load, horizon_s, cell.prompt_seed)
    return LoadPlan(
        kind=cell.load_kind,
        load=cell.load,
        warmup_s=spec.warmup_s,
        warmup_requests=int(cell.load) if cell.load_kind == "concurrency" else 0,
        window_min_s=spec.window_min_s,
        window_max_s=spec.window_max_s,
        cohort_min=spec.requests,
        request_timeout_s=spec.request_timeout_s,
        offsets_ns=offsets,
    )


def prompt_count(cell: Cell) -> int:
    """How many different prompts to prepare: enough for the cohort, the warm-up and the drain, or for the shortest window."""
    spec = cell.sweep
    if cell.load_kind == "rate":
        return min(MAX_PROMPTS, int(2 * spec.requests + cell.load * (2 * spec.window_min_s + spec.warmup_s + spec.request_timeout_s)) + 1)
    lengths = cell.workload.lengths
    osl = lengths.osl if isinstance(lengths.osl, int) else min(lengths.osl.values())
    fastest_s = FASTEST_TTFT_S + osl * FASTEST_TPOT_S
    busiest = cell.load * (spec.window_min_s + spec.warmup_s) / fastest_s
    return min(MAX_PROMPTS, int(max(2 * spec.requests, busiest) + 8 * cell.load))


def _tokenizer(tokenizer_json: Path | None) -> Tokenizer | None:
    if tokenizer_json is None:
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer_json))


def _text(token_ids: Sequence[int], tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        raise LoadError("a chat endpoint takes text, and there is no tokenizer to write it with", hint="give --tokenizer FOLDER")
    return str(tokenizer.decode(list(token_ids)))


def _samples(requests: Sequence[RequestRecord], prompts: PromptSet, tokenizer: Tokenizer | None) -> list[dict[str, str]]:
    by_id = {prompt.request_id: prompt for prompt in prompts.prompts}
    samples: list[dict[str, str]] = []
    for request in requests:
        if request.text and len(samples) < SAMPLES and request.request_id in by_id:
            tail = _text(by_id[request.request_id].token_ids[-40:], tokenizer) if tokenizer else ""
            samples.append({"prompt_tail": tail, "answer": request.text})
    return samples

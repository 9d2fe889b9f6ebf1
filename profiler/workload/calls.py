"""What a workload's requests consist of, before any token exists: pure functions of a spec and a seed.

A prompt is a row of pieces. A piece is a run of tokens with an identity: wherever it occurs, it starts with the same tokens. Shared
system prompts, a session's history and a trace's cache blocks are all pieces that occur more than once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from profiler.errors import SpecError
from profiler.spec import PromptsSpec, WorkloadSpec
from profiler.workload import lengths


class Piece(NamedTuple):
    """`tokens` tokens from the start of the text that (`space`, `number`) names."""

    space: str
    number: int
    tokens: int


@dataclass(frozen=True)
class Call:
    """One request to come. `parents`: positions of the calls whose answers it needs; `delay_ns`: its wait after the last of them."""

    pieces: tuple[Piece, ...]
    osl: int
    session_id: str | None = None
    turn: int = 0
    parents: tuple[int, ...] = ()
    delay_ns: int = 0

    @property
    def isl(self) -> int:
        return sum(piece.tokens for piece in self.pieces)


@dataclass(frozen=True)
class Fitted:
    """Calls cut to a context. `cut_share`: share of the calls that were shortened, or left out because their history had outgrown it."""

    calls: tuple[Call, ...]
    cut_share: float


def single(workload: WorkloadSpec, n: int, seed: int) -> tuple[Call, ...]:
    """`n` calls that know nothing of one another. The first k of a longer draw are the draw of k."""
    assert workload.lengths is not None
    pairs = lengths.draw(workload.lengths, n, seed)
    return tuple(Call(first_pieces(workload.prompts, number, isl, seed), osl) for number, (isl, osl) in enumerate(pairs))


def first_pieces(prompts: PromptsSpec, number: int, isl: int, seed: int) -> tuple[Piece, ...]:
    """The prompt of a call without history: its shared prefix, if any, then at least one token of its own."""
    shared, group = 0, 0
    if prompts.shared_prefix is not None:
        group = random.Random(f"{seed}/group/{number}").randrange(prompts.shared_prefix.groups)
        shared = min(prompts.shared_prefix.tokens, isl - 1)
    elif prompts.hit_rate is not None:
        shared = min(round(prompts.hit_rate * isl), isl - 1)
    own = Piece("own", number, isl - shared)
    return (Piece("group", group, shared), own) if shared else (own,)


def declared_hit_rate(prompts: PromptsSpec, calls: Sequence[Call]) -> float | None:
    """Share of the input tokens that lie in a shared prefix: the hit rate once every group has been seen. None where none is declared."""
    if prompts.hit_rate is not None:
        return prompts.hit_rate
    if prompts.shared_prefix is None:
        return None
    shared = sum(piece.tokens for call in calls for piece in call.pieces if piece.space == "group")
    return shared / max(1, sum(call.isl for call in calls))


def fit(calls: Sequence[Call], max_context_tokens: int | None) -> Fitted:
    """Cut calls to the model's context.

    A call without history loses the end of its input (an answer of the asked length is what the timing needs). A call whose history
    has outgrown the context is left out with all that depend on it, as a user starts anew then. Raises SpecError when not even one
    token fits.
    """
    if max_context_tokens is None:
        return Fitted(tuple(calls), 0.0)
    if max_context_tokens < 2:
        raise SpecError(f"a context of {max_context_tokens} tokens leaves no room for a prompt and an answer")
    kept: list[Call] = []
    place: dict[int, int] = {}
    cut = 0
    for number, call in enumerate(calls):
        if any(parent not in place for parent in call.parents):
            cut += 1
            continue
        fits = call.isl + call.osl <= max_context_tokens
        if not fits:
            cut += 1
            if call.parents:
                continue
            osl = min(call.osl, max_context_tokens - 1)
            call = replace(call, pieces=shorten(call.pieces, max_context_tokens - osl), osl=osl)
        place[number] = len(kept)
        kept.append(replace(call, parents=tuple(place[parent] for parent in call.parents)) if call.parents else call)
    return Fitted(tuple(kept), cut / len(calls) if calls else 0.0)


def shorten(pieces: Sequence[Piece], tokens: int) -> tuple[Piece, ...]:
    """The first `tokens` tokens of a row of pieces."""
    kept: list[Piece] = []
    for piece in pieces:
        if tokens <= 0:
            break
        kept.append(piece if piece.tokens <= tokens else piece._replace(tokens=tokens))
        tokens -= piece.tokens
    return tuple(kept)

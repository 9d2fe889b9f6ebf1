"""How much of a load an infinite prefix cache would have seen before: the bound of every real one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from profiler.workload.calls import Call, Piece


@dataclass
class _Node:
    """What has followed one prefix: per text, how many of its tokens were seen, and what followed the whole piece."""

    seen: dict[tuple[str, int], int] = field(default_factory=dict)
    after: dict[Piece, _Node] = field(default_factory=dict)


def prefix_reuse(
    calls: Sequence[Call], order: Iterable[int] | None = None, counted: Collection[int] | None = None, block: int = 1
) -> float | None:
    """Tokens that a prefix cache without end would have found / input tokens.

    Calls are sent in `order` (positions in `calls`; their own order by default). A token is found when an earlier prompt began with
    all tokens up to it. Only `counted` calls are summed up (all by default); the others still fill the cache. A real cache finds
    less: whole blocks only, nothing evicted, nothing still being computed. `block` above 1 allows for the first of these: whole blocks
    of so many tokens, and never the last token of a prompt, which has to be computed for the first of the answer (vLLM's rule). None when
    no input token is counted.
    """
    root = _Node()
    found = total = 0
    for number in range(len(calls)) if order is None else order:
        hit = _walk(root, calls[number].pieces)
        if counted is None or number in counted:
            found += hit if block == 1 else max(0, min(hit, calls[number].isl - 1)) // block * block
            total += calls[number].isl
    return found / total if total else None


def _walk(node: _Node, pieces: Sequence[Piece]) -> int:
    """Tokens of `pieces` already known from `node` on; makes all of them known."""
    hit, known = 0, True
    for piece in pieces:
        key = (piece.space, piece.number)
        before = node.seen.get(key, 0)
        if known:
            hit += min(before, piece.tokens)
            known = before >= piece.tokens
        node.seen[key] = max(before, piece.tokens)
        node = node.after.setdefault(piece, _Node())
    return hit

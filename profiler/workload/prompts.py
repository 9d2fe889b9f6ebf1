"""Prompts of exact length in the model's own tokens, seeded, and different from their first tokens on unless they share a prefix."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import english
from profiler.errors import ModelError
from profiler.records import Prompt
from profiler.workload import replay, sessions
from profiler.workload.calls import Call, Piece, declared_hit_rate, fit, single

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from profiler.spec import WorkloadSpec

# Without a tokenizer (null engine) any ids do; this range exists in every vocabulary of interest.
_RANDOM_IDS = range(1_000, 30_000)
# Pieces of different spaces must not begin alike: each space counts from elsewhere.
_SPACE_START = {"own": 0, "block": 0, "group": 31_415_927, "answer": 62_831_853}


@dataclass(frozen=True)
class PromptSet:
    """`cut_share`: share of the requests that were cut, or left out, to fit the model's context. `sha256` of all ids and lengths.

    `calls`: what the prompts consist of, and which of them wait for which (same positions). `prefix_declared`: the share of input
    tokens in a declared shared prefix, None where there is none.
    """

    prompts: tuple[Prompt, ...]
    cut_share: float
    sha256: str
    calls: tuple[Call, ...] = ()
    prefix_declared: float | None = None

    @property
    def roots(self) -> int:
        """Requests that wait for no other."""
        return sum(not call.parents for call in self.calls)


def build(workload: WorkloadSpec, tokenizer_json: Path | None, n: int, seed: int, max_context_tokens: int | None) -> PromptSet:
    """`n` prompts; more where whole sessions need it, and all of a trace whatever `n`.

    The same arguments give the same token ids on every machine, so every backend of a model gets the same work. Raises ModelError when
    the tokenizer cannot be read, SpecError when not even one token fits the context.
    """
    fitted = fit(calls_of(workload, n, seed), max_context_tokens)
    tokenizer = _load(tokenizer_json) if tokenizer_json is not None and workload.prompts.kind == "text" else None
    texts = _Texts(tokenizer, seed, workload.prompts.unique_prefix, fitted.calls)
    prompts = []
    digest = hashlib.sha256()
    for number, call in enumerate(fitted.calls):
        ids = tuple(token for piece in call.pieces for token in texts.ids(piece))
        prompts.append(Prompt(f"r{number:06d}", ids, call.osl, call.session_id, call.turn))
        digest.update(repr((ids, call.osl)).encode())
    declared = declared_hit_rate(workload.prompts, fitted.calls)
    return PromptSet(tuple(prompts), fitted.cut_share, digest.hexdigest(), fitted.calls, declared)


def calls_of(workload: WorkloadSpec, n: int, seed: int) -> tuple[Call, ...]:
    """The calls of a workload, uncut: at least `n`, or exactly those of its trace."""
    if workload.trace is not None:
        return replay.load(workload.trace).calls
    if workload.sessions is not None:
        return sessions.conversations(workload, n, seed)
    if workload.agentic is not None:
        return sessions.chains(workload, n, seed)
    return single(workload, n, seed)


class _Texts:
    """The tokens of pieces. A text that occurs more than once is made once, as long as its longest piece."""

    def __init__(self, tokenizer: Tokenizer | None, seed: int, unique: bool, calls: Sequence[Call]) -> None:
        self._tokenizer, self._seed, self._unique = tokenizer, seed, unique
        uses: Counter[tuple[str, int]] = Counter()
        self._longest: dict[tuple[str, int], int] = {}
        for call in calls:
            for space, number, tokens in call.pieces:
                uses[space, number] += 1
                self._longest[space, number] = max(tokens, self._longest.get((space, number), 0))
        self._again = {key for key, count in uses.items() if count > 1}
        self._made: dict[tuple[str, int], list[int]] = {}

    def ids(self, piece: Piece) -> list[int]:
        key = (piece.space, piece.number)
        made = self._made.get(key)
        if made is None:
            made = self._make(*key, self._longest[key])
            if key in self._again:
                self._made[key] = made
        return made[: piece.tokens]

    def _make(self, space: str, number: int, tokens: int) -> list[int]:
        source = random.Random(f"{self._seed}/{space}/{number}")
        start = _SPACE_START[space]
        if self._tokenizer is None:
            return _random_ids(tokens, number + start, source, self._unique)
        # Coprime to 10^8, so no two texts of a space share a number, and neighbours differ in their first digits.
        serial = (self._seed + start + 48_271_337 * number) % 10**8
        return _text_ids(self._tokenizer, tokens, serial, source, self._unique)


def _text_ids(tokenizer: Tokenizer, isl: int, serial: int, source: random.Random, unique: bool) -> list[int]:
    """Text a little longer than needed, encoded once, cut to `isl` tokens."""
    sentences = english.sentences(source)
    parts = [english.opening(serial, source)] if unique else ["Notes."]
    ids: list[int] = []
    while len(ids) < isl:
        wanted_characters = max(80, 6 * (isl - len(ids)))
        while sum(map(len, parts)) < wanted_characters:
            parts.append(next(sentences))
        ids += tokenizer.encode(" ".join(parts), add_special_tokens=False).ids
        parts = []
    return ids[:isl]


def _random_ids(isl: int, number: int, source: random.Random, unique: bool) -> list[int]:
    ids = [source.choice(_RANDOM_IDS) for _ in range(isl)]
    if unique:
        ids[0] = _RANDOM_IDS[number % len(_RANDOM_IDS)]
    return ids


def _load(tokenizer_json: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{tokenizer_json}: not a tokenizer: {error}", hint="a folder in Hugging Face form has a tokenizer.json"
        ) from error

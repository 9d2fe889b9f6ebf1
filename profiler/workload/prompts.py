"""Prompts of exact length in the model's own tokens, seeded, and different from their first tokens on."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import english
from profiler.errors import ModelError, SpecError
from profiler.records import Prompt
from profiler.workload import lengths

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from profiler.spec import WorkloadSpec

# Without a tokenizer (null engine) any ids do; this range exists in every vocabulary of interest.
_RANDOM_IDS = range(1_000, 30_000)


@dataclass(frozen=True)
class PromptSet:
    """`cut_share`: share of the requests whose lengths were cut to fit the model's context. `sha256` of all ids and lengths."""

    prompts: tuple[Prompt, ...]
    cut_share: float
    sha256: str


def build(workload: WorkloadSpec, tokenizer_json: Path | None, n: int, seed: int, max_context_tokens: int | None) -> PromptSet:
    """`n` prompts. The same arguments give the same token ids on every machine, so every backend of a model gets the same work.

    Raises ModelError when the tokenizer cannot be read, SpecError when not even one token fits the context.
    """
    pairs = [_capped(pair, max_context_tokens) for pair in lengths.draw(workload.lengths, n, seed)]
    tokenizer = _load(tokenizer_json) if tokenizer_json is not None and workload.prompts.kind == "text" else None
    unique = workload.prompts.unique_prefix
    prompts = []
    digest = hashlib.sha256()
    for number, (isl, osl, _) in enumerate(pairs):
        source = random.Random(f"{seed}/{number}")
        # Coprime to 10^8, so no two prompts of a set share a number, and neighbours differ in their first digits.
        serial = (seed + 48_271_337 * number) % 10**8
        ids = _text_ids(tokenizer, isl, serial, source, unique) if tokenizer else _random_ids(isl, number, source, unique)
        prompts.append(Prompt(f"r{number:06d}", ids, osl))
        digest.update(repr((ids, osl)).encode())
    cut = sum(was_cut for _, _, was_cut in pairs)
    return PromptSet(tuple(prompts), cut / len(pairs) if pairs else 0.0, digest.hexdigest())


def _capped(pair: tuple[int, int], max_context_tokens: int | None) -> tuple[int, int, bool]:
    """Input is cut first: an answer of the asked length is what the timing needs."""
    isl, osl = pair
    if max_context_tokens is None or isl + osl <= max_context_tokens:
        return isl, osl, False
    if max_context_tokens < 2:
        raise SpecError(f"a context of {max_context_tokens} tokens leaves no room for a prompt and an answer")
    osl = min(osl, max_context_tokens - 1)
    return min(isl, max_context_tokens - osl), osl, True


def _text_ids(tokenizer: Tokenizer, isl: int, serial: int, source: random.Random, unique: bool) -> tuple[int, ...]:
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
    return tuple(ids[:isl])


def _random_ids(isl: int, number: int, source: random.Random, unique: bool) -> tuple[int, ...]:
    ids = [source.choice(_RANDOM_IDS) for _ in range(isl)]
    if unique:
        ids[0] = _RANDOM_IDS[number % len(_RANDOM_IDS)]
    return tuple(ids)


def _load(tokenizer_json: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{tokenizer_json}: not a tokenizer: {error}", hint="a folder in Hugging Face form has a tokenizer.json"
        ) from error

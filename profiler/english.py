"""Seeded English: sentences of our own from patterns and word lists. Readable, without end, and the same on every machine.

Prompts need real words because token-wise random input is unlike what tokenizers, caches and speculative decoders meet in use.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

_PEOPLE = ["the night nurse", "a young carpenter", "our accountant", "the ferry captain", "Marta", "an old teacher", "the road crew"]
_PEOPLE += ["a visiting engineer", "the librarian", "Tomas", "the bakery on the corner", "a group of students", "the town council", "Ines"]
_PEOPLE += ["the head gardener", "a retired pilot", "the museum guard", "two surveyors", "the new intern", "a patient fisherman"]
_DEEDS = [
    "repaired",
    "described",
    "counted",
    "sold",
    "photographed",
    "moved",
    "cleaned",
    "measured",
    "painted",
    "ordered",
    "lost and found",
]
_DEEDS += [
    "inspected",
    "borrowed",
    "returned",
    "drew a plan of",
    "asked about",
    "wrote down the history of",
    "compared",
    "packed",
    "tested",
]
_THINGS = ["the wooden bridge", "seven boxes of apples", "an unusual map", "the water pump", "a letter without a stamp", "the school roof"]
_THINGS += ["the long list of names", "a small brass key", "the winter timetable", "three broken chairs", "the harbour lights", "a kettle"]
_THINGS += [
    "the second floor",
    "an electric cart",
    "the recipe for rye bread",
    "a box of copper wire",
    "the weather records",
    "the old clock",
]
_PLACES = ["near the river", "in the main hall", "behind the station", "on the island", "at the edge of the forest", "in a quiet street"]
_PLACES += ["beside the market", "under the stairs", "in the valley", "across the square", "at the northern gate", "on the top shelf"]
_TIMES = ["on Monday", "before sunrise", "after the storm", "during the lunch break", "last autumn", "at half past four", "in early May"]
_TIMES += ["every other week", "while it rained", "when the power failed", "just before closing time", "two days ago", "all through June"]
_REASONS = ["because nobody else had the time", "although the forecast was poor", "so that the work could go on", "without asking for help"]
_REASONS += [
    "and it took longer than planned",
    "which surprised the neighbours",
    "and kept a careful record of it",
    "as the contract required",
]
_REASONS += ["since the old way was too slow", "but the cost stayed below the estimate", "and everyone was glad about it"]
_ASIDES = [
    "The price was {n} coins.",
    "There were {n} people in the room.",
    "It weighed about {n} kilograms.",
    "The walk takes {n} minutes.",
]
_ASIDES += [
    "A second report came {n} hours later.",
    "Page {n} shows how it was done.",
    "They had tried {n} times before.",
    "Only {n} were left.",
]
_OPENINGS = ["Case {n}.", "File number {n}.", "Message {n}:", "Regarding ticket {n}:", "Order {n}.", "Note {n}."]


def opening(number: int, draw: random.Random) -> str:
    """A first sentence that carries `number`, so that two prompts differ within their first few tokens."""
    return draw.choice(_OPENINGS).format(n=f"{number:08d}")


def sentences(draw: random.Random) -> Iterator[str]:
    """Sentences without end, from `draw`."""
    while True:
        if draw.random() < 0.2:
            yield draw.choice(_ASIDES).format(n=draw.randint(2, 90))
            continue
        words = [draw.choice(_PEOPLE), draw.choice(_DEEDS), draw.choice(_THINGS), draw.choice(_PLACES), draw.choice(_TIMES)]
        if draw.random() < 0.5:
            words.append(draw.choice(_REASONS))
        text = " ".join(words)
        yield text[0].upper() + text[1:] + "."

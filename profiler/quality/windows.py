"""A text as windows of tokens: the same for every variant, because they are made once from the model's own tokenizer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from profiler.errors import SpecError

WINDOW_TOKENS = 128
BUILT_IN = Path(__file__).parent / "data" / "english.txt"


@dataclass(frozen=True)
class Windows:
    """Consecutive pieces of a text. Of each, all tokens but the first are scored."""

    name: str
    tokens: tuple[tuple[int, ...], ...]

    @cached_property
    def digest(self) -> str:
        """Of the token ids: equal digests were asked the same, whatever the file was called."""
        return hashlib.sha256(repr(self.tokens).encode()).hexdigest()[:16]


def read(path: Path | None, tokenizer_json: Path, size: int = WINDOW_TOKENS) -> Windows:
    """The text at `path` (None: the built-in one) in windows of `size` tokens; a rest that is shorter is left out. Raises SpecError."""
    from tokenizers import Tokenizer

    source = path or BUILT_IN
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--text {source}: {error}", hint="a text file in UTF-8") from None
    ids = Tokenizer.from_file(str(tokenizer_json)).encode(text, add_special_tokens=False).ids
    tokens = tuple(tuple(ids[k : k + size]) for k in range(0, len(ids) - size + 1, size))
    if not tokens:
        raise SpecError(f"--text {source}: {len(ids)} tokens, one window needs {size}", hint="give a longer text")
    return Windows("built-in" if path is None else source.name, tokens)

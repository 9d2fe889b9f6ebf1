"""Text and tokens with the `tokenizers` library: encode, chat template, incremental decode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .http11 import BadRequest

if TYPE_CHECKING:
    import jinja2
    from tokenizers import Tokenizer

# A character is at most 4 UTF-8 bytes, so a fifth token cannot still be waiting for its rest: it is really no text.
MAX_HELD_TOKENS = 4
MAX_WINDOW_TOKENS = 16
CONTEXT_TOKENS = 5  # of the prompt, seen by the decoder: whether a word starts with a space depends on what is before it


class Text:
    """Tokenizer and chat template of one model folder (tokenizer.json, tokenizer_config.json, chat_template.jinja)."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.config: dict[str, Any] = _json(folder / "tokenizer_config.json")
        self._source = _template(folder, self.config)
        self._template: jinja2.Template | None = None
        self._takes_tools = False

    def encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def chat(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
        """Messages and tools as the model was trained to see them, up to the start of its answer. Raises BadRequest."""
        if self._source is None:
            raise BadRequest(400, "this model has no chat template; use /v1/completions")
        import jinja2
        import jinja2.meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise jinja2.TemplateError(message)

        if self._template is None:
            # Sandboxed: a template is code that came with somebody's weights.
            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
            environment.globals["raise_exception"] = refuse
            environment.filters["tojson"] = _tojson
            self._template = environment.from_string(self._source)
            self._takes_tools = "tools" in jinja2.meta.find_undeclared_variables(environment.parse(self._source))
        if tools and not self._takes_tools:
            raise BadRequest(400, "tools are not supported by this model: its chat template has no place for them")
        special = {name: _content(self.config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        try:
            return self._template.render(messages=messages, tools=tools or None, add_generation_prompt=True, **special)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            raise BadRequest(400, f"the chat template refuses these messages: {error}") from None


class Decoder:
    """Tokens in, text out as soon as it is complete; half a character is held back, so that no chunk carries a broken one.

    Decodes a short window again with each token and gives out what is new in it: one decode of some ten tokens, not of the answer.
    """

    __slots__ = ("_before", "_decode", "_ids", "_read")

    def __init__(self, tokenizer: Tokenizer, prompt: list[int]) -> None:
        self._decode = tokenizer.decode
        self._ids = prompt[-CONTEXT_TOKENS:]  # the window
        self._read = len(self._ids)  # of the window, tokens whose text was given out
        self._before: str = self._decode(self._ids)  # the text of those

    def add(self, token_ids: list[int], last: bool) -> str:
        """The text that these tokens complete; with `last` whatever is left."""
        self._ids += token_ids
        now = self._decode(self._ids)
        if not last and now.endswith("\ufffd") and len(self._ids) - self._read <= MAX_HELD_TOKENS:
            return ""
        text = now[len(self._before) :]
        if len(self._ids) > MAX_WINDOW_TOKENS:
            del self._ids[:-CONTEXT_TOKENS]
            now = self._decode(self._ids)
        self._before, self._read = now, len(self._ids)
        return text


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    """As the templates' authors ran them: Jinja's own filter writes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # older folders name several
        found = next((entry["template"] for entry in found if entry.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token or "")

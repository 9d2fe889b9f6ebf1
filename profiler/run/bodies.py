"""Request bodies, made before the clock starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from profiler.records import Prompt

PATHS = {"completions": "/completions", "chat": "/chat/completions"}


def make_body(
    prompt: Prompt,
    model: str,
    *,
    kind: Literal["completions", "chat"] = "completions",
    pin_output: bool = True,
    messages: Sequence[Mapping[str, str]] = (),
) -> bytes:
    """The JSON of one streaming request, greedy and seeded.

    `completions` sends token ids, so that every server reads exactly the same tokens; `chat` sends `messages`.
    `pin_output` asks for exactly `max_tokens` (ignore_eos and min_tokens: vLLM's names, which our own servers take as well; servers
    that do not know them ignore them). Token ids and usage per chunk are asked for, because a chunk is not a token.
    """
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": prompt.max_tokens,
        "temperature": 0.0,
        "seed": 0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "return_token_ids": True,
    }
    if kind == "chat":
        body["messages"] = list(messages)
    else:
        body["prompt"] = list(prompt.token_ids)
    if pin_output:
        body |= {"ignore_eos": True, "min_tokens": prompt.max_tokens}
    return json.dumps(body, separators=(",", ":")).encode()

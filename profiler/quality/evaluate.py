"""One served variant evaluated: how many requests at once change nothing, then the text's log-likelihood and the examples, in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiler.quality import determinism, lm_eval, scorers, tool_asking
from profiler.quality.asking import Asker, NotGiven
from profiler.quality.parallel import each
from profiler.quality.tasks import Example, Tasks
from profiler.quality.windows import Windows
from profiler.records import Endpoint

KeepTop = Callable[[list[list[int]], list[list[float]]], dict[str, Any]]  # ids and log-probabilities -> what top_k.keep returns


def drift_part(asker: Asker, windows: Windows, progress: Callable[[str], None], keep_top: KeepTop, at_once: int = 1) -> dict[str, Any]:
    """What the document says of the text: per window the log-probability of each token in nats, or why there are none.

    `keep_top` puts the most probable tokens of all places into a file of their own, where the server gives them.
    """
    part: dict[str, Any] = {
        "text": windows.name,
        "digest": windows.digest,
        "window_tokens": len(windows.tokens[0]),
        "source": None,
        "windows": None,
        "reason": None,
        "top": None,
        "top_reason": None,
    }
    found: list[list[float]] = []
    ids: list[list[int]] = []
    log_probs: list[list[float]] = []
    try:
        for k, scored in enumerate(each(windows.tokens, asker.score, at_once), 1):
            progress(f"window {k} of {len(windows.tokens)}")
            found.append([round(x, 6) for x in scored.log_probs])
            part |= {"source": scored.source, "top_reason": scored.no_top}
            for place in scored.top or ():
                ids.append([token for token, _ in place])
                log_probs.append([x for _, x in place])
    except NotGiven as error:
        why = f"the server gives no log-probabilities of a prompt: {error.message}"
        return part | {"source": None, "reason": why, "top_reason": why}
    part["windows"] = found
    return part | {"top": {"source": "prompt_logprobs", **keep_top(ids, log_probs)}} if ids else part


def tasks_part(
    asker: Asker,
    tasks: Tasks,
    tokenizer_json: Path | None,
    progress: Callable[[str], None],
    found: list[dict[str, Any]],
    keep: Callable[[], None],
    at_once: int = 1,
) -> dict[str, Any]:
    """What the document says of the examples; goes on after those in `found`. `passed` is None where the server could not be asked."""
    left = tasks.examples[len(found) :]
    for example, outcome in zip(left, each(left, lambda example: _one(asker, example, tokenizer_json), at_once), strict=True):
        found.append({"id": example.id, "scorer": example.scorer, "prompt": example.prompt, **outcome})
        progress(f"example {len(found)} of {len(tasks.examples)}")
        keep()
    return {
        "tasks": tasks.name,
        "digest": tasks.digest,
        "bad_lines": list(tasks.bad_lines),
        "too_small": tasks.too_small,
        "examples": found,
    }


def _one(asker: Asker, example: Example, tokenizer_json: Path | None) -> dict[str, Any]:
    more: dict[str, Any] = {}
    try:
        if example.scorer == "choice":
            if tokenizer_json is None:
                raise NotGiven("choices are scored in tokens, and there is no tokenizer")
            sums = choice_sums(asker, example, tokenizer_json)
            result = scorers.choose(example, sums)
            answer: Any = dict(zip(example.choices, sums, strict=True))
        elif example.scorer == "tool-call":
            asked = tool_asking.ask(asker, example)
            result, answer, more = asked.score, asked.answer, {"way": asked.way, "text": asked.text}
        else:
            answer = asker.answer(example.prompt, example.max_tokens, chat=example.chat)
            result = scorers.score(example, answer)
    except NotGiven as error:
        return {"passed": None, "answer": None, "reason": error.message, "flaw": False}
    return {"passed": result.passed, "answer": answer, "reason": result.reason, "flaw": result.flaw, **more}


def choice_sums(asker: Asker, example: Example, tokenizer_json: Path) -> list[float]:
    """Log-probability of each choice after the prompt, nats, summed over the tokens in which prompt and prompt + choice differ."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    context = tokenizer.encode(example.prompt).ids
    sums = []
    for choice in example.choices:
        ids = tokenizer.encode(example.prompt + choice).ids
        shared = next((k for k, (a, b) in enumerate(zip(context, ids, strict=False)) if a != b), min(len(context), len(ids)))
        if shared == 0 or shared == len(ids):
            raise NotGiven(f"the choice {choice!r} has no tokens of its own after the prompt")
        sums.append(sum(asker.score(ids).log_probs[shared - 1 :]))
    return sums


def evaluate(
    endpoint: Endpoint,
    windows: Windows,
    tasks: Tasks,
    tokenizer_json: Path | None,
    progress: Callable[[str], None],
    so_far: dict[str, Any],
    keep: Callable[[dict[str, Any]], None],
    keep_top: KeepTop,
    at_once: int | None = None,
) -> dict[str, Any]:
    """The parts of a document that come from asking. Raises EngineError when the server fails.

    `so_far`: what an evaluation that was broken off had kept ({} at first); `keep` is called with it as it grows.
    `at_once`: how many requests; None: the most at which no answer changes.
    """
    asker = Asker(endpoint)
    if "load" not in so_far:
        so_far["load"] = determinism.measure(asker, windows, tasks, at_once, progress)
        keep(so_far)
    found_out = so_far["load"]["determinism"]
    many = at_once or (found_out["parallel"] if found_out else 1)
    if "drift" not in so_far:
        so_far["drift"] = drift_part(asker, windows, progress, keep_top, many)
        keep(so_far)
    found = so_far.setdefault("examples", [])
    done = tasks_part(asker, tasks, tokenizer_json, progress, found, lambda: keep(so_far), many)
    if "harness" not in so_far:
        began_s = time.monotonic()
        so_far |= lm_eval.part(tasks.harness, endpoint, tokenizer_json, progress)
        if tasks.harness is not None:  # apart from the rest: what it asks is not counted in tokens
            so_far["harness_s"] = round(time.monotonic() - began_s, 3)
        keep(so_far)
    harness = {key: so_far[key] for key in ("harness", "harness_reason", "harness_log") if key in so_far}
    return {**so_far["load"], "drift": so_far["drift"], "tasks": done, **harness}

"""One served variant evaluated: the text's log-likelihood and the examples, in order, one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiler.quality import lm_eval, scorers, tool_asking
from profiler.quality.asking import Asker, NotGiven
from profiler.quality.tasks import Example, Tasks
from profiler.quality.windows import Windows
from profiler.records import Endpoint

NO_KL = "not computed: needs the log-probabilities of the top tokens, which are not asked yet"
NO_TOP1 = "the server gives the log-probability of the given token only"


def drift_part(asker: Asker, windows: Windows, progress: Callable[[str], None]) -> dict[str, Any]:
    """What the document says of the text: per window the log-probability of each token in nats, or why there are none."""
    part: dict[str, Any] = {
        "text": windows.name,
        "digest": windows.digest,
        "window_tokens": len(windows.tokens[0]),
        "source": None,
        "windows": None,
        "reason": None,
        "kl": None,
        "kl_reason": NO_KL,
        "top1": None,
        "top1_reason": NO_TOP1,
    }
    found, top1 = [], []
    try:
        for k, tokens in enumerate(windows.tokens):
            progress(f"window {k + 1} of {len(windows.tokens)}")
            scored = asker.score(tokens)
            found.append([round(x, 6) for x in scored.log_probs])
            part["source"] = scored.source
            if scored.top1 is not None:
                top1.append(list(scored.top1))
    except NotGiven as error:
        return part | {"source": None, "reason": f"the server gives no log-probabilities of a prompt: {error.message}"}
    return part | {"windows": found} | ({"top1": top1, "top1_reason": None} if top1 else {})


def tasks_part(
    asker: Asker,
    tasks: Tasks,
    tokenizer_json: Path | None,
    progress: Callable[[str], None],
    found: list[dict[str, Any]],
    keep: Callable[[], None],
) -> dict[str, Any]:
    """What the document says of the examples; goes on after those in `found`. `passed` is None where the server could not be asked."""
    for k, example in enumerate(tasks.examples[len(found) :], len(found) + 1):
        progress(f"example {k} of {len(tasks.examples)}")
        found.append({"id": example.id, "scorer": example.scorer, **_one(asker, example, tokenizer_json)})
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
) -> dict[str, Any]:
    """The `drift`, `tasks` and `harness` parts of a document. Raises EngineError when the server fails.

    `so_far`: what an evaluation that was broken off had kept ({} at first); `keep` is called with it as it grows.
    """
    asker = Asker(endpoint)
    if "drift" not in so_far:
        so_far["drift"] = drift_part(asker, windows, progress)
        keep(so_far)
    found = so_far.setdefault("examples", [])
    done = tasks_part(asker, tasks, tokenizer_json, progress, found, lambda: keep(so_far))
    if "harness" not in so_far:
        so_far |= lm_eval.part(tasks.harness, endpoint, tokenizer_json, progress)
        keep(so_far)
    return {"drift": so_far["drift"], "tasks": done, **{key: value for key, value in so_far.items() if key.startswith("harness")}}

"""`--dry-run` of an evaluation: what would be asked of whom, what is there already, about how long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.units import format_duration

if TYPE_CHECKING:
    from profiler.quality.ahead import Ahead
    from profiler.quality.tasks import Tasks
    from profiler.spec import BackendSpec


def dry_run(backends: Sequence[BackendSpec], tasks: Tasks, results: Path, flags: dict[str, Any]) -> None:
    """`tasks`: without those of the harness. Only its own environment can load these, and a dry run builds none."""
    from profiler.quality import lm_eval

    harness = lm_eval.named(flags["harness"]) if flags["harness"] is not None else ()
    # What is kept has a key with the content of the harness's tasks in it, which is not known here: nothing is called evaluated already.
    again = flags["again"] or bool(harness)
    found = look(backends, flags["model"], flags["tokenizer"], flags["text"], tasks, results, flags["parallel"], again=again)
    if flags["as_json"]:
        more = {"harness": list(harness)} if harness else {}
        click.echo(json.dumps(told(found, flags["parallel"]) | more, indent=2, ensure_ascii=False))
        return
    for line in lines(found, tasks, flags["parallel"]):
        click.echo(line)
    if harness:
        click.echo(f"lm-evaluation-harness: {', '.join(harness)}; its time is not estimated, what is kept of it not looked for")


def look(
    backends: Sequence[BackendSpec],
    model_name: str,
    tokenizer: Path | None,
    text: Path | None,
    tasks: Tasks,
    results: Path,
    at_once: int | None,
    *,
    again: bool,
) -> list[Ahead]:
    """Raises SpecError on a text that cannot be used. A model that is not on this disk yet is not fetched: its text is cut later."""
    from dataclasses import replace

    from profiler import models
    from profiler.engines import registry
    from profiler.machine.fingerprint import fingerprint
    from profiler.quality import ahead, running

    needed = any(registry.get(backend.engine).needs_model for backend in backends)
    model = models.on_disk(model_name) if needed else None
    what = None
    if model is not None or not needed:
        what = replace(running.asked(model, model_name, tokenizer, text, tasks, fingerprint()), at_once=at_once)
    return ahead.look(backends, what, tasks, results, at_once, again=again)


def lines(found: Sequence[Ahead], tasks: Tasks, at_once: int | None) -> list[str]:
    words = [f"quality: examples {tasks.name}, {load_words(at_once)}; one engine start each, nothing is timed"]
    words += [f"  {one.sentence}" for one in found]
    both = _seconds(found)
    if both["seconds_max"]:
        words.append(
            f"evaluating takes between {format_duration(round(both['seconds_min']))} and {format_duration(round(both['seconds_max']))}"
        )
    return words


def told(found: Sequence[Ahead], at_once: int | None) -> dict[str, Any]:
    return {"load": load_words(at_once), **_seconds(found), "backends": [one.told() for one in found]}


def load_words(at_once: int | None) -> str:
    if at_once is None:
        return "as many at once as change no answer"
    return f"{at_once} at once" if at_once > 1 else "one by one"


def _seconds(found: Sequence[Ahead]) -> dict[str, float]:
    return {"seconds_min": sum(one.seconds_min for one in found), "seconds_max": sum(one.seconds_max for one in found)}

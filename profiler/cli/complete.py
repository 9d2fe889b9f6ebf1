"""What the shell offers after an option: names that ship, run ids of the folder. Nothing is imported before the shell asks.

A completion that fails offers nothing: an error has no place in a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.errors import ProfilerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def _offer(names: Callable[[click.Context], Iterable[tuple[str, str | None]]], files: bool = False) -> Complete:
    """A click completion of (name, help) pairs; `files`: paths are meant where no name begins so."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        try:
            found = [CompletionItem(name, help=text) for name, text in names(ctx) if name.startswith(incomplete)]
        except (ProfilerError, OSError):
            found = []
        return found or ([CompletionItem(incomplete, type="file")] if files else [])

    return complete


def _backends(_: click.Context) -> Iterable[tuple[str, str | None]]:
    from profiler import catalog

    return ((b.name, b.summary) for b in catalog.load_backends())


def _workloads(_: click.Context) -> Iterable[tuple[str, str | None]]:
    from profiler import catalog

    return ((w.name, w.summary) for w in map(catalog.workload, catalog.workload_names()))


def _models(_: click.Context) -> Iterable[tuple[str, str | None]]:
    from profiler.models.catalogue import SYNTHETIC_ARCHITECTURES, SYNTHETIC_SIZES, catalogue

    shipped = [(entry.name, entry.summary) for entry in catalogue()]
    return [*shipped, *((f"synthetic:{a}-{s}", "random weights") for a in SYNTHETIC_ARCHITECTURES for s in SYNTHETIC_SIZES)]


def _engines(_: click.Context) -> Iterable[tuple[str, str | None]]:
    from profiler import environments
    from profiler.engines import registry

    own = {name.partition("-")[0] for name in environments.ENVIRONMENTS}
    return ((name, None) for name in sorted({*environments.ENVIRONMENTS, *(own & set(registry.names()))}))


def _stored(ctx: click.Context) -> list[dict[str, object]]:
    from profiler import catalog
    from profiler.store.store import Store

    folder = catalog.results(Path(str(ctx.params.get("results") or "results")))
    return Store(folder).rows() if folder.is_dir() else []


def _runs(ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return ((str(row["run_id"]), f"{row['backend']} {row['workload']} {row['load']:g}") for row in reversed(_stored(ctx)))


def _sweeps(ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    named = {str(row["sweep_id"]): str(row["sweep_name"] or "") for row in _stored(ctx)}
    return ((name, text or None) for name, text in reversed(named.items()))


def _stored_workloads(ctx: click.Context) -> Iterable[tuple[str, str | None]]:
    return ((name, None) for name in dict.fromkeys(str(row["workload"]) for row in _stored(ctx)))


def _words(_: click.Context) -> Iterable[tuple[str, str | None]]:
    from profiler.analyse.explain import names

    return ((name, None) for name in names())


def _presets(_: click.Context) -> Iterable[tuple[str, str | None]]:
    from profiler.analyse.qos import PRESETS

    return ((name, preset.text) for name, preset in PRESETS.items())


backends, workloads, models = _offer(_backends, files=True), _offer(_workloads, files=True), _offer(_models, files=True)
engines, runs, sweeps, words = _offer(_engines), _offer(_runs), _offer(_sweeps), _offer(_words)
presets, stored_workloads = _offer(_presets), _offer(_stored_workloads)

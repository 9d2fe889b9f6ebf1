"""`profile results verify|push|pull`: is the store as it was written, and copies of it elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.cli.results_folder import RESULTS

if TYPE_CHECKING:
    from profiler.quality.copying import Copied as QualityCopied
    from profiler.store.copying import Copied

_results = click.option("--results", type=RESULTS, default=Path("results"), show_default=True, help="The results folder.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
EXIT_DAMAGED = 1


@click.command("verify")
@_results
@_as_json
def verify(results: Path, as_json: bool) -> int:
    """Recover what killed sweeps left, then check every run and every evaluation against its checksums. Nothing is overwritten.

    Exit codes: 0 all is as it was written, 1 something is not (each is named).
    """
    from profiler import catalog
    from profiler.analyse.recover import recover
    from profiler.errors import StoreError
    from profiler.quality import verifying
    from profiler.store.draft import live
    from profiler.store.verify import check

    root = catalog.results(results)
    if not root.is_dir():
        raise StoreError(f"{root}: no such results folder", hint="run `profile sweep`, or give --results FOLDER")
    recovery = recover(root)
    running = live(root)
    checked, quality = check(root), verifying.check(root)
    damages = [*checked.damages, *quality.damages]
    if as_json:
        told: dict[str, Any] = {
            "runs": checked.runs,
            "sound": checked.sound,
            "recovered": [{"run_id": run_id, "finished_requests": n} for run_id, n in recovery.runs],
            "measuring": running,
            "left": [{"path": str(path), "why": why} for path, why in recovery.left],
            "damages": [{"path": str(d.path), "run_id": d.run_id, "kind": d.kind, "what": d.what} for d in damages],
            "evaluations": quality.evaluations,
            "evaluations_sound": quality.sound,
            "evaluating": quality.underway,
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for run_id, n in recovery.runs:
            click.echo(f"recovered {run_id}: " + ("complete, it only lacked its last step" if n is None else f"{n} finished requests"))
        for path, why in recovery.left:
            click.echo(f"not recovered {path}: {why}")
        for damage in damages:
            click.echo(f"{damage.kind}: {damage.path}: {damage.what}")
        beside = f", {running} cell{'s' if running != 1 else ''} being measured" if running else ""
        click.echo(f"{checked.sound} of {_count(checked.runs, 'run')} as written{beside}")
        if quality.evaluations or quality.underway:
            beside = f", {quality.underway} underway or broken off" if quality.underway else ""
            click.echo(f"{quality.sound} of {_count(quality.evaluations, 'evaluation')} as written{beside}")
    return EXIT_DAMAGED if damages or recovery.left else 0


@click.command("push")
@click.argument("target", metavar="DIR|URL")
@_results
@_as_json
def push(target: str, results: Path, as_json: bool) -> int:
    """Copy the runs and evaluations that another store lacks into it: a folder, or file:///... Twice the same copies nothing."""
    return _copy(results, target, as_json)


@click.command("pull")
@click.argument("source", metavar="DIR|URL")
@_results
@_as_json
def pull(source: str, results: Path, as_json: bool) -> int:
    """Copy the runs and evaluations of another store that this one lacks into it. Twice the same copies nothing."""
    return _copy(source, results, as_json)


def _copy(source: str | Path, target: str | Path, as_json: bool) -> int:
    """Exit code: 0 when the target has every run and evaluation of the source now, 1 when one conflicts or is damaged."""
    from profiler.analyse.recover import recover
    from profiler.errors import StoreError
    from profiler.quality import copying
    from profiler.store import place
    from profiler.store.copying import check_apart, copy

    came, goes = place.at(source), place.at(target)
    check_apart(came, goes)
    folder = place.folder_of(source)
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such results folder", hint="give a folder with runs in it")
    recover(folder)
    done = copy(came, goes)
    quality = copying.copy(folder, place.folder_of(target))
    if as_json:
        click.echo(json.dumps({**_plain(done), "evaluations": _plain(quality)}, indent=2, ensure_ascii=False))
    else:
        for run_id in done.conflicts:
            click.echo(f"conflict: {run_id}: {goes.url} has another run of this id; neither was changed")
        for run_id, why in done.damaged:
            click.echo(f"damaged: {run_id}: {why}; not copied")
        for key in quality.conflicts:
            click.echo(f"conflict: evaluation {key}: {goes.url} has another one under these conditions; neither was changed")
        for key, why in quality.damaged:
            click.echo(f"damaged: evaluation {key}: {why}; not copied")
        click.echo(f"{_count(len(done.copied), 'run')} copied to {goes.url}, {len(done.known)} known already")
        if quality.copied or quality.known:
            click.echo(f"{_count(len(quality.copied), 'evaluation')} copied, {len(quality.known)} known already")
    return 0 if done.complete and quality.complete else EXIT_DAMAGED


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def _plain(done: Copied | QualityCopied) -> dict[str, Any]:
    damaged = [{"run_id": run_id, "why": why} for run_id, why in done.damaged]
    return {"copied": done.copied, "known": done.known, "conflicts": done.conflicts, "damaged": damaged}

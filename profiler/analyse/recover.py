"""Journals of killed sweeps become runs: status `interrupted`, with every request that had ended, never valid, never a verdict.

What the run's record will be is written into the draft before the load (`begin`); what was measured is read from the client's spool.
`open_store` is how a results folder is opened by whoever shows it: nothing to recover costs one look at two folders.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.errors import ProfilerError, StoreError
from profiler.store.draft import RunDraft, interrupted, set_aside_leftovers, sync
from profiler.store.store import Store, read_document
from profiler.store.writer import checksum, json_safe, storing, write_json

RECORD = "record.json"
INTERRUPTED = "interrupted"
WHY = "interrupted: the sweep ended before the cell did; of what it measured the requests that had ended are kept"


@dataclass(frozen=True)
class Recovery:
    """`runs`: id and finished requests of each recovered run (None: its writer had finished it and lacked only the last step).

    `left`: the drafts that stay in .interrupted/, and why.
    """

    runs: list[tuple[str, int | None]] = field(default_factory=list)
    left: list[tuple[Path, str]] = field(default_factory=list)


def begin(folder: Path, document: Mapping[str, Any]) -> None:
    """Keep in a draft what its run.json will say if the cell is broken off. Raises StoreError."""
    with storing(folder):
        write_json(folder / RECORD, json_safe(document))


def open_store(path: Path) -> Store:
    """The results folder, with what killed sweeps left in it recovered first. Never waits, and leaves a live sweep alone."""
    done = recover(path) if path.is_dir() else Recovery()
    store = Store(path)
    if done.runs:
        n = len(done.runs)
        store.warnings.insert(0, f"{path}: {n} interrupted cell{'s' if n > 1 else ''} recovered from the journal of a killed sweep")
    return store


def recover(root: Path) -> Recovery:
    """Make runs of the drafts whose processes died. Those that measured nothing are removed; what cannot be read stays where it is."""
    done = Recovery()
    set_aside_leftovers(root)
    for folder in interrupted(root):
        try:
            draft = RunDraft.take_over(root, folder.name)
        except StoreError as error:
            done.left.append((folder, error.message))
            continue
        if draft is None:
            continue  # another process is at it
        try:
            told = _recover(draft)
            if told is not None:
                done.runs.append((draft.run_id, told[0]))
        except (ProfilerError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            done.left.append((folder, _why(error)))
        finally:
            draft.leave()
    return done


def _recover(draft: RunDraft) -> tuple[int | None] | None:
    """How many requests had ended; None when nothing was measured. Raises what a foreign or damaged draft brings."""
    from profiler.run.journal import has_spool, salvage

    if (names := _finished(draft.folder)) is not None:
        draft.publish(names)
        return (None,)
    if not (draft.folder / RECORD).is_file():
        raise StoreError(f"no {RECORD} in it: not a draft of this version")
    left = salvage(draft.folder)
    if left is None:
        if has_spool(draft.folder) and not (draft.folder / "prompts.json").is_file():
            raise StoreError("no prompts.json beside its spool")
        draft.discard()
        return None
    document = json.loads((draft.folder / RECORD).read_text(encoding="utf-8"))
    _telemetry(draft.folder, document)
    draft.commit(broken_off(document, left, INTERRUPTED, WHY), left.requests)
    return (left.finished,)


def broken_off(document: Mapping[str, Any], left: Any, status: str, why: str) -> dict[str, Any]:
    """run.json of a cell that was broken off, by what it had measured: figures as far as they go, and no verdict.

    `document` is run.json as it would be without them; `left` a run.journal.Left.
    """
    from profiler.analyse import qos
    from profiler.analyse.latency import summarise

    run = dict(document["run"])
    target = qos.parse(run["qos"]) if run.get("qos") else None
    run |= summarise(left.requests, left.drive, target)
    run |= {"read_delay_p50_s": left.drive.read_delay_p50_s, "read_delay_p99_s": left.drive.read_delay_p99_s}
    run |= {"status": status, "status_reason": why, "validity": "invalid", "validity_reasons": [why]}
    if target is not None:
        run |= {"qos_result": "UNDECIDED", "qos_reason": why}
    return {**document, "run": run}


def _finished(folder: Path) -> list[str] | None:
    """The files of a draft whose writer had written and synced all of them and was killed before it renamed it; else None."""
    try:
        document = read_document(folder)
    except (StoreError, ValueError):
        return None
    files = document["files"]
    if not files or not all((folder / name).is_file() and checksum(folder / name) == told for name, told in files.items()):
        return None
    for name in [*files, "run.json"]:
        sync(folder / name)
    return [*files, "run.json"]


def _telemetry(folder: Path, document: Mapping[str, Any]) -> None:
    """What the sensors had said, where the sampler's spool is still there."""
    from profiler.machine.telemetry import recording

    with contextlib.suppress(Exception):  # a run without telemetry is a run
        sweep = document["provenance"]["sweep"]
        recording.salvage(folder, float(sweep["telemetry_period_s"]), WHY)


def _why(error: Exception) -> str:
    return error.message if isinstance(error, ProfilerError) else f"its journal is damaged ({type(error).__name__}: {error})"

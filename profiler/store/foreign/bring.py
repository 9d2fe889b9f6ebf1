"""Importing a foreign table into a store: all rows or none are believed, and what the store has already is not added again."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path

from profiler.store.foreign.mapping import Mapping
from profiler.store.foreign.rows import Converted, convert
from profiler.store.foreign.table import read
from profiler.store.store import Store


@dataclass(frozen=True)
class Imported:
    added: int
    known: int  # rows that the store had
    converted: Converted
    other_mappings: int  # runs of the same source that another mapping made


def bring(store: Store, path: Path, mapping: Mapping, dry_run: bool = False) -> Imported:
    """Raises StoreError or SpecError before anything is written. Two imports at once wait for each other."""
    converted = convert(read(path, mapping.delimiter), mapping)
    if dry_run:
        return _bring(store, converted, mapping, write=False)
    store.check_writable()
    with (store.path / ".incoming" / ".import.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _bring(store, converted, mapping, write=True)


def _bring(store: Store, converted: Converted, mapping: Mapping, write: bool) -> Imported:
    rows = store.rows()
    have = {(row["environment_hash"], row["repeat"]) for row in rows if row["provenance_class"] == "imported"}
    new = [d for d in converted.documents if (d["run"]["environment_hash"], d["run"]["repeat"]) not in have]
    own = converted.documents[0]["run"]["sweep_id"]
    others = sum(row["import_source"] == mapping.source.published and row["sweep_id"] != own for row in rows)
    if write:
        for document in new:
            store.keep(document)
    return Imported(len(new), len(converted.documents) - len(new), converted, others)

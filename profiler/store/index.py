"""A cache of what the run.json files of a store say, so that a list of 1,000 runs opens one file and not 1,000.

Never the truth: a line counts only while its run.json has the size and the times (ctime too) it had when it was read, so an edited,
replaced or restored file is read again. Written beside and renamed into place by any reader that found enough missing from it: of two who
do so at once the last one wins, and what its copy lacks is read from run.json as before. It may be deleted at any time, and a folder
that one may not write simply has none.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from profiler.store import schema

FILE = ".index.jsonl"
WORTH = 32  # runs that are missing from the index before it is written anew: below that reading them costs less than writing it
Stamp = tuple[int, int, int]  # size, mtime_ns, ctime_ns of a run.json
COLUMNS = [c.name for c in schema.RUNS]


def stamp(folder: Path) -> Stamp | None:
    """Of the run.json in a run's folder; None where there is none."""
    try:
        found = (folder / "run.json").stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load(root: Path) -> dict[str, tuple[Stamp, dict[str, Any]]]:
    """Per run id: the stamp and the head ({"run", "files", "version"}). Empty without an index, or when it is of other columns or damaged."""
    import msgspec

    found: dict[str, tuple[Stamp, dict[str, Any]]] = {}
    try:
        header, _, body = (root / FILE).read_bytes().partition(b"\n")
        if json.loads(header) != _header(body):
            return {}
        decode = msgspec.json.Decoder(tuple[tuple[int, int, int], int, list[Any], dict[str, Any]]).decode
        for line in body.splitlines():
            seen, version, values, files = decode(line)
            if len(values) == len(COLUMNS):
                run = dict(zip(COLUMNS, values, strict=True))
                found[run["run_id"]] = (seen, {"run": run, "files": files, "version": version})
    except (OSError, ValueError, msgspec.MsgspecError):
        return {}
    return found


def save(root: Path, heads: Iterable[tuple[Stamp, Mapping[str, Any]]]) -> None:
    """Replace the index. Fails silently: it is a cache."""
    import msgspec

    encode = msgspec.json.encode
    body = b"\n".join(encode((seen, head["version"], [head["run"].get(name) for name in COLUMNS], head["files"])) for seen, head in heads)
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=root, prefix=f"{FILE}.", delete=False) as file:
        beside = Path(file.name)
        try:
            file.write(encode(_header(body)) + b"\n" + body)
            file.flush()
            beside.chmod(0o644)
            beside.replace(root / FILE)
        except OSError:
            beside.unlink()


def _header(body: bytes) -> dict[str, Any]:
    return {"index": 1, "schema": schema.SCHEMA_VERSION, "columns": COLUMNS, "crc32": zlib.crc32(body)}

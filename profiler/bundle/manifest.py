"""bundle.json: what an archive holds, and whether it fits a machine."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from profiler.errors import StoreError

NAME = "bundle.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """`environments` maps a name to the hash of its pins; `models` are what to give to --model; `files` maps paths to sha256."""

    profiler_version: str
    python: str
    machine: str
    environments: Mapping[str, str]
    models: Sequence[str]
    files: Mapping[str, str]
    format: int = FORMAT

    def dump(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"


def this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def this_machine() -> str:
    return f"{sys.platform}-{platform.machine()}"


def load(data: bytes, where: str) -> Manifest:
    """Raises StoreError: no manifest, one of another format, or one that names files outside the archive."""
    try:
        raw: dict[str, Any] = json.loads(data)
        if raw["format"] != FORMAT:
            raise StoreError(f"{where}: a bundle of format {raw['format']}, this program reads {FORMAT}", hint="make it with this version")
        found = Manifest(**raw)
        names = [PurePosixPath(name) for name in found.files]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{where}: {NAME} cannot be read: {error!r}", hint="`profile bundle OUT.tar` makes one") from error
    for name in names:
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise StoreError(f"{where}: names a file outside itself: {name}", hint="do not use this archive")
    return found


def fits(manifest: Manifest, where: str) -> None:
    """Raises StoreError when its wheels are for another Python or machine."""
    for what, theirs, ours in (("Python", manifest.python, this_python()), ("machine", manifest.machine, this_machine())):
        if theirs != ours:
            raise StoreError(f"{where}: its wheels are for {what} {theirs}, this is {ours}", hint=f"make it on {what} {ours}")

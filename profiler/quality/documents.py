"""Where evaluations are kept: RESULTS/quality/KEY.json, one document per variant × engine × what was asked, written once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from profiler.environments import locked
from profiler.errors import StoreError
from profiler.store.writer import json_safe, seal_of, sealed

FORMAT = "slm-profiler-quality"
VERSION = 1
FOLDER = "quality"
TOP = ".top.npz"  # ends the name of the file with the most probable tokens
NOT_AS_WRITTEN = "does not have the checksum it was written with"


def key_of(*parts: Any) -> str:
    """Of everything that an evaluation depends on; equal keys need no second evaluation."""
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True, default=str).encode()).hexdigest()[:16]


def load(results: Path, key: str) -> dict[str, Any] | None:
    """The document, or None where there is none. Raises StoreError on one that cannot be read."""
    path = results / FOLDER / f"{key}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        seal = seal_of(document) if isinstance(document, dict) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: {error}", hint="remove it, and evaluate again") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise StoreError(f"{path}: not an evaluation of version {VERSION}", hint="remove it, and evaluate again")
    if document.get("sha256") not in (None, seal):
        raise StoreError(f"{path}: {NOT_AS_WRITTEN}", hint="remove it, and evaluate again")
    return document


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def paths(results: Path) -> list[Path]:
    """The documents of a folder, by key; what is underway is none of them. Raises StoreError."""
    return [path for path in entries(results) if path.suffix == ".json" and not path.name.startswith(".")]


def entries(results: Path) -> list[Path]:
    """All that lies in the folder now. Raises StoreError."""
    try:
        return sorted((results / FOLDER).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{results / FOLDER}: cannot be read: {error.strerror}", hint="give a results folder you may read") from error


def is_key(text: str) -> bool:
    """Whether it is shaped like one of `key_of`; run ids are not."""
    return re.fullmatch(r"[0-9a-f]{16}", text) is not None


def told(results: Path) -> list[tuple[str, str]]:
    """Key and one line of each that can be read, oldest first."""
    found = sorted(load_sound(results), key=lambda one: str(one["made_at"]))
    return [(one["key"], f"{one['backend']['name']}, {one['model']['name']}, {one['made_at']}") for one in found]


def is_underway(path: Path) -> bool:
    """What an evaluation keeps while it asks, and a file that is being written."""
    return path.suffix == ".part" or ".part." in path.name or path.name.startswith(".")


def load_sound(results: Path) -> list[dict[str, Any]]:
    """Those that can be read; `profile results verify` names the others."""
    found = []
    for path in paths(results):
        with suppress(StoreError):
            document = load(results, path.stem)
            found += [document] if document is not None else []
    return found


def keep(results: Path, key: str, document: dict[str, Any]) -> Path:
    """Written beside, synced and renamed: a reader never sees half of it. What was kept of it underway goes. Raises StoreError."""
    path = results / FOLDER / f"{key}.json"
    _write(path, sealed(json_safe({"format": FORMAT, "version": VERSION, "key": key, **document})), sync=True)
    forget_part(results, key)
    return path


def top_file(key: str, sha256: str) -> str:
    """The name of the file beside a document. With its content in it, since with --again the old document needs the old one until the end."""
    return f"{key}.{sha256[:8]}{TOP}"


def files_of(document: Mapping[str, Any]) -> dict[str, str]:
    """The files beside a document, with their SHA-256; a name that leaves the folder is none of them."""
    drift = document.get("drift")
    top = drift.get("top") if isinstance(drift, dict) else None
    if not isinstance(top, dict) or not isinstance(top.get("file"), str) or Path(top["file"]).name != top["file"]:
        return {}
    return {top["file"]: str(top.get("sha256"))}


@contextmanager
def alone(results: Path, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Only one process evaluates a key: another waits here, and then finds what the first one kept. Raises StoreError."""
    folder = results / FOLDER
    path = folder / f".{key}.lock"
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while not _is_at(path, held.enter_context(locked(path, on_wait))):
                held.close()  # who held it removed it when it was done: what we hold now is nobody's lock
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror or error}", hint="give --results a folder that you may write to") from error
        held.callback(path.unlink, missing_ok=True)  # while it is held still
        yield


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def load_part(results: Path, key: str) -> dict[str, Any]:
    """What an evaluation that was broken off had kept; {} where there is none, or none that can be read."""
    try:
        found = json.loads(_part(results, key).read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def keep_part(results: Path, key: str, part: dict[str, Any]) -> None:
    """Raises StoreError."""
    _write(_part(results, key), json_safe(part), sync=False)


def forget_part(results: Path, key: str) -> None:
    """What was kept underway, and the files beside it that the document, if there is one, does not name. For who holds the key `alone`."""
    with suppress(OSError, StoreError):  # a document that cannot be read may name any of them
        named = files_of(load(results, key) or {})
        for path in entries(results):  # before the part: without it they would be nobody's
            if path.name.startswith(f"{key}.") and path.name.endswith(TOP) and path.name not in named:
                path.unlink()
    with suppress(OSError):
        _part(results, key).unlink()


def _part(results: Path, key: str) -> Path:
    return results / FOLDER / f"{key}.part"


def _write(path: Path, content: dict[str, Any], *, sync: bool) -> None:
    put(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(), sync=sync)


def put(path: Path, content: bytes | memoryview, *, sync: bool) -> None:
    """Written beside and renamed; nothing is left beside it, whatever happens. Raises StoreError."""
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException as error:
        if beside:
            with suppress(OSError):
                Path(beside).unlink()
        if isinstance(error, OSError):
            raise StoreError(f"{path}: {error.strerror or error}", hint="give --results a folder that you may write to") from error
        raise

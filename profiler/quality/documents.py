"""Where evaluations are kept: RESULTS/quality/KEY.json, one document per variant × engine × what was asked, written once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from profiler.errors import StoreError

FORMAT = "slm-profiler-quality"
VERSION = 1
FOLDER = "quality"


def key_of(*parts: Any) -> str:
    """Of everything that an evaluation depends on; equal keys need no second evaluation."""
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True, default=str).encode()).hexdigest()[:16]


def load(results: Path, key: str) -> dict[str, Any] | None:
    """The document, or None where there is none. Raises StoreError on one that cannot be read."""
    path = results / FOLDER / f"{key}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}", hint="remove it, and evaluate again") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise StoreError(f"{path}: not an evaluation of version {VERSION}", hint="remove it, and evaluate again")
    return document


def keep(results: Path, key: str, document: dict[str, Any]) -> Path:
    """Written beside, synced and renamed: a reader never sees half of it. Raises StoreError."""
    path = results / FOLDER / f"{key}.json"
    text = json.dumps({"format": FORMAT, "version": VERSION, "key": key, **document}, indent=1, ensure_ascii=False, allow_nan=False)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{key}-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError as error:
        if part:
            with suppress(OSError):
                Path(part).unlink()
        raise StoreError(f"{path}: {error.strerror or error}") from error
    return path

"""The most probable tokens of each scored place: RESULTS/quality/KEY.top.npz beside the document, which holds its name and its SHA-256.

`ids` int32 and `log_probs` float32 (nats), both [places, k], best first; the places are all scored tokens of all windows, in order.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import StoreError
from profiler.quality import documents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Top = tuple[NDArray[np.int32], NDArray[np.float32]]

NOT_ASKED = "evaluated before the most probable tokens were asked; --again asks them"


def keep(results: Path, key: str, ids: Sequence[Sequence[int]] | Any, log_probs: Sequence[Sequence[float]] | Any) -> dict[str, Any]:
    """Written beside and renamed; what the document says of it: `k`, `file`, `sha256`. Raises StoreError."""
    import numpy as np

    places = np.asarray(ids, dtype=np.int32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=places, log_probs=np.asarray(log_probs, dtype=np.float32))
    path, beside = results / documents.FOLDER / f"{key}.top.npz", None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except OSError as error:
        if beside is not None:
            with suppress(OSError):
                Path(beside).unlink()
        raise StoreError(f"{path}: {error.strerror or error}", hint="give --results a folder that you may write to") from None
    return {"k": int(places.shape[1]), "file": path.name, "sha256": hashlib.sha256(buffer.getbuffer()).hexdigest()}


def load(results: Path, document: Mapping[str, Any]) -> tuple[Top | None, str | None]:
    """The arrays, or why there are none. A file that is gone or is not the one that was written is a reason, not an error."""
    import numpy as np

    part = document.get("drift") or {}
    top = part.get("top")
    if top is None:
        return None, part.get("top_reason") or NOT_ASKED
    path = results / documents.FOLDER / str(top["file"])
    try:
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != top["sha256"]:
            return None, f"{path.name} is not the file that was written; --again makes it"
        with np.load(io.BytesIO(raw), allow_pickle=False) as found:
            ids, log_probs = found["ids"], found["log_probs"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return None, f"{path.name} cannot be read: {error}"
    return (ids, log_probs), None

"""The most probable tokens of each scored place: RESULTS/quality/KEY.HASH.top.npz beside the document, which holds its name and its SHA-256.

HASH is the beginning of that SHA-256; those of the first evaluations have none in their name, and are read by the name that the document says.

`ids` int32 and `log_probs` float32 (nats), both [places, k], best first; the places are all scored tokens of all windows, in order.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    sha256 = hashlib.sha256(buffer.getbuffer()).hexdigest()
    path = results / documents.FOLDER / documents.top_file(key, sha256)
    documents.put(path, buffer.getbuffer(), sync=True)
    return {"k": int(places.shape[1]), "file": path.name, "sha256": sha256}


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

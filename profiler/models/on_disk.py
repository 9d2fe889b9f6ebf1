"""A model that is here already: what `--dry-run` may look at. Fetches, converts and makes nothing."""

from __future__ import annotations

from pathlib import Path

from profiler import environments
from profiler.errors import ModelError
from profiler.models.catalogue import catalogue
from profiler.models.folder import inspect
from profiler.records import LocalModel


def on_disk(ref: str) -> LocalModel | None:
    """The model that `resolve` would find without work, or None."""
    folder = _folder(ref)
    if folder is None:
        return None
    try:
        return inspect(folder, ref, f"on disk: {ref}", trust_remote_code=True)  # reads files only; runs nothing of the model's
    except ModelError:
        return None


def _folder(ref: str) -> Path | None:
    cache = environments.cache_root() / "models"
    entry = next((entry for entry in catalogue() if entry.name == ref), None)
    if ref.startswith("synthetic:"):
        return _newest(cache, f"synthetic-{ref.removeprefix('synthetic:')}-*")
    if entry is not None:
        return _newest(cache, f"{entry.name}-hf-*") or _hub(entry.hub)
    if ref.startswith((".", "/", "~")) or Path(ref).exists():
        path = Path(ref).expanduser()
        return path.resolve() if path.is_dir() else None
    return _hub(ref) if ref.count("/") == 1 else None


def _newest(cache: Path, pattern: str) -> Path | None:
    found = [path for path in cache.glob(pattern) if (path / "config.json").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _hub(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except Exception:  # each of its versions says "not in the cache" with another exception
        return None

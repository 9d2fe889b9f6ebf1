"""Where weights come from: hub, folder, package, synthetic. `resolve` turns what the user wrote into a folder on this disk."""

from profiler.models.on_disk import on_disk
from profiler.models.resolve import resolve

__all__ = ["on_disk", "resolve"]

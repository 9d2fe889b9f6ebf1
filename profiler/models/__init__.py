"""Where weights come from: hub, folder, package, synthetic. `resolve` turns what the user wrote into a folder on this disk."""

from profiler.models.resolve import resolve

__all__ = ["resolve"]

"""How a results folder is named on the command line: a path, or the URL of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class ResultsFolder(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4; older ones are not
    """A path or a file:/// URL; both become the folder's Path."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from profiler.store.place import folder_of

        return folder_of(value)


RESULTS = ResultsFolder()

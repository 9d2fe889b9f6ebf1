"""Folders and a user for tests of permissions."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Root ignores permissions, so the effective user is nobody for as long as the block lasts; other users are bound by them anyway."""

    @contextmanager
    def switch() -> Iterator[None]:
        me = os.geteuid()
        if me == 0:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(me)

    yield switch


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """pytest's own temporary folders let nobody else pass."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.parents):
        folder.rmdir()
        pytest.skip("the temporary folder of this machine lies where only its owner may look")
    yield folder
    shutil.rmtree(folder)

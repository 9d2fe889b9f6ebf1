"""Start a program in a session of its own, under a guardian that outlives us (see guardian.py)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from profiler.engines import guardian
from profiler.errors import EngineError


class Guarded:
    """A running program and everything it started. `stop` ends all of it, twice is once."""

    def __init__(self, command: Sequence[str], output: IO[Any] | int, token: str, variables: Mapping[str, str] | None = None) -> None:
        """Raises EngineError when the program cannot be executed."""
        self.token = token
        self._stopped = False
        # The guardian first: from here on there is no moment at which our death would leave the engine alone.
        self._guardian, self._pipe = _start_guardian(token)
        environment = {**os.environ, **(variables or {}), guardian.VARIABLE: token}
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        except OSError as error:
            self._dismiss()
            raise EngineError(f"cannot run {command[0]}: {error.strerror}") from error
        self._tell(f"{self.process.pid}\n")

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. A Ctrl-C meanwhile kills at once and is raised again afterwards."""
        if self._stopped:
            return
        try:
            guardian.end(self.token, self.process.pid, grace_s)
        except KeyboardInterrupt:
            guardian.end(self.token, self.process.pid, 0.0)
            raise
        finally:
            self.process.wait()
            self._stopped = True
            self._dismiss()

    def _dismiss(self) -> None:
        self._tell("done\n")
        _write_ends.discard(self._pipe)
        os.close(self._pipe)
        self._guardian.wait()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed the guardian; the engine is still ours to stop
            os.write(self._pipe, line.encode())


# A forked child that kept a write end would keep the guardian waiting after our death.
_write_ends: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _write_ends:
        os.close(descriptor)
    _write_ends.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _start_guardian(token: str) -> tuple[subprocess.Popen[bytes], int]:
    """The guardian and the write end of its pipe. Not inheritable, so no program we execute gets it."""
    read_end, write_end = os.pipe()
    _write_ends.add(write_end)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guardian.__file__).resolve()), token],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(read_end)
    return process, write_end

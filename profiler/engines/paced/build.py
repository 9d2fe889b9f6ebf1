"""The paced server's program: compiled once per source, flags and machine type, kept in the cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from profiler import environments
from profiler.errors import EnvironmentError_

FOLDER = Path(__file__).parent
FLAGS = ("-O2", "-std=c11")
COMPILE_S = 120.0
NO_COMPILER = "the paced server needs a C compiler: apt-get install gcc libc6-dev (or set CC)"


def compiler() -> list[str] | None:
    """The machine's C compiler: $CC, else cc; None where there is none."""
    words = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return words if shutil.which(words[0]) else None


def source_hash() -> str:
    """First 12 hex digits of sha256 over the sources, the flags and the machine type."""
    digest = hashlib.sha256(repr((FLAGS, platform.machine())).encode())
    for path in sorted(FOLDER.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def binary(progress: Callable[[str], None] = lambda line: None) -> Path:
    """The compiled program. Raises EnvironmentError_ where it cannot be compiled."""
    target = environments.cache_root() / "paced" / f"paced-{source_hash()}"
    if target.exists():
        return target
    words = compiler()
    if words is None:
        raise EnvironmentError_("no C compiler was found", hint=NO_COMPILER)
    progress("compiling the paced server")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target and renamed into place: of two that build at once both get a whole program.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            new = Path(folder) / "paced"
            command = [*words, *FLAGS, "-o", str(new), *map(str, sorted(FOLDER.glob("*.c"))), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S)
            if done.returncode != 0:
                raise EnvironmentError_("the paced server does not compile", hint=NO_COMPILER, detail=done.stderr[-2000:])
            new.rename(target)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentError_(f"{words[0]} did not end within {COMPILE_S:.0f} s") from error
    except OSError as error:
        raise EnvironmentError_(f"cannot compile into {target.parent}: {error.strerror}", hint="set SLM_PROFILER_CACHE") from error
    return target

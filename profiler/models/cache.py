"""Made once, kept by name, never seen half-made: the folder is built beside its place and renamed into it."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from profiler.environments import Progress, cache_root, locked
from profiler.errors import ModelError

ORIGIN = "profiler-model.json"  # written last into a made folder: where it came from


Make = Callable[[Path, int], Mapping[str, Any]]


def made(key: str, progress: Progress, make: Make) -> Path:
    """The cached folder `key`; `make(folder, lock)` fills it on first use and returns its origin. Raises ModelError when the disk is full.

    A killed `make` leaves only a `.part` folder, which the next call removes. The lock says that nobody works in it: `make` hands it to
    the programs it runs, because they outlive a `kill -9` of the profiler and go on writing.
    """
    target = cache_root() / "models" / key
    if (target / ORIGIN).is_file():
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(target.name + ".lock"), lambda: progress(f"{key}: another process is making it, waiting")) as lock:
            if (target / ORIGIN).is_file():
                return target
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                origin = make(part, lock)
                (part / ORIGIN).write_text(json.dumps(dict(origin), indent=1), encoding="utf-8")
                part.rename(target)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        full = error.errno == errno.ENOSPC
        hint = (
            "free some space, or set SLM_PROFILER_CACHE to a folder on a larger disk"
            if full
            else "set SLM_PROFILER_CACHE to a folder you may write to"
        )
        raise ModelError(f"{key}: {error.strerror}: {error.filename or target}", hint) from error
    return target


def run_script(python: Path, script: Path, arguments: Sequence[str], what: str, lock: int) -> dict[str, Any]:
    """Run one of our scripts in another environment; returns the JSON object it prints last. It holds `lock` as long as it lives.

    Raises ModelError with its last lines.
    """
    command = [str(python), "-W", "ignore", str(script), *arguments]
    # One thread more than cores helps nothing here, and offline keeps libraries from asking a hub about a local folder.
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, env=_offline(), pass_fds=(lock,)
    )
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise ModelError(f"{what} failed: {lines[-1]}", detail="\n".join(lines[-12:]))
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _offline() -> dict[str, str]:
    import os

    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}

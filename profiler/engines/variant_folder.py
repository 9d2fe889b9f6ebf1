"""Variants made once, kept by content, built beside their place and renamed into it; the script that makes them runs elsewhere.

A folder under `variants/` is whole by construction. A killed script leaves a `.part` folder that counts as nothing and is removed under
the lock by whoever comes next; the script itself runs under a guardian and ends with us.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiler import environments
from profiler.engines.protocol import Progress
from profiler.errors import ModelError
from profiler.units import format_size

DISK_HINT = "free some space, or set SLM_PROFILER_CACHE to a folder on a larger disk"
Explain = Callable[[str, Path], tuple[str, str]]  # the last line of a failed script and its log -> message and hint


def folder(content: list[Any]) -> Path:
    """Where what `content` describes is kept."""
    return environments.cache_root() / "variants" / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def details(target: Path, name: str, progress: Progress, make: Callable[[Path], None]) -> dict[str, Any]:
    """`variant.json` of `target`, made now by `make(empty folder)` if it is not there, and the folder's size. Raises ModelError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_dir():
            with environments.locked(target.with_suffix(".lock"), lambda: progress(f"{name}: another process is making it, waiting")):
                if not target.is_dir():
                    _make(target, make)
                    progress(f"{name}: ready")
        found: dict[str, Any] = json.loads((target / "variant.json").read_text(encoding="utf-8"))
        return found | {"size_on_disk_bytes": size_bytes(target)}
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelError(f"the disk that holds {target.parent} is full", DISK_HINT, str(error)) from error
        hint = "set SLM_PROFILER_CACHE to a folder you may write to"
        raise ModelError(f"{error.filename or target}: {error.strerror}", hint) from error


def size_bytes(target: Path) -> int:
    """Bytes of all files of a variant: weights, tokenizer and description."""
    return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())


def _make(target: Path, make: Callable[[Path], None]) -> None:
    for stale in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(stale, ignore_errors=True)
    part = target.parent / f"{target.name}.part-{secrets.token_hex(4)}"
    try:
        part.mkdir()
        make(part)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def run_script(command: list[str], log_path: Path, name: str, progress: Progress, explain: Explain) -> None:
    """Run one of our scripts under a guardian, its `progress: ` lines passed on, all of it kept in `log_path`. Raises ModelError."""
    from profiler.engines.guarded import Guarded
    from profiler.engines.process import tail

    read_end, write_end = os.pipe()
    guarded = None
    # No hub: everything it needs lies in the model's folder, and an offline machine must not wait for time-outs.
    variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        with os.fdopen(read_end, encoding="utf-8", errors="replace") as lines, log_path.open("w", encoding="utf-8") as log:
            try:
                guarded = Guarded(command, write_end, secrets.token_hex(8), variables)
            finally:
                os.close(write_end)
            for line in lines:
                log.write(line)
                if line.startswith("progress: "):
                    progress(f"{name}: {line.removeprefix('progress: ').strip()}")
            code = guarded.process.wait()
    finally:
        if guarded is not None:
            guarded.stop()
    if code != 0:
        raise _problem(tail(log_path, 25), code, name, log_path, explain)


def _problem(detail: str, code: int, name: str, log_path: Path, explain: Explain) -> ModelError:
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    if "No space left on device" in detail:
        free = format_size(shutil.disk_usage(log_path.parent).free)
        return ModelError(f"{name}: the disk that holds {log_path.parent} is full ({free} free)", DISK_HINT, detail)
    if code == -9:
        return ModelError(
            f"{name}: it was killed while it was made", "often the kernel out of memory: see dmesg, or use a smaller model", detail
        )
    message, hint = explain(lines[-1] if lines else f"exit code {code}", log_path)
    return ModelError(f"{name}: {message}", hint, detail)

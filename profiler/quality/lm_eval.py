"""Tasks of lm-evaluation-harness, asked of the served model by its OpenAI-compatible client in an environment of its own (see lm_eval_run.py)."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler import environments
from profiler.engines import http_client
from profiler.engines.guarded import Guarded
from profiler.errors import EngineError, SpecError
from profiler.records import Endpoint

SCRIPT = Path(__file__).with_name("lm_eval_run.py")
MAX_LENGTH = 2048  # tokens of context where neither server nor model says
SERVER_FAILED = 3  # as in the script
LOG_LINES = 12
LOOK_S = 0.2
TASK = re.compile(r"[\w.+-]+\Z")
SILENT = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Harness:
    """Tasks that can be asked: they were loaded once. `digest`: of their definitions and of all their documents."""

    specs: tuple[str, ...]  # names, or absolute paths of YAML files and of folders
    tasks: tuple[str, ...]
    limit: int | None  # of each task the first so many documents
    version: str
    digest: str
    python: Path

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps([self.tasks, self.limit, self.version, self.digest]).encode()).hexdigest()[:16]


def read(asked: str, limit: int | None, progress: Progress, pip_args: Sequence[str] = ()) -> Harness:
    """`asked`: as of `named`. Builds the environment if it is not there. Raises SpecError, EnvironmentError_."""
    specs = named(asked)
    python = environments.ensure(environments.ENVIRONMENTS["lm-eval"], progress, pip_args).python
    with tempfile.TemporaryDirectory(prefix="slm-profiler-") as folder:
        done = _run(python, {"do": "look", "tasks": specs}, specs, Path(folder), progress)
    if isinstance(done, Failed):
        raise SpecError(
            f"--harness {asked}: {done.reason}", hint="`profile evaluate --harness` takes what `lm_eval --tasks` takes", detail=done.log
        )
    return Harness(specs, tuple(done["tasks"]), limit, done["version"], done["digest"], python)


def named(asked: str) -> tuple[str, ...]:
    """Names and paths with commas between them; whether the harness has a task of such a name only it can say. Raises SpecError."""
    specs = tuple(_spec(word.strip()) for word in asked.split(",") if word.strip())
    if not specs:
        raise SpecError(f"--harness {asked!r}: no task", hint="names of tasks, YAML files or folders, with commas between them")
    return specs


def _spec(word: str) -> str:
    path = Path(word).expanduser()
    if path.is_dir() or path.is_file():
        return str(path.resolve())
    if TASK.match(word) and path.suffix not in (".yaml", ".yml"):
        return word
    raise SpecError(f"--harness {word}: no such file", hint="the name of a task of lm-evaluation-harness, a YAML file or a folder of them")


def part(harness: Harness | None, endpoint: Endpoint, tokenizer_json: Path | None, progress: Progress) -> dict[str, Any]:
    """`harness` and `harness_reason` of a document. Raises EngineError when the server failed."""
    if harness is None:
        return {"harness": None, "harness_reason": "not asked for (--harness)"}
    if tokenizer_json is None:
        return {"harness": None, "harness_reason": "it counts in tokens, and there is no tokenizer"}
    question = {
        "do": "ask",
        "tasks": harness.specs,
        "limit": harness.limit,
        "url": endpoint.url,
        "model": endpoint.model,
        "headers": dict(endpoint.headers),
        "tokenizer": str(tokenizer_json.parent),
        "max_length": _max_length(endpoint, tokenizer_json.parent),
    }
    with tempfile.TemporaryDirectory(prefix="slm-profiler-") as folder:
        done = _run(harness.python, question, harness.specs, Path(folder), progress)
    if isinstance(done, Failed):
        if done.code == SERVER_FAILED:
            raise EngineError(f"lm-evaluation-harness: {done.reason}", detail=done.log)
        return {"harness": None, "harness_reason": done.reason, "harness_log": done.log}
    return {"harness": {**done, "limit": harness.limit, "digest": harness.digest}, "harness_reason": None}


@dataclass(frozen=True)
class Failed:
    code: int
    reason: str  # one line
    log: str  # its last lines


def _run(python: Path, question: dict[str, Any], specs: Sequence[str], folder: Path, progress: Progress) -> dict[str, Any] | Failed:
    """The script's result. The question goes by a file, not by the command line, which everybody can read: it may hold a key."""
    out, log = folder / "result.json", folder / "log"
    asked = folder / "question.json"
    asked.touch(0o600)
    variables = dict(SILENT)
    paths = [Path(spec) for spec in specs if Path(spec).is_absolute()]
    if len(paths) == len(specs):
        variables["HF_DATASETS_CACHE"] = str(folder / "datasets")  # copies of the user's own files, that nobody needs again
    # Their YAML names its files relative to where it lies.
    where = (paths[0] if paths[0].is_dir() else paths[0].parent) if paths else folder
    asked.write_text(json.dumps({**question, "out": str(out), "folder": str(where)}), encoding="utf-8")
    with log.open("wb") as output:
        child = Guarded([str(python), "-I", "-u", str(SCRIPT), str(asked)], output, uuid.uuid4().hex, variables)
        try:
            seen = 0
            while child.alive():
                try:
                    child.process.wait(LOOK_S)
                except subprocess.TimeoutExpired:
                    seen = _tell(log, seen, progress)
        finally:
            child.stop(grace_s=1.0)
    lines = [line for line in _text(log).splitlines() if line.strip() and not line.startswith("progress: ")]
    code, tail = child.process.returncode, "\n".join(lines[-LOG_LINES:])
    if code != 0:
        return Failed(code, lines[-1].strip()[:500] if lines else f"it ended with exit code {code}", tail)
    try:
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Failed(code, "it ended without a result", tail)
    return found


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _tell(log: Path, seen: int, progress: Progress) -> int:
    """Gives out the last line for people that came since."""
    text = _text(log)
    lines = [line for line in text[seen:].splitlines() if line.startswith("progress: ")]
    if lines:
        progress(f"lm-evaluation-harness: {lines[-1].removeprefix('progress: ')}")
    return len(text)


def _max_length(endpoint: Endpoint, model: Path) -> int:
    """Tokens of context: of the server, else of the model."""
    try:
        status, body = http_client.request(endpoint, "GET", "/models", prefix=True)
        served = json.loads(body)["data"][0].get("max_model_len") if status == 200 else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        served = None
    if not isinstance(served, int):
        try:
            served = json.loads((model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
        except (OSError, ValueError, AttributeError):
            served = None
    return served if isinstance(served, int) and served > 1 else MAX_LENGTH

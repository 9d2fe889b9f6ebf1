"""Regular expressions with a limit of time: a pattern such as (a+)+$ can take longer than anybody waits, and `re` cannot be interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIME_S = 10.0
_SEARCH = "import json, re, sys; pattern, text = json.load(sys.stdin); print(json.dumps(bool(re.search(pattern, text, re.IGNORECASE))))"
_SCHEMA = "import json, sys; from profiler.quality import json_schema as js; print(json.dumps(js.first_problem(*json.load(sys.stdin))))"


class NoAnswer(Exception):
    """It took too long, or failed; the message says which."""


def search(pattern: str, text: str, time_s: float = TIME_S) -> bool:
    """Whether the pattern occurs, upper or lower case. Raises NoAnswer."""
    return bool(_run(["-I", "-S", "-c", _SEARCH], [pattern, text], time_s))


def schema_problem(value: Any, schema: Any, time_s: float = TIME_S) -> str | None:
    """As json_schema.problem, of a schema that has patterns. Raises NoAnswer."""
    found = _run(["-c", _SCHEMA], [value, schema], time_s)
    return None if found is None else str(found)


def _run(arguments: list[str], question: Any, time_s: float) -> Any:
    try:
        done = subprocess.run([sys.executable, *arguments], input=json.dumps(question), capture_output=True, text=True, timeout=time_s)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"the pattern took longer than {time_s:g} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise NoAnswer(f"the pattern could not be tried: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return json.loads(done.stdout)

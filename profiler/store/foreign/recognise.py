"""Which tool wrote a file, by what is in it: never by its name. Files that a tool wrote beside it are read with it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from profiler.errors import StoreError
from profiler.store.foreign import mapping as mappings
from profiler.store.foreign import table
from profiler.store.foreign.payload import Payload, read
from profiler.store.foreign.run import ForeignRun
from profiler.store.foreign.tools import aiperf, guidellm, inference_perf, llmd_report, mlperf, vllm_bench

NOT_STATED = "not stated"
TRACE = "a trace of requests is a load, not a result: `profile sweep --trace FILE` sends it"
PRICES = "prices are no runs: `profile plan --offer` takes them (docs/cost.md)"
ELSEWHERE = {
    frozenset({"ContextTokens", "Request tokens"}): TRACE,
    frozenset({"usd_per_hour", "usd_per_1m_input"}): PRICES,
}
TOOLS: tuple[ModuleType, ...] = (guidellm, aiperf, vllm_bench, inference_perf, llmd_report, mlperf)


@dataclass(frozen=True)
class ForeignFile:
    """One tool's output. `parts`: the files it was read from, the named one first. `flags` in words."""

    tool: str
    slug: str
    tool_version: str
    format_version: str
    parts: tuple[Payload, ...]
    runs: tuple[ForeignRun, ...]
    flags: tuple[str, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """The content, whichever of the parts was named."""
        return tuple(sorted(part.sha256 for part in self.parts))


def recognise(path: Path) -> ForeignFile:
    """Raises StoreError, one line: not readable, of no tool that is known, of an unknown version, or not what its tool writes."""
    payload = read(path)
    module = next((tool for tool in TOOLS if _is(tool, payload)), None)
    if module is None:
        raise StoreError(
            f"{path}: of no load generator that is known ({', '.join(tool.NAME for tool in TOOLS)})",
            hint=_hint(payload),
        )
    beside = _beside(module, payload)
    versions = [_version(module, part) for part in (payload, *beside) if _is(module, part)]
    format_version, tool_version = next((one for one in versions if one[1] != NOT_STATED), versions[0])
    try:
        runs = module.runs(payload, *beside)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise StoreError(
            f"{path}: {module.NAME}, but not as its known versions write it ({type(error).__name__}: {error})"[:300],
            hint="is the file edited or cut off? --map FILE.toml imports any summary",
        ) from error
    parts = (payload, *beside)
    flags = tuple(_not_finite(part) for part in parts if part.not_finite)
    return ForeignFile(module.NAME, module.SLUG, tool_version, format_version, parts, tuple(runs), flags)


def _hint(payload: Payload) -> str:
    """Where else the file may go: a mapping that ships and knows its columns, or another command."""
    if payload.kind in ("text", "table"):
        with contextlib.suppress(StoreError):
            header = set(table.read(payload.path).header)
            for name in mappings.shipped():
                columns = mappings.load(name).columns
                if set(columns) <= header:
                    return f"its columns are those of --map {name}"
            for columns_, command in ELSEWHERE.items():
                if columns_ & header:
                    return command
    if payload.kind == "jsonl" and isinstance(payload.whole[0], dict) and "hash_ids" in payload.whole[0]:
        return TRACE
    return "--map FILE.toml says what the columns of any table or JSON summary are (docs/import.md)"


def _version(module: ModuleType, payload: Payload) -> tuple[str, str]:
    """Of the format, and of the tool."""
    format_version, tool_version = module.version(payload)
    if format_version not in module.KNOWN:
        raise StoreError(
            f"{payload.path}: {module.NAME}, of an unknown version ({format_version}); known: {', '.join(module.KNOWN)}",
            hint="update slm-profiler, or map its summary with --map FILE.toml (docs/import.md)",
        )
    return format_version, tool_version


def _is(tool: ModuleType, payload: Payload) -> bool:
    return bool(tool.recognises(payload))


def _beside(module: ModuleType, payload: Payload) -> tuple[Payload, ...]:
    """The tool's other files of the same run, where they lie in the same folder."""
    if not hasattr(module, "siblings"):
        return ()
    paths = [payload.path.parent / name for name in module.siblings(payload)]
    return tuple(read(path) for path in paths if path.is_file() and path.name != payload.path.name)


def _not_finite(part: Payload) -> str:
    some = ", ".join(part.not_finite[:3]) + (", …" if len(part.not_finite) > 3 else "")
    return f"{part.path.name}: {len(part.not_finite)} values are NaN or infinite ({some}): read as missing"

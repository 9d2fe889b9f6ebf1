"""From a TOML file and flags to one SweepSpec; flags override the file, and without either it is the quickstart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import ModelError, SpecError, UsageError
from profiler.units import parse_duration_s

if TYPE_CHECKING:
    from profiler.records import LocalModel
    from profiler.spec import SweepSpec

QUICKSTART = "quickstart"
_LOAD = ("isl", "osl", "requests", "repeats", "seed", "arrivals", "think", "trace", "until", "precision", "most_starts", "rung")
_DECLARED = ("device", "device_count", "price_usd_per_hour", "server_metrics")
_PLAIN = ("model", "qos", "url", "endpoint_kind", *_LOAD, *_DECLARED)


def read_spec(spec_file: str | None, flags: Mapping[str, Any]) -> SweepSpec:
    """The sweep to measure. Raises SpecError naming the flag or file:key that is wrong."""
    from profiler import catalog
    from profiler.spec import SweepSpec, validate_spec

    given = _from_flags(flags)
    if spec_file is None and _is_own_sweep(given):
        raw: dict[str, Any] = {"name": "command-line"}
        own_times = str(given.get("arrivals", "")).startswith(("ramp", "step"))
        if "concurrency" not in given and ("rates" in given or own_times):
            raw["concurrency"] = []  # a rate alone means an open loop alone
    else:
        raw = catalog.sweep(spec_file or QUICKSTART).model_dump(mode="json", exclude_unset=True)
    raw.update(given)
    return validate_spec(raw, SweepSpec, "the command line" if given else spec_file or QUICKSTART)


def _is_own_sweep(given: Mapping[str, Any]) -> bool:
    """Naming what runs makes it another sweep than the quickstart; naming only how long keeps it."""
    return any(key in given for key in ("backends", "co_run", "workloads", "url", "isl", "trace"))


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: flags[key] for key in _PLAIN if flags.get(key) is not None}
    if str(given.get("qos", "")).endswith(".toml"):
        from profiler.analyse.qos import load

        given["qos"] = str(load(given["qos"]))
    if flags.get("co_run") is not None:
        given["co_run"] = [name.strip() for name in flags["co_run"].split(",")]
    for key in ("backends", "workloads"):
        if flags.get(key):
            given[key] = list(flags[key])
    if flags.get("tokenizer") is not None:
        given["tokenizer"] = str(flags["tokenizer"])
    if flags.get("concurrency") is not None:
        given["concurrency"] = "auto" if flags["concurrency"] == "auto" else _numbers("--concurrency", flags["concurrency"], int)
    if flags.get("client_cpus") is not None:
        given["client_cpus"] = _numbers("--client-cpus", flags["client_cpus"], int)
    if flags.get("rates") is not None:
        given["rates"] = _numbers("--rate", flags["rates"], float)
    if flags.get("duration") is not None:
        given.update(_window("--duration", flags["duration"]))
    if flags.get("find_limit"):
        given["find_limit"] = True
    if "url" in given and "model" not in given:
        raise UsageError("--url without --model", hint="give the model name the endpoint serves: --model NAME")
    return given


def _window(flag: str, text: str) -> dict[str, float]:
    try:
        shortest = parse_duration_s(text)
    except ValueError as error:
        raise SpecError(f"{flag}: {error}") from None
    return {"window_min_s": shortest, "window_max_s": max(180.0, 3 * shortest)}


def _numbers(flag: str, text: str, kind: type[int] | type[float]) -> list[float]:
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(kind(part.strip()))
        except ValueError:
            raise SpecError(f"{flag}: {part.strip()!r} is not a number", hint=f"separate them by commas, such as {flag} 1,2,4") from None
    return numbers


def tokenizer_of(spec: SweepSpec, model: LocalModel | None) -> Path | None:
    """The tokenizer.json that makes prompts of exact length: --tokenizer, else the model's own, else None (random token ids).

    Raises ModelError when the folder has none, UsageError when an attached endpoint comes without one.
    """
    if spec.tokenizer is None:
        if model is not None:
            return model.folder / "tokenizer.json"
        if spec.url is not None:
            raise UsageError(
                "--url without --tokenizer: prompts of exact length need the model's own tokenizer",
                hint="give --tokenizer FOLDER, a folder with the model's tokenizer.json",
            )
        return None
    path = Path(spec.tokenizer)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise ModelError(
            f"--tokenizer: no tokenizer.json in {spec.tokenizer}", hint="give the folder that holds the model's tokenizer.json"
        )
    return path

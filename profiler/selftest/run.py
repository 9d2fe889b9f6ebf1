"""The self-test's table of contents: energy, calibration, then each engine that runs here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from profiler import environments, models
from profiler.engines import registry
from profiler.errors import ProfilerError
from profiler.records import LocalModel
from profiler.run import calibrate as client
from profiler.selftest import energy
from profiler.selftest.engines import Say, check
from profiler.selftest.result import Result, of
from profiler.spec import BackendSpec

ENERGY_S, QUICK_ENERGY_S = 20.0, 5.0
WINDOW_S, QUICK_WINDOW_S = 5.0, 1.5
STREAMS, QUICK_STREAMS = client.STREAMS, (5, 64)


def run(
    backends: Sequence[BackendSpec], model_ref: str, machine_id: str, quick: bool, say: Say, pip_args: Sequence[str] = ()
) -> Iterator[Result]:
    """Every check in turn, as it ends. The knee and the spread over starts are of the null server and of the last real engine."""
    yield from energy.check(QUICK_ENERGY_S if quick else ENERGY_S)
    yield calibration(machine_id, quick, say)
    real = [backend for backend in backends if registry.get(backend.engine).needs_model]
    model = None
    try:
        model = _model(model_ref, say, pip_args) if real else None
    except ProfilerError as error:
        yield of(f"model {model_ref}", [error.message], hint=error.hint)
        backends = [backend for backend in backends if backend not in real]
    window_s = QUICK_WINDOW_S if quick else WINDOW_S
    with TemporaryDirectory(prefix="slm-selftest-") as work:
        for backend in backends:
            whole = backend.engine == "null" or backend == real[-1]
            yield from check(backend, model, Path(work), window_s, whole, say, pip_args)


def calibration(machine_id: str, quick: bool, say: Say) -> Result:
    """The client against the paced server. Passed: no wrong count and no error with idle cores; how far its times are off is a figure."""
    name = "calibration"
    try:
        streams, window_s = (QUICK_STREAMS, client.QUICK_WINDOW_S) if quick else (STREAMS, client.WINDOW_S)
        curve = client.calibrate(machine_id, streams, window_s, lambda p: say(f"calibration: {p.beside}, {p.checked.load:.0f} streams"))
        if not quick:
            client.save(curve, client.curve_path(machine_id))  # later runs on this machine carry its error bars
    except ProfilerError as error:
        return Result(name, "not run" if "compiler" in error.message else "failed", error.message)
    problems = []
    for point in curve.points:
        checked = point.checked
        if checked.wrong_counts:
            problems.append(f"{point.beside}, {checked.load:.0f} streams: {checked.wrong_counts} requests with a wrong token count")
        if checked.errors and point.beside == "idle":
            problems.append(f"{point.beside}, {checked.load:.0f} streams: {checked.errors} requests failed")
    keys = ("load", "n", "tokens_per_s", "kept", "ttft_error_p50_s", "ttft_error_p99_s", "itl_error_p99_s")
    points = [{"beside": point.beside, **{key: asdict(point.checked)[key] for key in keys}} for point in curve.points]
    return of(name, problems, points=points)


def _model(ref: str, say: Say, pip_args: Sequence[str]) -> LocalModel:
    def convert_python() -> Path:
        return environments.ensure(environments.ENVIRONMENTS["openvino-export"], say, pip_args).python

    return models.resolve(ref, say, convert_python=convert_python)

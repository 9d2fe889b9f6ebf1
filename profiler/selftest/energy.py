"""NVML against itself and the wall clock: power sampled and integrated over some seconds beside the board's own energy counter."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from profiler.selftest.result import Result, not_run, of

PERIOD_S = 0.02
# nvmlDeviceGetPowerUsage is an average over up to 1 s on some boards and claims +-5 % (NVML API reference); twice that over seconds is wrong.
LIMIT = 0.10
NAME = "nvml energy"


def check(seconds: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> list[Result]:
    """One result per GPU; one "not run" with the reason where NVML is not there."""
    try:
        import pynvml
    except ImportError:
        return [not_run(NAME, "the Python package nvidia-ml-py is not installed")]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [not_run(NAME, f"NVML: {error}")]
    try:
        count = pynvml.nvmlDeviceGetCount()
        return [_device(pynvml, index, seconds, clock, sleep) for index in range(count)] or [not_run(NAME, "NVML sees no GPU")]
    except pynvml.NVMLError as error:
        return [of(NAME, [f"NVML: {error}"])]
    finally:
        pynvml.nvmlShutdown()


def _device(nvml: Any, index: int, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> Result:
    name = f"{NAME} GPU {index}"
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        # The counter moves in steps: begin and end at one, or a step of a slow counter would be the error.
        began, energy_mj = _step(nvml, handle, clock, sleep)
        points = [(began, nvml.nvmlDeviceGetPowerUsage(handle) / 1e3)]
        while clock() - began < seconds:
            sleep(PERIOD_S)
            points.append((clock(), nvml.nvmlDeviceGetPowerUsage(handle) / 1e3))
        ended, energy_end_mj = _step(nvml, handle, clock, sleep)
        points.append((ended, nvml.nvmlDeviceGetPowerUsage(handle) / 1e3))
    except nvml.NVMLError as error:
        return not_run(name, f"NVML: {error} (the energy counter exists from Volta on)")
    integrated_j = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    counted_j = (energy_end_mj - energy_mj) / 1e3
    if counted_j <= 0:
        return of(name, ["the energy counter stood still"], integrated_j=integrated_j)
    off = integrated_j / counted_j - 1
    problems = [f"power integrates to {off:+.1%} of the counter's energy, over {LIMIT:.0%}"] if abs(off) > LIMIT else []
    figures = {"wall_s": ended - began, "samples": len(points), "integrated_j": integrated_j, "counter_j": counted_j, "off_share": off}
    return of(name, problems, **figures, mean_power_w=counted_j / (ended - began))


def _step(nvml: Any, handle: Any, clock: Callable[[], float], sleep: Callable[[float], None]) -> tuple[float, int]:
    """When the counter next changed, and its value then, mJ; after a second without a change as it stands."""
    first, end = nvml.nvmlDeviceGetTotalEnergyConsumption(handle), clock() + 1.0
    while (now := nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) == first and clock() < end:
        sleep(0.001)
    return clock(), int(now)

"""AMD GPUs by AMD-SMI's Python package, which comes with ROCm (https://rocm.docs.amd.com/projects/amdsmi). Not verified on hardware."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from profiler.machine.telemetry.source import Absent, Reading

Ask = Callable[[Any], float | None]


class AmdSmi:
    """One device `gpuN` per board. Raises Absent."""

    name = "amdsmi"

    def __init__(self) -> None:
        try:
            self._smi: Any = importlib.import_module("amdsmi")
        except Exception as error:  # the package loads its library as it is imported and raises what it likes
            if isinstance(error, ModuleNotFoundError):
                raise Absent("AMD-SMI: the Python package amdsmi (part of ROCm) is not installed here") from None
            raise Absent(f"AMD-SMI: {error}") from None
        self.missing: dict[str, str] = {}
        try:
            self._smi.amdsmi_init()
            self._boards = list(enumerate(self._smi.amdsmi_get_processor_handles()))
        except Exception as error:
            raise Absent(f"AMD-SMI: {error}") from None
        if not self._boards:
            raise Absent("AMD-SMI: the driver sees no GPU")

    def sample(self, t_ns: int) -> Iterable[Reading]:
        smi = self._smi
        asked: dict[str, Ask] = {
            "energy_j": lambda b: _energy_j(smi.amdsmi_get_energy_count(b)),
            "power_w": lambda b: _first(smi.amdsmi_get_power_info(b), "current_socket_power", "average_socket_power"),
            "gpu_busy_percent": lambda b: _first(smi.amdsmi_get_gpu_activity(b), "gfx_activity"),
            "sm_clock_mhz": lambda b: _first(smi.amdsmi_get_clock_info(b, smi.AmdSmiClkType.GFX), "clk", "cur_clk"),
            "temperature_c": lambda b: float(
                smi.amdsmi_get_temp_metric(b, smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT)
            ),
            "memory_used_bytes": lambda b: float(smi.amdsmi_get_gpu_memory_usage(b, smi.AmdSmiMemoryType.VRAM)),
            "memory_total_bytes": lambda b: float(smi.amdsmi_get_gpu_memory_total(b, smi.AmdSmiMemoryType.VRAM)),
        }
        for index, board in self._boards:
            for metric, ask in asked.items():
                key = f"gpu{index} {metric}"
                if key in self.missing:
                    continue
                try:
                    value = ask(board)
                except Exception as error:  # a call this version or board does not have
                    self.missing[key] = f"AMD-SMI: {error}"
                    continue
                if value is None:
                    self.missing[key] = "AMD-SMI: this board cannot tell"
                else:
                    yield f"gpu{index}", metric, value

    def close(self) -> None:
        try:
            self._smi.amdsmi_shut_down()
        except Exception:  # the process ends anyway
            pass


def _energy_j(count: dict[str, Any]) -> float | None:
    """Accumulator × resolution in µJ; older versions call the accumulator `power`."""
    ticks, resolution_uj = _first(count, "energy_accumulator", "power"), _first(count, "counter_resolution")
    return None if ticks is None or resolution_uj is None else ticks * resolution_uj / 1e6


def _first(answer: dict[str, Any], *names: str) -> float | None:
    """The first of these that is a number: "N/A" stands for what a board cannot tell."""
    return next((float(answer[name]) for name in names if isinstance(answer.get(name), int | float)), None)

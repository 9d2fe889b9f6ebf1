"""NVIDIA GPUs by NVML: power, energy, clocks, temperature, why clocks are held down, memory, utilisation, memory per process.

A call that this driver or board does not have is left out from then on, with the reason. Not verified on hardware.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from profiler.machine.telemetry.source import Absent, Reading, Watched

Ask = Callable[[Any], tuple[float, ...]]

LIBRARY = "libnvidia-ml.so.1"
FORBIDDEN = (
    "NVML: the driver is there but this user may not ask it: check the permissions of /dev/nvidiactl and /dev/nvidia*; "
    "in a container start it with --gpus all and NVIDIA_DRIVER_CAPABILITIES=compute,utility"
)


class Nvml:
    """One device `gpuN` per board, `gpuN/pidP` per process. Raises Absent."""

    name = "nvml"

    def __init__(self, watched: Callable[[], Watched] = Watched) -> None:
        # Looked for before the Python package is imported: most machines have no GPU, and the import is the dearer part.
        try:
            ctypes.CDLL(LIBRARY)
        except OSError:
            raise Absent(f"NVML: no {LIBRARY}: no NVIDIA driver here (in a container: start it with --gpus all)") from None
        try:
            import pynvml
        except ImportError:
            raise Absent("NVML: the Python package nvidia-ml-py is not installed: pip install nvidia-ml-py") from None
        self._nvml: Any = pynvml
        self._watched = watched
        self.missing: dict[str, str] = {}
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise Absent(self._why(error)) from None
        self._asked = self._asks()
        self._boards: list[tuple[str, Any]] = []
        for index in range(count):
            try:
                self._boards.append((f"gpu{index}", pynvml.nvmlDeviceGetHandleByIndex(index)))
            except pynvml.NVMLError as error:
                self.missing[f"gpu{index}"] = self._why(error)
        if not self._boards:
            raise Absent(next(iter(self.missing.values()), "NVML: the driver sees no GPU"))

    def _asks(self) -> dict[tuple[str, ...], Ask]:
        nvml = self._nvml
        return {
            ("energy_j",): lambda b: (
                nvml.nvmlDeviceGetTotalEnergyConsumption(b) / 1e3,
            ),  # mJ since the driver was loaded; Volta and later
            ("power_w",): lambda b: (nvml.nvmlDeviceGetPowerUsage(b) / 1e3,),
            ("sm_clock_mhz",): lambda b: (nvml.nvmlDeviceGetClockInfo(b, nvml.NVML_CLOCK_SM),),
            ("memory_clock_mhz",): lambda b: (nvml.nvmlDeviceGetClockInfo(b, nvml.NVML_CLOCK_MEM),),
            ("temperature_c",): lambda b: (nvml.nvmlDeviceGetTemperature(b, nvml.NVML_TEMPERATURE_GPU),),
            ("throttle_reasons",): lambda b: (nvml.nvmlDeviceGetCurrentClocksThrottleReasons(b),),  # the bits of nvmlClocksThrottleReason…
            ("memory_used_bytes", "memory_total_bytes"): lambda b: _fields(nvml.nvmlDeviceGetMemoryInfo(b), "used", "total"),
            ("gpu_busy_percent", "memory_busy_percent"): lambda b: _fields(nvml.nvmlDeviceGetUtilizationRates(b), "gpu", "memory"),
        }

    def sample(self, t_ns: int) -> Iterable[Reading]:
        for device, board in self._boards:
            for metrics, ask in self._asked.items():
                key = f"{device} {metrics[0]}"
                if key in self.missing:
                    continue
                try:
                    values = ask(board)
                except self._nvml.NVMLError as error:
                    self.missing[key] = self._why(error)
                    continue
                for metric, value in zip(metrics, values, strict=True):
                    yield device, metric, float(value)
            yield from self._processes(device, board)

    def _processes(self, device: str, board: Any) -> Iterable[Reading]:
        """Memory of each compute process, and of the engine's together. In a container the driver's ids are the host's and match none."""
        key = f"{device} processes"
        if key in self.missing:
            return
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(board)
        except self._nvml.NVMLError as error:
            self.missing[key] = self._why(error)
            return
        engine, own = self._watched().engine, 0
        for process in running:
            if process.usedGpuMemory is not None:  # not known under WDDM and MIG
                yield f"{device}/pid{process.pid}", "memory_used_bytes", float(process.usedGpuMemory)
            own += process.usedGpuMemory or 0 if process.pid in engine else 0
        if any(process.pid in engine for process in running):
            yield device, "engine_memory_bytes", float(own)

    def _why(self, error: Any) -> str:
        nvml = self._nvml
        if isinstance(error, nvml.NVMLError_NoPermission):
            return FORBIDDEN
        if isinstance(error, nvml.NVMLError_FunctionNotFound):
            return "NVML: this driver has no such call: update the NVIDIA driver"
        if isinstance(error, nvml.NVMLError_NotSupported):
            return "NVML: this board cannot tell (Not Supported)"
        return f"NVML: {error}"

    def close(self) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            pass


def _fields(answer: Any, *names: str) -> tuple[float, ...]:
    return tuple(getattr(answer, name) for name in names)

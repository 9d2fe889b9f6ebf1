"""Stand-ins for what is not on this machine: a libnvidia-ml.so.1 built from nvml_stub.c, a powercap tree, and what they must show."""

from __future__ import annotations

import math
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEAN_W, SWING_W, PERIOD_S = 200.0, 100.0, 1.5  # as in nvml_stub.c
STEEPEST_W_PER_S = SWING_W * 2 * math.pi / PERIOD_S
# More than any package draws, so that a counter wraps every two seconds and yet a sampler that is held up for one is still trusted.
RAPL_W = {"intel-rapl:0": 1500.0, "intel-rapl:0:0": 15.0, "intel-rapl:1": 1000.0, "intel-rapl:1:0": 10.0}
RANGE_UJ = 3_000_000_000


def build_nvml(folder: Path, *flags: str) -> Path:
    """The stub in `folder`, to be put on LD_LIBRARY_PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("nvml_stub.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", *flags, str(source), "-o", str(folder / "libnvidia-ml.so.1"), "-lm"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


def stub_energy_j(open_ns: int, close_ns: int) -> float:
    """The integral of the stub's power, by the formula."""
    w = 2 * math.pi / PERIOD_S
    a, b = open_ns / 1e9, close_ns / 1e9
    return MEAN_W * (b - a) + SWING_W / w * (math.cos(w * a) - math.cos(w * b))


def powercap(root: Path, dram: bool = True, sockets: int = 2, range_uj: int = RANGE_UJ) -> Path:
    """The tree as Linux shows it; counters stand at 0.9 of their range."""
    for socket in range(sockets):
        zones = {f"intel-rapl:{socket}": f"package-{socket}", f"intel-rapl:{socket}:1": "core"}
        if dram:
            zones[f"intel-rapl:{socket}:0"] = "dram"
        for zone, name in zones.items():
            folder = root / zone
            folder.mkdir(parents=True)
            (folder / "name").write_text(name + "\n")
            (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
            (folder / "energy_uj").write_text(f"{int(range_uj * 0.9)}\n")
    return root


@contextmanager
def running(root: Path) -> Iterator[None]:
    """Counters that run at RAPL_W and wrap at RANGE_UJ."""
    stop = threading.Event()
    began = time.monotonic()

    def turn() -> None:
        while not stop.wait(0.002):
            for zone, watts in RAPL_W.items():
                if (path := root / zone / "energy_uj").exists():
                    energy_uj = int(RANGE_UJ * 0.9 + watts * 1e6 * (time.monotonic() - began)) % RANGE_UJ
                    fresh = path.with_name("energy_uj.next")
                    fresh.write_text(f"{energy_uj}\n")
                    fresh.replace(path)  # a reader never sees half a number

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

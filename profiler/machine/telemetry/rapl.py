"""CPU package and DRAM energy by RAPL, as Linux's powercap tree shows it: counters in microjoules that wrap.

Kernel documentation, power/powercap/powercap.rst: `energy_uj` counts up to `max_energy_range_uj` and starts again. One wrap between two
readings is seen as a step back and mended; two are not visible in the counter, so a gap in which a package would have needed less than
MAX_W to wrap is not trusted. Not verified on hardware.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from profiler.machine.telemetry.source import Absent, Reading

ROOT = Path("/sys/class/powercap")
ROOT_VARIABLE = "SLM_PROFILER_POWERCAP"  # another tree, for tests
# No figure is made of this: it only says when a counter may have wrapped unseen. Server packages are sold up to 500 W (AMD EPYC 9965, Intel
# Xeon 6980P, 2024); four times that.
MAX_W = 2000.0
WAY_OUT = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj /sys/class/powercap/intel-rapl:*:*/energy_uj (until the next boot)"


class Unwrapped:
    """A wrapping counter as a running total in J, 0 at the first reading."""

    def __init__(self, range_uj: int) -> None:
        self._range_uj = range_uj
        self._last: tuple[int, int] | None = None
        self._total_uj = 0

    def add(self, t_ns: int, energy_uj: int) -> float | None:
        """The total; None when the gap since the last reading is so long that more than one wrap cannot be ruled out."""
        if self._last is not None:
            then_ns, before_uj = self._last
            gap_s = (t_ns - then_ns) / 1e9
            if gap_s * MAX_W * 1e6 > self._range_uj:
                return None
            step_uj = energy_uj - before_uj
            self._total_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last = t_ns, energy_uj
        return self._total_uj / 1e6


@dataclass
class _Domain:
    device: str  # package-0, dram-0, psys
    path: Path
    total: Unwrapped


class Rapl:
    """Domains `package-N`, `dram-N` and `psys`; core and uncore are parts of a package and left out. Raises Absent."""

    name = "rapl"

    def __init__(self, root: Path | None = None) -> None:
        root = root or Path(os.environ.get(ROOT_VARIABLE) or ROOT)
        self.missing: dict[str, str] = {}
        zones = sorted(root.glob("intel-rapl:*"))  # AMD's packages carry the same name; intel-rapl-mmio repeats a package
        if not zones:
            raise Absent(
                f"RAPL: no powercap zone in {root}: usual in virtual machines and containers; on bare metal, sudo modprobe intel_rapl_msr"
            )
        self._domains: list[_Domain] = []
        for zone in zones:
            self._open(zone)
        if not any(domain.device.startswith("dram") for domain in self._domains) and "dram" not in self.missing:
            self.missing["dram"] = "RAPL: this CPU has no DRAM domain"
        if not self._domains:
            raise Absent(next(iter(self.missing.values())))

    def _open(self, zone: Path) -> None:
        kind = _read(zone / "name") or ""
        package = zone.name.split(":")[1]
        if kind.startswith("package"):
            device, what = kind, "package"
        elif kind == "dram":
            device, what = f"dram-{package}", "dram"
        elif kind == "psys":
            device, what = "psys", "psys"
        else:
            return
        counter = zone / "energy_uj"
        try:
            int(counter.read_text())
            domain = _Domain(device, counter, Unwrapped(int((zone / "max_energy_range_uj").read_text())))
        except PermissionError:
            self.missing[what] = f"RAPL: {counter} may be read by root only (since CVE-2020-8694): {WAY_OUT}, or run as root"
        except (OSError, ValueError) as error:
            self.missing[what] = f"RAPL: {counter} cannot be read: {error}"
        else:
            self._domains.append(domain)

    def sample(self, t_ns: int) -> Iterable[Reading]:
        for domain in list(self._domains):
            try:
                total_j = domain.total.add(t_ns, int(domain.path.read_text()))
            except (OSError, ValueError) as error:
                self._drop(domain, f"RAPL: {domain.path} could not be read any more: {error}")
                continue
            if total_j is None:
                self._drop(domain, f"RAPL: {domain.device} was not read for so long that its counter may have wrapped more than once")
                continue
            yield domain.device, "energy_j", total_j

    def _drop(self, domain: _Domain, why: str) -> None:
        self._domains.remove(domain)
        self.missing[domain.device] = why

    def close(self) -> None:
        self._domains.clear()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None

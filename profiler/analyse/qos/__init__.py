"""QoS targets: what they are (`target`), their text (`read`), their TOML (`table`), and the named ones (`presets`)."""

from profiler.analyse.qos.presets import PRESETS, Preset
from profiler.analyse.qos.read import AMBIGUOUS, Reader, parse
from profiler.analyse.qos.table import load, of_table, to_table
from profiler.analyse.qos.target import FLOORS, METRICS, UNITS, Constraint, Floor, Limit, QosTarget, answered
from profiler.errors import QosError

__all__ = [
    "AMBIGUOUS", "FLOORS", "METRICS", "PRESETS", "UNITS", "Constraint", "Floor", "Limit", "Preset", "QosError", "QosTarget", "Reader", "answered", "load", "of_table", "parse", "to_table",
]  # fmt: skip

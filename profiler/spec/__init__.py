"""What users write in TOML, validated once at the edge and frozen after. Unknown keys are refused with "did you mean".

`load_spec(path, BackendSpec)` reads a file.
"""

from profiler.spec.backend import BackendSpec, CalibrationSpec, NeedsSpec, PlacementSpec, Strict, VariantSpec
from profiler.spec.loading import Spec, load_spec, validate_spec
from profiler.spec.quality import QualitySpec
from profiler.spec.sweep import CoRunSpec, MeterSpec, SweepSpec
from profiler.spec.workload import (
    AgenticSpec,
    FixedLengths,
    Lengths,
    PromptsSpec,
    QuantileLengths,
    SessionsSpec,
    SharedPrefix,
    TraceSpec,
    WorkloadSpec,
)

__all__ = [
    "AgenticSpec",
    "BackendSpec",
    "CalibrationSpec",
    "CoRunSpec",
    "FixedLengths",
    "Lengths",
    "MeterSpec",
    "NeedsSpec",
    "PlacementSpec",
    "PromptsSpec",
    "QualitySpec",
    "QuantileLengths",
    "SessionsSpec",
    "SharedPrefix",
    "Spec",
    "Strict",
    "SweepSpec",
    "TraceSpec",
    "VariantSpec",
    "WorkloadSpec",
    "load_spec",
    "validate_spec",
]

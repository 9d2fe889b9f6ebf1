"""The notebooks run on the runs that ship, and what is committed of them is what they say today."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 1_500_000  # of the runs that ship

_spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
assert _spec is not None and _spec.loader is not None
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)


def said(notebook: Any) -> list[tuple[str, Any]]:
    """Sources and outputs without what differs by machine or by version of a library: pictures, and the theme of a figure."""
    parts: list[tuple[str, Any]] = []
    for cell in notebook.cells:
        parts.append((cell.cell_type, cell.source))
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if execute.PLOTLY in data:
                # To nine digits: the last ones differ with the order in which a processor adds.
                figure = json.loads(json.dumps(data[execute.PLOTLY]), parse_float=lambda digits: float(f"{float(digits):.9g}"))
                parts.append(("figure", (figure["data"], figure["layout"]["meta"])))
            elif "text/html" in data:
                parts.append(("html", "".join(data["text/html"])))
            else:
                parts.append((output.output_type, "".join(data.get("text/plain", output.get("text", "")))))
    return parts


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# A kernel opens its sockets on loopback and a file of their ports; both close with it.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_a_notebook_says_what_is_committed(path: Path) -> None:
    committed = nbformat.read(path, as_version=4)
    again = execute.run(path)
    for kept, now in zip(said(committed), said(again), strict=True):
        assert kept == now, f"{path.name}: run notebooks/execute.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_as_a_document(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for heading in ("## What is asked", "## What is not proven"):
        assert heading in text
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == list(
        range(1, 1 + sum(c.cell_type == "code" for c in notebook.cells))
    )
    figures = execute.figures(notebook)
    assert figures and text.count("How to read") >= len(figures)
    for output in figures:
        assert output["metadata"]["picture_of"] == execute.digest(output), "a picture of another figure: run notebooks/execute.py"
        assert output["data"]["image/png"] and "text/html" not in output["data"]
    assert not [o for c in notebook.cells for o in c.get("outputs", ()) if o.output_type == "error"]


def test_three_notebooks_and_little_data() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"read-a-sweep", "compare-hardware", "cost-at-demand"}
    assert sum(path.stat().st_size for path in (ROOT / "notebooks" / "data").rglob("*") if path.is_file()) < MOST_BYTES

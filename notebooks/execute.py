"""Run the notebooks and keep their outputs, with a picture beside each figure. Run: .venv/bin/python notebooks/execute.py [NAME ...]

A figure's output holds plotly's data, which JupyterLab and VS Code draw, and a PNG of it, which every site that hosts notebooks shows. The picture
is made by Chromium, without network; a test runs the notebooks anew and compares everything but the pictures.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH_PX = 900
DRAW = "([f, width]) => Plotly.newPlot('figure', f.data, {...f.layout, width}, {staticPlot: true})"
SECONDS = 300  # of one cell, at the most


def run(path: Path) -> Any:
    """The notebook of `path`, executed in its folder by a fresh kernel; nothing is written."""
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"  # data alone: neither a copy of plotly.js nor a link to one
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    notebook.metadata = nbformat.from_dict({"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    return notebook


def figures(notebook: Any) -> list[Any]:
    """The outputs that are figures."""
    return [o for cell in notebook.cells for o in cell.get("outputs", ()) if PLOTLY in o.get("data", {})]


def digest(output: Any) -> str:
    """Of what the picture shows."""
    return hashlib.sha256(json.dumps(output["data"][PLOTLY], sort_keys=True).encode()).hexdigest()[:16]


def add_pictures(notebook: Any) -> None:
    """A PNG in each figure's output, with the hash of the data it was made of. Needs Chromium and playwright."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    chromium = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        context = browser.new_context(viewport={"width": WIDTH_PX, "height": 800}, offline=True)
        page = context.new_page()
        page.set_content("<!doctype html><body style='margin:0'><div id='figure'></div>")
        page.add_script_tag(content=get_plotlyjs())
        for output in figures(notebook):
            figure = output["data"][PLOTLY]
            page.evaluate(DRAW, [figure, WIDTH_PX])
            picture = page.locator("#figure").screenshot()
            output["data"]["image/png"] = base64.b64encode(picture).decode()
            output["metadata"]["picture_of"] = digest(output)
        browser.close()


def main() -> None:
    for path in [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        notebook = run(path)
        add_pictures(notebook)
        nbformat.write(notebook, path)
        sys.stdout.write(f"{path.name}: {len(figures(notebook))} figures, {path.stat().st_size / 1e3:.0f} kB\n")


if __name__ == "__main__":
    main()

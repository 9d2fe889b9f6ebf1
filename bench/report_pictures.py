"""The pictures of a report in docs/: on a desktop, on a phone, on paper.

    .venv/bin/python bench/report_pictures.py RESULTS docs

Writes OUT/report.png, OUT/report-phone.png and OUT/report-print.png of the report of the folder's newest sweep, drawn by Chromium. Paper is
Chromium's own PDF (A4), its first pages side by side; the PDF is turned into pixels by `pip install pypdfium2 pillow`, which nothing else needs.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from profiler.analyse.recover import open_store
from profiler.report import html
from profiler.report.selection import select

DRAWN = "html[data-drawn=yes]"
SCREENS = {"report.png": (1200, 1300), "report-phone.png": (390, 844)}  # width, height in CSS pixels: a desktop, a phone of 2024
PAGES, GAP = 3, 12


def chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit("no Chromium on this machine: apt-get install chromium")
    return found


def opened(browser: Browser, page: Path, width: int, height: int) -> Any:
    """The page once all its figures are drawn. Raises RuntimeError on anything it said on its console."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light", offline=True)
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(page.as_uri())
    tab.wait_for_selector(DRAWN, state="attached", timeout=120_000)
    if said:
        raise RuntimeError(f"{page}: {'; '.join(said)}")
    return tab


def on_paper(pdf: Path, out: Path) -> None:
    """The first pages of a PDF beside each other. Without pypdfium2 this picture stays as it is, and a line says so."""
    try:
        pypdfium2, image = importlib.import_module("pypdfium2"), importlib.import_module("PIL.Image")
    except ImportError as error:
        print(f"{out}: not made: {error}; pip install pypdfium2 pillow")
        return
    document = pypdfium2.PdfDocument(pdf)
    pages = [document[number].render(scale=1.0).to_pil() for number in range(min(PAGES, len(document)))]
    sheet = image.new("RGB", (sum(p.width for p in pages) + GAP * (len(pages) - 1), max(p.height for p in pages)), "#888")
    left = 0
    for page in pages:
        sheet.paste(page, (left, 0))
        left += page.width + GAP
    sheet.save(out, optimize=True)
    print(f"{out}: {len(pages)} of {len(document)} pages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a results folder")
    parser.add_argument("out", type=Path, help="the folder of the pictures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page = html.write(select(open_store(given.results)), Path(scratch) / "report.html")
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-background-networking"])
        for name, size in SCREENS.items():
            opened(browser, page, *size).screenshot(path=given.out / name)
            print(given.out / name)
        pdf = Path(scratch) / "report.pdf"
        opened(browser, page, 1200, 900).pdf(path=pdf, format="A4")
        on_paper(pdf, given.out / "report-print.png")
        browser.close()


if __name__ == "__main__":
    main()

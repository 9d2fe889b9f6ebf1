"""The section on quality in a real browser, with hostile text in answers, prompts and reasons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shown import HOSTILE

from profiler.analyse.margins import Margins
from profiler.report import html
from profiler.report.selection import select
from profiler.store.store import Store

DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data" / "closed-loop"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real runs and evaluations of the notebooks; int8 fails every example with hostile text, and the texts are named so."""
    folder = Path(shutil.copytree(DATA, tmp_path_factory.mktemp("quality") / "r"))
    for path in (folder / "quality").glob("*.json"):
        document = json.loads(path.read_text())
        document["drift"]["text"] = document["tasks"]["tasks"] = f"mine {HOSTILE}"
        for one in document["tasks"]["examples"] if document["variant"]["precision"] == "int8" else ():
            one.update(passed=False, answer=f"wrong {HOSTILE}", reason=HOSTILE, prompt=f"Why? {HOSTILE}")
        path.write_text(json.dumps(document))
    margins = Margins(0.05, 0.02)
    return html.write(select(Store(folder), margins=margins), folder / "report.html")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_it_is_drawn_fits_and_runs_nothing_of_an_answer(evaluated: Path, opened: Callable[..., Any], width: int, scheme: str) -> None:
    page, said, asked = opened(evaluated, width=width, scheme=scheme)
    assert said == [] and asked == [evaluated.as_uri()] and page.title() != "owned"
    assert page.locator("main img").count() == 0 and page.locator("main script").count() == 0
    section = page.locator("section[aria-labelledby=quality]")
    text = section.inner_text()
    assert text.count(HOSTILE) >= 9 and "demonstration only" in text.lower() and "INFERIOR" in text
    assert section.locator(".plot").count() == 2 and section.locator(".plot .scatterlayer .point").count() >= 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_its_rows_and_points_follow_the_filter(evaluated: Path, opened: Callable[..., Any]) -> None:
    page, _, _ = opened(evaluated, fragment="backend=openvino-xeon-bf16")
    rows = page.locator("section[aria-labelledby=quality] tbody tr")
    assert [rows.nth(k).is_visible() for k in range(rows.count())] == [True, False]
    assert not page.locator("section[aria-labelledby=quality] .sample").first.is_visible()

"""The section of capacity and cost in a real browser, over the shipped imports: one backend that serves several models on several devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from shown import open_page

from profiler import catalog
from profiler.analyse import fit, qos
from profiler.analyse.offers import Prices
from profiler.report import html
from profiler.report.selection import select
from profiler.store.store import Store

pytestmark = pytest.mark.browser
ROWS = "[aria-label^='Capacity and cost of'] tbody tr"


@pytest.fixture(scope="module")
def answered() -> tuple[Store, fit.Answer]:
    store = Store(catalog.results(Path("results/reference")))
    return store, fit.answer(store, fit.Question(qos.parse("tpot_p50<=100ms"), Prices((), (), "USD")))


@pytest.fixture(scope="module")
def page(answered: tuple[Store, fit.Answer], tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Any]:
    store, answer = answered
    file = html.write(select(store), tmp_path_factory.mktemp("page") / "report.html", answer)
    found, said, _ = open_page(browser, file)
    yield found
    found.context.close()
    assert said == []


def test_every_candidate_has_its_row_and_the_filter_takes_it_out(page: Any, answered: tuple[Store, fit.Answer]) -> None:
    rows, candidates = page.locator(ROWS), answered[1].candidates
    assert rows.count() == len(candidates) >= 3 and all(row.is_visible() for row in rows.all())
    box = page.locator("#filters fieldset[data-filter=backend] input").first
    model = box.get_attribute("value").partition(" · ")[2]
    box.uncheck()
    gone = sum(c.row["model"] == model for c in candidates)
    assert 0 < gone < len(candidates) and sum(not row.is_visible() for row in rows.all()) == gone
    box.check()


def test_a_long_legend_leaves_a_plot_its_room(page: Any) -> None:
    plot = page.locator("figure:has(b:has-text('Imported: throughput')) .plot")
    plot.scroll_into_view_if_needed()
    names = plot.locator(".legendtext")
    names.first.wait_for()
    assert names.count() > 4
    assert plot.locator(".gridlayer").first.bounding_box()["height"] > 140

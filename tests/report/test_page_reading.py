"""What a reader does with the page: filters it, sends its address on, sorts, prints, reads it with a screen reader."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from shown import keep, open_page

from profiler.report import document, html
from profiler.report.selection import select
from profiler.store.store import Store

A, B = "openvino-xeon-int8", "openvino-xeon-bf16"
MARKUP = "<b>x</b><script>document.title='owned'</script><a href='javascript:alert(1)'>y</a>"
A4_WIDTH = 794  # CSS pixels of 210 mm
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty runs: two backends, two workloads, two models of one backend, two loads, repeats; one model is named as markup is."""
    store = Store(tmp_path_factory.mktemp("several"))
    for repeat in range(3):
        for load in (1, 16):
            for workload in ("chat", "rag"):
                for backend, model in ((A, "smollm2"), (B, "smollm2"), (B, MARKUP)):
                    if (workload, model, repeat) == ("rag", MARKUP, 1):
                        continue
                    cell = f"{backend}-{load}-{workload}-{model[:3]}"
                    columns = {"workload": workload, "model": model, "repeat": repeat, "cell_id": cell, "start_id": f"{backend}-{repeat}"}
                    speed = 1 if backend == A else 2
                    keep(store, backend, "concurrency", load, ttft_ms=60 * load * speed, gap_ms=3 * load * speed, n=40, **columns)
    keep(store, A, "rate", 2, n=40, workload="chat", validity="suspect", validity_reasons=["late sends"])
    selection = select(store)
    assert len(selection.rows) >= 30
    return html.write(selection, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def _shared(several: Path, browser: Browser) -> Iterator[Any]:
    page, said, _ = open_page(browser, several)
    yield page
    page.context.close()
    assert said == []


@pytest.fixture
def reader(_shared: Any, several: Path) -> Any:
    """One page for all tests, without a filter: it is drawn once, which takes seconds."""
    _shared.set_viewport_size({"width": 1200, "height": 900})
    _shared.emulate_media(media="screen")
    _shared.goto(several.as_uri() + "#sort=runs-table.0.up")  # no filter, and something to wait for
    _shared.wait_for_selector("#runs-table th:first-child[aria-sort=ascending]", state="attached", timeout=10_000)
    return _shared


def test_a_page_of_thirty_runs_stays_below_six_megabytes(several: Path) -> None:
    assert several.stat().st_size < 6_000_000


@pytest.mark.browser
def test_filters_hide_rows_figures_and_curves_and_the_address_keeps_them(several: Path, reader: Any, opened: Open) -> None:
    rows = reader.locator("#runs-table tbody tr:visible")
    everything = rows.count()
    reader.uncheck(f"input[name=backend][value='{A}']")
    left = rows.count()
    assert 0 < left < everything and reader.locator(f"tr[data-backend='{A}']:visible").count() == 0
    assert f"{left} of {everything} runs shown" in reader.inner_text("#shown")
    curves = reader.locator(".plot").first
    assert A not in curves.inner_text() and B in curves.inner_text()
    reader.uncheck("input[name=workload][value=rag]")
    assert reader.locator("article.answer:visible").count() == 1
    other, _, _ = opened(several, fragment=reader.url.partition("#")[2])
    assert other.locator("#runs-table tbody tr:visible").count() == rows.count()
    assert not other.is_checked(f"input[name=backend][value='{A}']")
    other.click("button[type=reset]")
    other.wait_for_selector(f"#runs-table tr[data-backend='{A}']:visible")
    assert other.locator("#runs-table tbody tr:visible").count() == everything


@pytest.mark.browser
def test_filters_work_from_the_keyboard(reader: Any) -> None:
    box = reader.locator("input[name=workload]").first
    box.focus()
    reader.keyboard.press("Space")
    assert not box.is_checked() and reader.locator("article.answer:visible").count() == 1


@pytest.mark.browser
def test_a_permalink_opens_its_run_even_through_a_filter(several: Path, reader: Any, opened: Open) -> None:
    reader.click(".glance a >> nth=0")
    run = reader.url.partition("#")[2]
    run = run.rpartition("at=")[2]
    assert run.startswith("run-") and reader.locator(f"details[id='{run}']").get_attribute("open") is not None
    other, _, _ = opened(several, fragment=f"backend={B}&at={run}")
    assert other.locator(f"details[id='{run}']").is_visible() and other.locator(f"details[id='{run}']").get_attribute("open") is not None


@pytest.mark.browser
def test_an_address_that_names_nothing_shows_everything(several: Path, opened: Open) -> None:
    page, said, _ = opened(several, fragment="backend=gone&sort=x.9.up&at=%3Cscript%3E")
    assert said == [] and page.locator("#runs-table tbody tr:visible").count() == page.locator("#runs-table tbody tr").count()


@pytest.mark.browser
def test_headings_sort_numbers_as_numbers_and_the_address_keeps_it(several: Path, reader: Any, opened: Open) -> None:
    def loads(page: Any) -> list[float]:
        return [float(cell.get_attribute("data-v")) for cell in page.locator("#runs-table tbody tr td:nth-child(4)").all()]

    heading = reader.locator("#runs-table th", has_text=re.compile("^load"))
    heading.locator("button").click()
    assert loads(reader) == sorted(loads(reader)) and heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    down = loads(reader)
    assert down == sorted(down, reverse=True) and down[0] == 16
    other, _, _ = opened(several, fragment=reader.url.partition("#")[2])
    assert loads(other) == down


@pytest.mark.browser
def test_paper_has_no_filters_and_no_figure_wider_than_itself(reader: Any) -> None:
    reader.set_viewport_size({"width": A4_WIDTH, "height": 1123})
    reader.emulate_media(media="print")
    assert not reader.locator("#filters").is_visible() and not reader.locator(".skip").is_visible()
    assert reader.evaluate("document.documentElement.scrollWidth") <= A4_WIDTH
    for figure in reader.locator("figure:visible, figure:visible svg.main-svg").all():
        box = figure.bounding_box()
        assert box["width"] > 100 and box["x"] + box["width"] <= A4_WIDTH
    sizes = reader.evaluate(
        "['.verdict b.flag', '.verdict > b:last-of-type'].map(s => parseFloat(getComputedStyle(document.querySelector(s)).fontSize))"
    )
    assert sizes[0] <= sizes[1]


@pytest.mark.browser
def test_headings_descend_one_step_at_a_time(reader: Any) -> None:
    levels = [int(tag[1]) for tag in reader.locator("h1, h2, h3, h4, h5, h6").evaluate_all("found => found.map(e => e.tagName)")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.browser
def test_every_control_and_table_has_a_name(reader: Any) -> None:
    assert reader.locator("th:not([scope])").count() == 0
    assert all(box.evaluate("e => e.labels.length") for box in reader.locator("input").all())
    for plot in reader.locator(".plot").all():
        described = plot.get_attribute("aria-describedby").split()
        assert all(reader.locator(f"#{name}").text_content().strip() for name in described)
    ids = reader.locator("[id]").evaluate_all("found => found.map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.browser
def test_a_model_called_like_markup_is_text_in_a_legend(reader: Any) -> None:
    assert reader.title() != "owned"
    legends = reader.locator(".plot .legendtext").all_text_contents()
    assert any("<b>x</b>" in text for text in legends) and any("<script>" in text for text in legends)
    assert reader.locator(".plot a, .plot script, .plot tspan[style*='bold']").count() == 0


@pytest.mark.browser
def test_models_of_one_backend_are_series_of_their_own(reader: Any) -> None:
    legends = set(reader.locator(".plot").first.locator(".legendtext").all_text_contents())
    assert {text.partition(",")[0] for text in legends} == {A, f"{B} · smollm2", f"{B} · {MARKUP}"}
    names = reader.locator(".matrix").first.locator("tbody th").all_text_contents()
    assert sorted(names) == sorted([A, f"{B} · smollm2", f"{B} · {MARKUP}"])


def luminance(colour: str) -> float:
    """Relative luminance of `#abc` or `#aabbcc` (WCAG 2.2, definition of relative luminance)."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# text, and every ground it is drawn on in report.css
PAIRS = [
    *((text, ground) for text in ("text", "muted", "link", "bad", "flag") for ground in ("ground", "soft")),
    *((text, ground) for text in ("text", "muted", "flag", "link") for ground in ("good-soft", "bad-soft", "open-soft") if text != "link"),
    ("good", "good-soft"),
    ("bad", "bad-soft"),
    ("open", "open-soft"),
    ("link", "good-soft"),
    ("link", "open-soft"),
    ("ground", "good"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_has_the_contrast_of_wcag_aa(scheme: str, text: str, ground: str) -> None:
    found = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", block)) for block in re.findall(r":root \{(.*?)\}", document.asset("report.css"))
    ]
    light, dark = found
    colours = light if scheme == "light" else light | dark
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast(colours[text], colours[ground]) >= 4.5

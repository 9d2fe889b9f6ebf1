"""The report as a reader meets it: in a real browser, offline, on a desktop, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shown import HOSTILE

from profiler.errors import ReportError
from profiler.report import html
from profiler.report.selection import select
from profiler.store.store import Store


@pytest.fixture(scope="module")
def report(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return html.write(select(store), tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_and_nothing_is_asked_of_the_network(report: Path, opened: Callable[..., Any], scheme: str) -> None:
    page, said, asked = opened(report, scheme=scheme)
    assert said == [] and asked == [report.as_uri()]
    plots = page.locator(".plot")
    assert plots.count() == 2 + 2 + 2 * 5  # two curves; goodput of both loops; TTFT and TPOT at five loads
    for number in range(plots.count()):
        plot = plots.nth(number)
        assert plot.locator(".scatterlayer path.js-line").count() >= 1, plot.get_attribute("id")
        assert plot.get_attribute("aria-label")
    # what is drawn has a size, and the text has the colour of the page
    box = plots.first.locator("svg.main-svg").first.bounding_box()
    assert box["width"] > 300 and box["height"] > 200
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('.xtick text')).fill]")
    assert colours[0] == colours[1]


@pytest.mark.browser
def test_hostile_text_is_shown_and_does_nothing(report: Path, opened: Callable[..., Any]) -> None:
    page, said, _ = opened(report)
    assert said == [] and page.title() != "owned" and "smollm2" in page.title()
    assert page.locator("main img").count() == 0
    assert page.locator("main script").count() == 0
    text = page.inner_text("main")
    assert text.count(HOSTILE) >= 4  # a backend, a failure, a finding, an answer


@pytest.mark.browser
def test_the_policy_stops_what_a_hole_would_let_in(report: Path, opened: Callable[..., Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(report.read_text().replace("<h1>", "<script>document.title='owned'</script><h1>", 1))
    page, said, _ = opened(broken)
    assert page.title() != "owned" and any("Content Security Policy" in line for line in said)


@pytest.mark.browser
def test_it_fits_a_phone(report: Path, opened: Callable[..., Any]) -> None:
    page, _, _ = opened(report, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
def test_what_a_reader_must_know_stands_before_any_figure(report: Path, opened: Callable[..., Any]) -> None:
    page, _, _ = opened(report)
    text = page.inner_text("main")
    head = text[: text.index("Verdicts")]
    for words in ("ttft_p95<=500ms", "Testium 9000", "closed loop", "open loop", "conditional on one engine start", "64 answered"):
        assert words in head
    for words in (
        "8 valid, 1 suspect",
        "1 could not be measured",
        "late sends",
        "measured;",
        "power is not sampled",
        "second quantisation",
    ):
        assert words in head
    assert page.locator(".plot").first.bounding_box()["y"] > page.locator("#trust").bounding_box()["y"]


def test_figures_on_the_page_are_the_columns_of_the_runs(report: Path, store: Store) -> None:
    text = report.read_text()
    for row in store.runs().itertuples():
        assert row.run_id in text
        if row.status == "done":
            assert f"{row.output_tps:,.1f}" in text


def test_size_stays_below_six_megabytes(report: Path) -> None:
    assert report.stat().st_size < 6_000_000


def test_what_cannot_be_written_or_chosen_is_said_in_one_line(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written"):
        html.write(select(store), tmp_path / "file" / "report.html")
    with pytest.raises(ReportError, match="no sweep called 'abc'"):
        select(store, "abc")
    with pytest.raises(ReportError, match="no runs"):
        select(Store(tmp_path / "empty"))
    assert list(tmp_path.glob("**/.report*")) == []


def test_the_report_is_replaced_whole(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    html.write(select(store), out)
    assert out.read_text().endswith("</html>") and [p.name for p in tmp_path.iterdir()] == ["report.html"]

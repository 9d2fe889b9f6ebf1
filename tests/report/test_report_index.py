"""The index of a folder of reports: what it lists, what it leaves out, where its links lead."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner
from shown import HOSTILE, keep

from profiler.cli.main import cli
from profiler.report import html
from profiler.report.selection import select
from profiler.store.store import Store

ODD = "a <b> & 50%#1.html"  # what a link must quote


class Links(HTMLParser):
    """Link targets and the names of all elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.hrefs += [value or "" for name, value in attrs if tag == "a" and name == "href"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports, one of them below and oddly named; and files that are none."""
    folder = tmp_path_factory.mktemp("site")
    for number, (name, day) in enumerate((("old.html", "2026-11-01"), (f"nightly/{ODD}", "2026-11-20"))):
        store = Store(tmp_path_factory.mktemp("results"))
        for workload in ("chat", "rag")[: number + 1]:
            started = f"{day}T01:00:00.000+00:00"
            keep(store, "openvino-xeon-int8", "concurrency", 1, workload=workload, model=HOSTILE, started_at=started)
        html.write(select(store), folder / name)
    (folder / "foreign.html").write_text("<title>not ours</title><script>1</script>")
    (folder / "broken.html").write_text('<script type="application/json" id="report-facts">{"title": </script>')
    (folder / "forged.html").write_text('<script type="application/json" id="report-facts">{"title": "x"}</script>')
    return folder


@pytest.fixture(scope="module")
def listed(folder: Path) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["report", "--index", str(folder), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return {"json": json.loads(done.stdout), "stderr": done.stderr, "page": folder / "index.html"}


def test_it_lists_reports_newest_first_and_names_what_it_left_out(listed: dict[str, Any]) -> None:
    assert [unquote(href) for href in listed["json"]["reports"]] == [f"nightly/{ODD}", "old.html"]
    assert listed["json"]["left_out"] == ["broken.html", "foreign.html", "forged.html"]
    assert all(f"warning: {name}: is no report" in listed["stderr"] for name in listed["json"]["left_out"])
    assert "foreign.html" not in listed["page"].read_text()


def test_every_link_leads_to_a_file_and_to_its_verdicts(folder: Path, listed: dict[str, Any]) -> None:
    links = Links(listed["page"].read_text()).hrefs
    assert len(links) == 2 + 1 + 2  # each report, an answer of the old one, two of the new one
    assert all((folder / unquote(link.partition("#")[0])).is_file() for link in links)
    assert [link.partition("#")[2] for link in links if "#" in link] == [
        "workload=chat&at=verdicts",
        "workload=rag&at=verdicts",
        "verdicts",
    ]


def test_it_holds_hostile_titles_as_text(listed: dict[str, Any]) -> None:
    text = listed["page"].read_text()
    tags = Links(text).tags
    assert HOSTILE not in text and "&lt;script&gt;" in text and tags.count("script") == 1 and "img" not in tags
    assert "default-src &#39;none&#39;; script-src &#39;sha256-" in text


def test_it_is_made_again_without_listing_itself(folder: Path, listed: dict[str, Any]) -> None:
    before = listed["page"].read_bytes()
    CliRunner().invoke(cli, ["report", "--index", str(folder)], catch_exceptions=False)
    assert listed["page"].read_bytes() == before


def test_an_empty_folder_and_one_that_is_none(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", "--index", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0 and "No report in this folder" in (tmp_path / "index.html").read_text()
    done = CliRunner().invoke(cli, ["report", "--index", str(tmp_path / "nowhere")])
    assert done.exit_code == 1 and "is not a folder" in str(done.exception)


@pytest.mark.browser
def test_a_link_opens_the_report_filtered_to_its_workload(folder: Path, listed: dict[str, Any], opened: Callable[..., Any]) -> None:
    page, said, _ = opened(listed["page"], ready="table")
    page.click("td a[href*='workload=rag']")
    page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=60_000)
    assert said == [] and page.title() != "owned"
    assert page.locator("article.answer:visible").count() == 1 and "For rag" in page.inner_text("article.answer:visible")

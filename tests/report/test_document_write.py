"""A page is written whole or not at all, and what could not be written leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from profiler.analyse.compare import Compared, Comparison
from profiler.errors import ReportError
from profiler.report import compare_html, document

ROW = Compared("cell", "tpot_p50 > +5%", "tpot_p50", "s", 1.05, "within", "", ratio=1.0, lo=0.99, hi=1.01)
FOUND = Comparison("a", "b", 0.95, "within", "fine", (ROW,), (), (), (), (), 0)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    for write in (lambda: document.write("x" * 10_000, out), lambda: compare_html.write(FOUND, out)):
        with synthetic.files_end_at(1000), pytest.raises(ReportError, match=r"report\.html: cannot be written: File too large"):
            write()
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"] and out.read_text() == "old"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(ReportError, match="taken: cannot be written: Is a directory") as failed:
        document.write("text", tmp_path / "taken")
    assert failed.value.hint == "give another file with --out"
    with pytest.raises(ReportError, match="taken: cannot be written: Is a directory") as failed:
        compare_html.write(FOUND, tmp_path / "taken")
    assert failed.value.hint == "give another --html FILE"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_page_of_a_comparison_runs_nothing() -> None:
    text = compare_html.render(FOUND)
    assert document.policy().replace("'", "&#39;") in text and "script-src &#39;none&#39;" in text and text.count("<svg") == 1

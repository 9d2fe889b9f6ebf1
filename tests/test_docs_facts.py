"""Facts that pages repeat from the program: tables of options, metrics, presets, error kinds and numbers of requests."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from scipy.stats import beta

from profiler.analyse import qos
from profiler.environments import ENVIRONMENTS, python_variable
from profiler.records import ErrorKind
from profiler.store import schema

DOCS = Path(__file__).resolve().parents[1] / "docs"


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of the same or a higher level."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}$\n(.*?)(?=^#{{1,2}} |\Z)", text, flags=re.M | re.S)
    assert found, f"{page} has no heading {heading!r}"
    return found.group(2)


def first_cells(text: str) -> list[str]:
    """First cells of all table rows, without their code marks."""
    return [row.split("|")[1].strip() for row in text.splitlines() if row.startswith("|") and not row.startswith("|--")]


@pytest.mark.parametrize("engine", ["openvino", "vllm", "llamacpp", "openai", "null", "paced"])
def test_every_option_of_an_engine_is_in_its_table(engine: str) -> None:
    known = import_module(f"profiler.engines.{engine}").KNOWN
    text = section("engines.md", engine)
    for option in known:
        assert f"`{option}`" in first_cells(text), f"engines.md does not list {engine}'s option {option}"
    # No table of a neighbour is taken for its own: what stands first in a row of its option table exists.
    table = text[text.index("| option") :].split("\n\n")[0]
    assert {cell.strip("`") for cell in first_cells(table)} - {"option"} == set(known)


@pytest.mark.parametrize("engine", ["openvino", "vllm", "llamacpp"])
def test_defaults_of_an_engine_are_those_of_the_page(engine: str) -> None:
    defaults = import_module(f"profiler.engines.{engine}").DEFAULTS
    rows = {
        row.split("|")[1].strip(" `"): row.split("|")[3].strip()
        for row in section("engines.md", engine).splitlines()
        if row.count("|") == 5
    }
    for option, value in defaults.items():
        assert rows[option] == str(value).lower()


def test_interpreters_of_your_own_are_named_with_what_they_must_import() -> None:
    text = section("engines.md", "Environments")
    for spec in ENVIRONMENTS.values():
        row = next(row for row in text.splitlines() if f"`{python_variable(spec)}`" in row)
        assert all(name in row for name in spec.check_imports)


def test_every_metric_and_preset_is_on_the_page() -> None:
    text = (DOCS / "qos.md").read_text(encoding="utf-8")
    cells = first_cells(text)
    for metric, (column, _, vacuous) in qos.METRICS.items():
        row = next(row for row in text.splitlines() if row.startswith(f"| `{metric}` |"))
        assert f"`{column}`" in row and row.split("|")[3].strip().startswith("keeps" if vacuous else "misses")
    for name, preset in qos.PRESETS.items():
        assert f"`{name}`" in cells and f"`{preset.text}`" in text
        assert preset.source.split(":")[0].split(" (")[0] in text


def test_examples_of_targets_parse_and_the_broken_one_points_where_the_page_says() -> None:
    text = section("qos.md", "How a target is written")
    examples = [row.split("`")[1] for row in text.splitlines() if row.startswith("| `") and "<=" in row.split("|")[1]]
    assert len(examples) >= 4
    for example in examples:
        assert qos.parse(example).constraints
    with pytest.raises(qos.QosError) as caught:
        qos.parse("ttft_p95<=500")
    shown = [line.strip() for line in text.splitlines() if line.startswith("    QoS target")]
    assert shown == [caught.value.message]


def test_the_numbers_of_requests_are_clopper_pearsons() -> None:
    """The oracle is the beta distribution itself."""
    rows = [row for row in section("qos.md", "How many requests it takes to prove FITS").splitlines() if re.match(r"\| p9", row)]
    checked = 0
    for row in rows:
        label, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        percent = float(label.split("p")[1].split(",")[0])
        if "n = " in label:
            n = int(label.split("n = ")[1].replace(",", ""))
            for conditions, cell in enumerate(cells, 1):
                k, alpha, allowed = int(cell), 0.05 / conditions, 1 - percent / 100
                assert beta.ppf(alpha, k, n - k + 1) > allowed >= beta.ppf(alpha, k - 1, n - k + 2), row
                checked += 1
        else:
            for misses, cell in enumerate(cells):
                n, allowed = int(cell.strip("*").replace(",", "")), 1 - percent / 100
                assert beta.ppf(0.95, misses + 1, n - misses) <= allowed < beta.ppf(0.95, misses + 1, n - 1 - misses), row
                checked += 1
    assert checked == 5 * 6 + 5 * 3


def test_every_error_kind_is_explained() -> None:
    text = section("measuring.md", "The life of a request")
    for kind in get_args(ErrorKind):
        assert f"`{kind}`" in text


def test_columns_named_on_the_pages_exist() -> None:
    known = {column.name for table in schema.TABLES.values() for column in table}
    for page in ("measuring.md", "report.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for name in re.findall(r"`([a-z0-9_]+_(?:s|ns|tps|us|tokens))`", text):
            if not name.startswith(("_", "window_m", "warmup_", "request_timeout_", "completion_")):
                assert name in known, f"{page}: no column {name}"

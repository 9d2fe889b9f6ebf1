"""docs/worked-example.md and docs/interpolation.md hold what the commands print."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def bench(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "bench" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, dict[str, object], str]:
    module = bench("worked_example")
    folder = tmp_path_factory.mktemp("worked")
    return module, module.answer(folder / "results"), module.lengths(folder / "lengths")


def test_the_page_holds_what_the_commands_print(said: tuple[ModuleType, dict[str, object], str]) -> None:
    module, answer, lengths = said
    text = (ROOT / "docs" / "worked-example.md").read_text()
    assert module.page(text, module.sections(answer) | {"lengths": lengths}) == text


def test_the_figures_by_hand(said: tuple[ModuleType, dict[str, object], str]) -> None:
    """Whole offers x price x 730 h, from the tables themselves."""
    _, _answer, _ = said
    text = (ROOT / "docs" / "worked-example.md").read_text()
    month_s = 8760 / 12 * 3600
    by_hand = {
        "l4-vllm": (1, 0.8048, 2.5953591536),
        "h100-sglang": (1, 6.88, 28.21),
        "xeon-8580-int8": (4, 8.164992, 843.51 / (78.61 / 0.2)),
    }
    for name, (offers, price, saturated) in by_hand.items():
        month = offers * price * 730
        row = next(line for line in text.splitlines() if line.startswith(f"| rented | {name}"))
        cells = [float(re.sub(r"[^0-9.]", "", cell)) for cell in row.split("|")[3:7]]
        assert cells[0] == pytest.approx(month, rel=0.01) and cells[1] == pytest.approx(month / (2 * month_s) * 1000, rel=0.01)
        assert cells[3] == pytest.approx(price * 730 / (saturated * month_s) * 1000, rel=0.01)
    crossing = float(re.search(r"rented: l4-vllm \(aws g6.xlarge\) up to ([0-9.]+)/s", text)[1])  # type: ignore[index]
    assert crossing == pytest.approx(8 * 2.5953591536, rel=0.01)  # eight L4s are 4,700 USD, nine 5,288; one H100 is 5,022


def test_the_error_tables_have_the_product_s_own_form() -> None:
    module = bench("interpolation")
    points = [module.Point(i, o, r, 0.1 + 1e-4 * i, 0.01 + 1e-4 * r) for i in (100, 200, 400) for o in (10, 20) for r in (1, 4)]
    lines = module.table({("system", "m"): points}, ("tpot", "ttft")).splitlines()
    page = (ROOT / "docs" / "interpolation.md").read_text()
    assert lines[0] in page and lines[2].startswith("| system | TPOT | 1 |") and "h100_sxm" in page

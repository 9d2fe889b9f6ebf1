"""Imported curves: the knee and the highest load by the mean, by hand-made rows whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.analyse.published import knee, knee_words, mean_limit, published
from profiler.analyse.qos import parse


def rows(loads: list[float], capacity: float, tokens: float = 400.0, **more: Any) -> list[dict[str, Any]]:
    """A server that follows up to `capacity` requests/s and then stays there."""
    return [
        {
            "load": x, "load_kind": "rate", "imported_tps": tokens * min(x, capacity), "tpot_mean_s": 0.05 / max(0.05, 1 - x / capacity),
            "provenance_class": "imported", "run_id": str(x), "model": "m", "variant": "int8", "device": "Xeon", "import_tool": "t",
            "import_source": "s", "import_licence": "MIT", "import_date": "2025", **more,
        }
        for x in loads
    ]  # fmt: skip


@pytest.mark.parametrize("capacity", [0.62, 0.9, 1.5])
def test_the_knee_lies_between_the_loads_around_the_capacity(capacity: float) -> None:
    loads = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    found = knee(rows(loads, capacity))
    assert found is not None and found.follows is not None and found.leaves is not None
    assert found.follows <= capacity < found.leaves
    assert found.crossing == pytest.approx(capacity)


def test_a_curve_that_follows_to_the_end_has_no_knee() -> None:
    found = knee(rows([0.2, 0.4, 0.6], 5.0))
    assert found is not None and (found.leaves, found.crossing, found.follows) == (None, None, 0.6)
    assert knee(rows([0.2, 0.4], 5.0)) is None
    assert knee([{**row, "imported_tps": None} for row in rows([0.2, 0.4, 0.6], 5.0)]) is None


def test_the_highest_load_by_the_mean_stops_at_the_first_one_above() -> None:
    own = rows([0.1, 0.2, 0.3, 0.4], 0.5)
    found = mean_limit(own, "tpot", 0.1)
    assert found is not None and (found.keeps, found.above) == (0.2, 0.3)
    own[3]["tpot_mean_s"] = 0.01  # a load beyond that is lower again does not count
    assert mean_limit(own, "tpot", 0.1) == found
    assert mean_limit(own, "ttft", 0.1) is None
    nothing = mean_limit(own, "tpot", 0.001)
    assert nothing is not None and (nothing.keeps, nothing.above) == (None, 0.1)


def test_measured_rows_have_none_and_imported_ones_name_what_to_measure() -> None:
    own = rows([0.2, 0.4, 0.6, 0.8], 0.5)
    target = parse("tpot_p95<=100ms")
    assert published([{**row, "provenance_class": "measured"} for row in own], target) is None
    found = published(own, target)
    assert found is not None and "--rate 0.2,0.4,0.6 --repeats 3" in found.to_measure[0]
    assert knee_words(found) == "0.4–0.6 (lines cross at 0.5)"

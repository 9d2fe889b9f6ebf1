"""Imported figures as point estimates: what they carry at most, by rows whose server is known."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.analyse.estimate import Estimate, achieved, estimate
from profiler.analyse.published import published
from profiler.analyse.qos import parse

TARGET = parse("tpot_p95<=100ms")


def rows(loads: list[float], capacity: float, **more: Any) -> list[dict[str, Any]]:
    source = {"import_tool": "t", "import_source": "s", "import_licence": "MIT", "import_date": "2025"}
    return [
        {"load": x, "load_kind": "rate", "imported_tps": 400 * min(x, capacity), "tpot_mean_s": 0.05 / max(0.05, 1 - x / capacity),
         "provenance_class": "imported", "run_id": str(x), "model": "m", "variant": "int8", "device": "Xeon", **source, **more}
        for x in loads
    ]  # fmt: skip


def made(own: list[dict[str, Any]], text: str = "tpot_p95<=100ms") -> Estimate:
    target = parse(text)
    told = published(own, target)
    assert told is not None
    found = estimate(told, target, own)
    assert isinstance(found, Estimate)
    return found


def test_the_highest_rate_by_the_mean_and_the_next_one() -> None:
    found = made(rows([0.1, 0.2, 0.3, 0.4, 0.6, 0.8], 0.5))  # 50 ms / (1 - x / 0.5): 100 ms at 0.25
    assert (found.range.lower, found.range.upper, found.range.provenance) == (0.2, 0.3, "imported")
    assert found.saturation is not None and found.saturation.rate == pytest.approx(0.5) and found.saturation.proven
    assert "by means" in " ".join(found.notes)


def test_a_metric_that_the_source_lacks_is_said_and_throughput_alone_bounds() -> None:
    found = made(rows([0.1, 0.2, 0.3, 0.4, 0.6, 0.8], 0.5), "ttft_p95<=1s")
    assert (found.range.lower, found.range.upper) == (0.4, 0.6)
    assert found.notes[0].startswith("ttft: the source has no mean of it")


def test_no_load_that_keeps_it_is_below_the_lowest() -> None:
    found = made(rows([0.4, 0.45, 0.6], 0.5))
    assert found.range.lower == pytest.approx(0.4) and found.range.upper is None and "below 0.4" in " ".join(found.notes)


def test_a_single_saturated_row_is_an_upper_end() -> None:
    own = rows([1000.0], 0.5, load_kind="concurrency", request_rate=2.5, imported_tps=None, tpot_mean_s=None)
    found = made(own)
    assert found.range.lower == 2.5 and "only a saturated rate" in " ".join(found.notes)
    assert found.saturation is not None and not found.saturation.proven


def test_requests_at_once_count_for_saturation_beside_rates() -> None:
    own = [*rows([0.1, 0.2, 0.3], 5.0), *rows([1000.0], 5.0, load_kind="concurrency", imported_tps=800.0, tpot_mean_s=None)]
    found = made(own)
    assert found.saturation is not None and found.saturation.rate == pytest.approx(2.0)


def test_rows_without_any_rate_say_so() -> None:
    own = rows([1.0], 5.0, imported_tps=None)
    told = published(own, TARGET)
    assert told is not None and achieved(told) == {} and "no request rate" in str(estimate(told, TARGET, own))


def test_a_load_that_keeps_the_means_and_has_no_rate() -> None:
    """The rate of the highest load below that has one; without any, what saturates."""
    own = rows([1.0, 2.0, 4.0, 8.0], 100.0, load_kind="concurrency", imported_tps=None)
    for row, rate, tpot in zip(own, (1.0, 1.8, None, 5.0), (0.05, 0.06, 0.08, 0.2), strict=True):
        row |= {"request_rate": rate, "tpot_mean_s": tpot}
    found = made(own)
    assert (found.range.lower, found.range.upper) == (1.8, 5.0) and "the rate of 2 was taken" in " ".join(found.notes)
    for row in own[:2]:
        row["request_rate"] = None
    found = made(own)
    assert (found.range.lower, found.range.upper) == (5.0, None) and "only a saturated rate" in " ".join(found.notes)

"""Alone against together, from rows whose losses are known."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.analyse.co_run import limits, pairs


def row(backend: str, load: float, beside: str, tps: float | None, result: str = "FITS", **more: Any) -> dict[str, Any]:
    usual = {"workload": "w", "backend": backend, "load_kind": "concurrency", "load": load, "arrivals": "closed", "status": "done"}
    figures = {"output_tps": tps, "request_rate": 1.0, "ttft_sched_p50_s": 0.1, "ttft_sched_p95_s": 0.2, "tpot_p50_s": 0.01}
    rest = {"tpot_p95_s": 0.02, "n_requests": 20, "validity": "valid", "qos_result": result, "co_run_with": "x", "co_run_load": beside}
    return usual | figures | rest | more


def test_losses_and_limits() -> None:
    rows = [
        row("a", 1, "idle", 100.0),
        row("a", 1, "1 user", 60.0, tpot_p50_s=0.02),
        row("a", 4, "idle", 300.0),
        row("a", 4, "4 users", 150.0, "FAILS"),
        row("a", 4, "4 users", 180.0, "FAILS"),
        row("a", 4, "idle", 999.0, status="failed"),
        row("b", 1, "idle", 5.0, co_run_with=None),
    ]
    one, four = pairs(rows)
    assert one.loss == pytest.approx(0.4) and one.tpot_slower == pytest.approx(1.0) and one.ttft_slower == pytest.approx(0.0)
    assert four.together is not None and (four.together.runs, four.together.requests) == (2, 40)
    assert four.loss == pytest.approx(1 - 165 / 300)
    (limit,) = limits(rows)
    assert limit.best_tps == (300.0, 165.0) and limit.fits_to == (4, 1) and limit.tried_to == 4


def test_what_is_missing_stays_missing() -> None:
    (pair,) = pairs([row("a", 1, "1 user", None)])
    assert pair.alone is None and pair.loss is None and pair.together is not None and pair.together.output_tps is None
    assert limits([row("a", 1, "1 user", None, "UNDECIDED")])[0].fits_to == (None, None)
    assert pairs([]) == [] and limits([]) == []

"""Which variant the report advises, from runs whose percentiles are written down here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic

from profiler.analyse.margins import Margins
from profiler.quality import documents
from profiler.report.choice import Choice, choices, target_words
from profiler.report.selection import select
from profiler.store.store import Store

WIDE, NARROW = "openvino-xeon-bf16", "openvino-xeon-int4"
QOS = "ttft_p95<=500ms, tpot_p95<=40ms"


def spans(**milliseconds: float) -> dict[str, float]:
    """`tpot_p95=20` as the column and its bounds, a tenth to either side."""
    columns = {}
    for name, value in milliseconds.items():
        columns |= {f"{name}_s": value / 1e3, f"{name}_s_lo": value * 0.9e-3, f"{name}_s_hi": value * 1.1e-3}
    return columns


def keep(store: Store, backend: str, load: float, result: str | None, kind: str = "concurrency", start: int = 1, **columns: Any) -> None:
    fields = {
        "sweep_id": "feedbeef00000000",
        "cell_id": f"{backend}-{kind}-{load}",
        "backend": backend,
        "variant": f"{backend.rpartition('-')[2]}-from-q4_1",
        "engine": "openvino",
        "model": "smollm2",
        "workload": "chat",
        "load_kind": kind,
        "load": load,
        "qos": QOS,
        "qos_result": result,
        "start_id": f"{backend}-{start}",
        "provenance_class": "measured",
        "device": "Testium 9000",
        "device_source": "observed",
        "profiler_version": "0.1.0",
        "n_requests": 60,
        "n_cohort": 60,
    }
    made = synthetic.document(**fields | columns)
    if result:
        made["verdicts"] = [{"qos": QOS, "result": result, "reason": "", "constraints": []}]
    store.keep(made)


def chosen(store: Store) -> Choice:
    (found,) = choices(select(store))
    return found


def test_the_one_that_goes_further_wins_and_the_others_limits_are_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for load, wide, narrow in ((1, "FITS", "FITS"), (4, "FAILS", "FITS"), (8, "FAILS", "FAILS")):
        keep(store, WIDE, load, wide)
        keep(store, NARROW, load, narrow)
    choice = chosen(store)
    assert choice.use == (NARROW,)
    assert choice.headline == f"For chat use {NARROW}: it keeps the target at 4 users at once (closed loop), further than any other."
    assert f"{WIDE} was proven to keep it up to 1 user only." in choice.why
    assert [line.chosen for line in choice.lines] == [False, True] and choice.shown_at == "4 users"


def test_an_open_loop_counts_before_a_closed_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, WIDE, 8, "FITS")
    keep(store, WIDE, 2, "FAILS", kind="rate")
    keep(store, NARROW, 1, "FITS")
    keep(store, NARROW, 2, "FITS", kind="rate")
    choice = chosen(store)
    assert choice.use == (NARROW,) and "2 requests/s arriving at random (open loop)" in choice.headline
    assert not any("Closed loop" in but for but in choice.but)
    assert any("the end was not found" in why for why in choice.why)


def test_a_tie_goes_to_what_the_target_limits_not_to_the_median(tmp_path: Path) -> None:
    """The median says int4, the p95 that the target limits says bf16."""
    store = Store(tmp_path)
    keep(store, WIDE, 1, "FITS", **spans(tpot_p50=20, tpot_p95=22, ttft_sched_p95=200))
    keep(store, NARROW, 1, "FITS", **spans(tpot_p50=10, tpot_p95=35, ttft_sched_p95=200))
    choice = chosen(store)
    assert choice.use == (WIDE, NARROW)
    assert choice.headline.endswith(f"as does {NARROW}, and its p95 time per output token, which the target limits, is lower.")


def test_a_tie_by_the_median_says_that_the_limited_statistic_proves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, WIDE, 1, "FITS", **spans(tpot_p50=20, tpot_p95=22, ttft_sched_p95=200))
    keep(store, NARROW, 1, "FITS", **spans(tpot_p50=10, tpot_p95=23, ttft_sched_p95=210))
    choice = chosen(store)
    assert choice.use == (NARROW, WIDE) and "its median time per output token is lower" in choice.headline
    told = " ".join(choice.why)
    assert f"no difference is proven: {NARROW} 23.0 ms, {WIDE} 22.0 ms" in told and f"{NARROW} 210.0 ms, {WIDE} 200.0 ms" in told


def test_each_lower_in_something_else_the_target_limits_is_no_winner(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, WIDE, 1, "FITS", **spans(tpot_p50=20, tpot_p95=30, ttft_sched_p95=100))
    keep(store, NARROW, 1, "FITS", **spans(tpot_p50=10, tpot_p95=15, ttft_sched_p95=400))
    choice = chosen(store)
    assert choice.use == (WIDE, NARROW)
    assert any("Each is lower in another statistic" in why for why in choice.why)


def test_a_tie_that_nothing_separates_goes_to_the_widest_weights(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, NARROW, 1, "FITS", **spans(tpot_p50=20, tpot_p95=21, ttft_sched_p95=200))
    keep(store, WIDE, 1, "FITS", **spans(tpot_p50=20, tpot_p95=21, ttft_sched_p95=200))
    choice = chosen(store)
    assert choice.use == (WIDE, NARROW) and any("widest weights" in why for why in choice.why)
    assert any("Quality was not evaluated" in but for but in choice.but)


def test_three_starts_take_the_warning_of_one_away(tmp_path: Path) -> None:
    one, three = Store(tmp_path / "one"), Store(tmp_path / "three")
    keep(one, WIDE, 1, "FITS")
    for start in range(3):
        keep(three, WIDE, 1, "FITS", start=start, repeat=start)
    assert any("--repeats 3" in but for but in chosen(one).but)
    assert not any("--repeats 3" in but for but in chosen(three).but)


@pytest.mark.parametrize(
    ("result", "columns", "said"),
    [
        ("FAILS", {}, "use none of these here: no variant keeps the target"),
        ("UNDECIDED", {}, "no variant was proven to keep the target; some are undecided"),
        (None, {"qos": None}, "nothing was judged: no target was set"),
        (None, {"provenance_class": "imported"}, "nothing is proven: imported figures have no bounds"),
        (None, {"status": "failed", "status_reason": "it died"}, "nothing could be measured"),
    ],
)
def test_where_nothing_fits_no_variant_is_named(tmp_path: Path, result: str | None, columns: dict[str, Any], said: str) -> None:
    store = Store(tmp_path)
    keep(store, WIDE, 1, result, **columns)
    keep(store, NARROW, 1, result, **columns)
    choice = chosen(store)
    assert said in choice.headline and choice.use == () and not any(line.chosen for line in choice.lines)


def test_a_suspect_run_is_left_out_and_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, WIDE, 1, "FITS")
    keep(store, WIDE, 4, "UNDECIDED", validity="suspect", validity_reasons=["late sends"])
    choice = chosen(store)
    assert choice.use == (WIDE,) and "at 1 user (closed loop)" in choice.headline
    assert any(but.startswith("1 of the runs") and "not valid" in but for but in choice.but)


def test_a_target_in_words() -> None:
    assert target_words(QOS) == "time to first token ≤ 500 ms for 95 % of requests; time per output token ≤ 40 ms for 95 % of requests"
    assert target_words(None) == "no target was set"


def evaluated(store: Store, backend: str, worse: float) -> None:
    """`worse`: nats per token."""
    precision = backend.rpartition("-")[2]
    windows = [[-1.0 - worse - 0.001 * (w % 3) * bool(worse)] * 20 for w in range(12)]
    document = {
        "made_at": "2026-11-24T10:00:00+00:00",
        "model": {"name": "smollm2", "content_hash": None},
        "backend": {"name": backend, "engine": "openvino", "options": {}},
        "variant": {"variant_id": f"{precision}-from-q4_1", "precision": precision, "size_bytes": 100},
        "demonstration_only": "demonstration only: twice",
        "drift": {"text": "t", "digest": "d", "windows": windows, "reason": None, "top1": None, "top1_reason": "not given"},
        "tasks": None,
    }
    documents.keep(store.path, precision, document)


def test_quality_that_was_evaluated_is_in_the_answer(tmp_path: Path) -> None:
    store, third = Store(tmp_path), "openvino-xeon-int8"
    for backend, size in ((WIDE, 300), (third, 200), (NARROW, 100)):
        keep(store, backend, 1, "FITS", variant_size_bytes=size, **spans(tpot_p50=20, tpot_p95=21, ttft_sched_p95=200))
    evaluated(store, WIDE, 0.0)
    evaluated(store, third, 0.005)
    free = chosen(store)
    assert free.use[0] == WIDE and any("quality was not evaluated" in why for why in free.why)  # of int4
    evaluated(store, NARROW, 0.3)
    free = chosen(store)
    assert free.use[0] == WIDE and any("no margin says how much worse" in why for why in free.why)
    assert any("was not asked" in text for text in free.but) and any("demonstration only" in text for text in free.but)
    assert not any("not evaluated" in text for text in (*free.why, *free.but))
    (found,) = choices(select(store, margins=Margins(drift_margin=0.02)))
    assert found.use == (third, WIDE) and any("smallest weights are the better choice" in why for why in found.why)
    assert any(f"{NARROW} is left out, quality INFERIOR" in why for why in found.why)
    assert [line.quality for line in found.lines] == ["reference", "NON-INFERIOR", "INFERIOR"]


def test_nobody_is_named_where_quality_proves_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, NARROW, 1, "FITS")
    (found,) = choices(select(store, margins=Margins(drift_margin=0.02)))
    assert found.use == () and "no variant is proven on quality and QoS" in found.headline
    assert any("profile evaluate --model smollm2 --backend" in why for why in found.why)

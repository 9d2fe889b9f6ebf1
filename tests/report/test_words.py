"""What the report says in words and what the terminal shows, from runs whose verdicts are known."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from profiler.analyse.together import Together
from profiler.report import table
from profiler.report.answer import answers, kept_up_to
from profiler.report.figures import thinned
from profiler.report.selection import of_cells, select
from profiler.store.store import Store

Keep = Callable[..., str]


def row(load: float, result: str | None, status: str = "done") -> dict[str, object]:
    return {"load": load, "load_kind": "concurrency", "qos_result": result, "status": status}


@pytest.mark.parametrize(
    ("results", "limit"),
    [
        ([(1, "FITS"), (4, "FITS"), (8, "FAILS")], 4),
        ([(1, "FITS"), (4, "FAILS"), (8, "FITS")], 1),  # a fit above a failure is no limit
        ([(1, "FITS"), (4, "UNDECIDED"), (8, "FITS")], 8),
        ([(1, "UNDECIDED")], None),
        ([(1, "FAILS"), (4, "FITS")], None),
        ([], None),
    ],
)
def test_the_furthest_load_kept(results: list[tuple[float, str]], limit: float | None) -> None:
    def together(rows: Sequence[Mapping[str, Any]]) -> Together:
        return Together(rows[0]["qos_result"], "", 1, 1, 0, screening=True)

    assert kept_up_to([row(load, result) for load, result in results], together) == limit


def test_the_sentence_names_who_goes_furthest_in_each_loop(store: Store) -> None:
    (answer,) = answers(select(store))
    assert "at 4 users in lockstep (closed loop), by openvino-xeon-int8;" in answer.sentence
    assert (
        "at 3 requests/s (Poisson, open loop), the highest that was tried, by openvino-xeon-bf16 and openvino-xeon-int8" in answer.sentence
    )
    words = dict(answer.by_backend)
    assert words["openvino-xeon-int8"] == "fits at 1, 4 users and 3/s; fails at 16 users; undecided at 2 users"


def test_nothing_proven_is_said_plainly(tmp_path: Path, keep_run: Keep) -> None:
    store = Store(tmp_path)
    keep_run(store, "openvino-xeon-int8", "concurrency", 1, ttft_ms=900)
    assert "no backend was proven to keep the target" in answers(select(store))[0].sentence
    assert "too slow" in answers(select(store))[0].sentence


def rendered(store: Store, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for part in table.render(select(store)):
        console.print(part, highlight=False)
    return out.getvalue()


def test_terminal_table(store: Store) -> None:
    text = rendered(store, 120)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines.index("openvino-xeon-bf16") < lines.index("openvino-xeon-int8")
    assert any(line.startswith("1 user FITS") for line in lines) and any(line.startswith("16 users FAILS") for line in lines)
    assert any("2 users UNDECIDED suspect" in line for line in lines)
    assert "it died: <script>" in " ".join(lines)


def test_pairs_name_a_common_unit_once() -> None:
    assert table._pair(0.0205, 0.024) == "20.5 / 24.0 ms"
    assert table._pair(0.9, 1.25) == "900.0 ms / 1.25 s"
    assert table._pair(0.9, None) == "900.0 ms / —"


def test_a_narrow_terminal_still_shows_the_verdicts(store: Store) -> None:
    text = rendered(store, 80)
    assert text.count("FITS") >= 4 and "FAILS" in text


def test_a_co_run_has_each_backend_alone_and_then_beside_the_other_by_their_whole_names(tmp_path: Path, keep_run: Keep) -> None:
    store, (a, b) = Store(tmp_path), ("openvino-xeon-bf16", "openvino-xeon-int8")
    for load in (1, 4):
        for beside in (f"{load} users", "idle"):
            for one, other in ((a, b), (b, a)):
                keep_run(store, one, "concurrency", load, co_run_with=other, co_run_load=beside)
    words = " ".join(rendered(store, 80).partition("quickstart-chat:")[0].split())
    parts = [f"{a} (alone)", f"{a} beside {b}", f"{b} (alone)", f"{b} beside {a}"]
    assert [words.count(part) for part in parts] == [1] * 4, words
    places = [words.index(part) for part in parts]
    assert places == sorted(places)
    assert all("1 user" in words[here:there] and "4 users" in words[here:there] for here, there in pairwise([*places, len(words)]))


def test_json_rows_are_the_columns_of_the_store(store: Store) -> None:
    rows = table.rows(select(store))
    assert len(rows) == len(store.runs()) and all(set(r) == set(table.COLUMNS) for r in rows)
    assert set(table.COLUMNS) <= set(store.runs().columns)


def test_a_sweep_is_also_about_cells_that_another_one_measured(tmp_path: Path, keep_run: Keep) -> None:
    store = Store(tmp_path)
    old = keep_run(store, "openvino-xeon-int8", "concurrency", 1, sweep_id="older", cell_id="shared")
    keep_run(store, "openvino-xeon-int8", "concurrency", 2, sweep_id="older", cell_id="other")
    new = keep_run(store, "openvino-xeon-int8", "concurrency", 4, sweep_id="newer", cell_id="own")
    assert {r["run_id"] for r in of_cells(store, "newer", ["shared", "own"]).rows} == {old, new}


def test_backends_stand_from_the_widest_weights_down_whatever_they_compute_in(tmp_path: Path, keep_run: Keep) -> None:
    store = Store(tmp_path)
    for name in ("int4", "bf16", "int8"):
        keep_run(store, f"openvino-xeon-{name}", "concurrency", 1, variant=f"{name}-from-q4_1-in-f32")
    assert select(store).backends == [f"openvino-xeon-{name}" for name in ("bf16", "int8", "int4")]


def test_a_failure_that_was_measured_since_is_left_out(tmp_path: Path, keep_run: Keep) -> None:
    store = Store(tmp_path)
    failed = {"status": "failed", "status_reason": "no disk"}
    keep_run(store, "openvino-xeon-int8", "concurrency", 1, cell_id="c", **failed)
    good = keep_run(store, "openvino-xeon-int8", "concurrency", 1, cell_id="c")
    assert [r["run_id"] for r in select(store).rows] == [good]


def test_step_curves_keep_their_ends_and_their_height() -> None:
    values = sorted(float(i) for i in range(10_000))
    x, y = thinned(values, 12_500)  # a fifth of the cohort failed
    assert len(x) <= 403 and x[1] == 0 and x[-1] == 9_999_000 and y[-1] == 0.8
    assert y == sorted(y) and x == sorted(x)
    assert thinned([1.0, 2.0], 2) == ([0.0, 1000.0, 2000.0], [0.0, 0.5, 1.0])

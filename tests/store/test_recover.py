"""What a killed sweep leaves becomes a run: every request that had ended, honest figures, nothing invented, nothing twice."""

from __future__ import annotations

import fcntl
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import journals
import pytest
from journals import MS

from profiler.analyse.recover import open_store, recover
from profiler.store.draft import RunDraft
from profiler.store.store import Store, new_run_id


def leftover(root: Path, content: bytes, **run: Any) -> str:
    """The folder of a draft whose process is dead: nobody holds its lock."""
    draft = Store(root).draft()
    journals.fill(draft.folder, content, **run)
    draft.leave()
    return draft.run_id


def test_every_ended_request_becomes_part_of_an_interrupted_run(tmp_path: Path) -> None:
    run_id = leftover(tmp_path, journals.spool(ended=9, under_way=2), qos="ttft_p50<=1s")
    store = open_store(tmp_path)
    assert "1 interrupted cell recovered" in store.warnings[0] and len(store.warnings) == 1
    run = store.run(run_id)["run"]
    assert (run["status"], run["validity"], run["stop_reason"]) == ("interrupted", "invalid", "interrupted")
    assert run["validity_reasons"][0].startswith("interrupted") and run["qos_result"] == "UNDECIDED" and "interrupted" in run["qos_reason"]
    assert run["started_at"].startswith("2026-11-18") and run["client_cpu_share"] is None
    requests = store.requests([run_id])
    ended = requests[requests.error_kind.isna()]
    assert list(ended.request_id) == [f"r{i}" for i in range(9)]
    assert (ended.ttft_sched_s - 0.02).abs().max() < 1e-9 and (ended.tpot_s - 0.01).abs().max() < 1e-9
    assert list(requests[requests.error_kind == "cancelled"].request_id) == ["r9", "r10"]
    # The window: from 100 ms to when the first request was sent that never ended. The first one was warm-up.
    assert (run["window_open_ns"], run["window_close_ns"]) == (100 * MS, 900 * MS)
    assert (run["n_cohort"], run["n_requests"], run["n_errors"]) == (8, 8, 0) and run["ttft_sched_p50_s"] == pytest.approx(0.02)
    assert not store.measured(), "the cell is measured again"
    assert len(store.sql("select * from tokens")) == 9 * 3 + 2
    assert not (tmp_path / ".interrupted" / run_id).exists()


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    run_id = leftover(tmp_path, journals.spool(5))
    open_store(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert not open_store(tmp_path).warnings and recover(tmp_path).runs == []
    assert {path: path.read_bytes() for path in before} == before and len(list(tmp_path.glob(f"runs/*/{run_id}"))) == 1


def test_a_spool_cut_anywhere_keeps_every_request_whose_end_is_whole(tmp_path: Path) -> None:
    whole = journals.spool(6, under_way=1)
    ends, at, intended = [], 0, 0
    while at < len(whole):
        kind, _, _, _, length = journals.RECORD.unpack_from(whole, at)
        at += journals.RECORD.size + length
        if kind == journals.END:
            ends.append(at)
            intended += 1
    cuts = sorted({*ends, *(end - 1 for end in ends), *random.Random(6).sample(range(ends[0], len(whole)), 12)})
    for number, cut in enumerate(cuts):
        root = tmp_path / str(number)
        run_id = leftover(root, whole[:cut])
        expected = sum(end <= cut for end in ends)
        recovery = recover(root)
        assert recovery.runs == ([(run_id, expected)] if expected else []) and not recovery.left, cut
        if expected:
            requests = Store(root).requests()
            assert list(requests[requests.error_kind.isna()].intended_ns) == [100 * MS * k for k in range(expected)], cut


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff" * 100, journals.record(9, 1, 2, 3)])
def test_blocks_that_a_power_cut_never_wrote_are_dropped(tmp_path: Path, tail: bytes) -> None:
    run_id = leftover(tmp_path, journals.spool(4, under_way=0) + tail)
    assert recover(tmp_path).runs == [(run_id, 4)]


def test_killed_in_the_warm_up_there_is_no_cohort_and_no_figure(tmp_path: Path) -> None:
    content = journals.record(journals.CLOCK, 0, journals.WALL_OFFSET_NS, 0) + journals.sent(0, 0) + journals.answered(0, 20)
    leftover(tmp_path, content, qos="ttft_p50<=1s")
    (run,) = open_store(tmp_path).rows()
    assert (run["n_cohort"], run["output_tps"], run["ttft_p50_s"], run["qos_result"]) == (0, None, None, "UNDECIDED")
    assert list(Store(tmp_path).requests().warmup) == [True]


def test_what_measured_nothing_leaves_nothing(tmp_path: Path) -> None:
    leftover(tmp_path, journals.spool(0, under_way=3))
    assert not open_store(tmp_path).warnings
    assert Store(tmp_path).runs().empty and not list((tmp_path / ".interrupted").iterdir())


def test_a_run_that_lacked_only_its_rename_is_published_as_it_was(tmp_path: Path, make_record: Any, make_document: Any) -> None:
    code = (
        "from pathlib import Path; import os; from profiler.store.store import Store; from synthetic import document, record; import sys\n"
    )
    code += "d = Store(Path(sys.argv[1])).draft(); (d.folder / 'spool.bin').write_bytes(b'x')\n"
    code += "Path.rename = lambda a, b: os.kill(os.getpid(), 9)\nd.commit(document(), [record(1), record(2)])"
    tests = str(Path(__file__).resolve().parents[1])
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env={"PYTHONPATH": tests, "PATH": "/usr/bin:/bin"})
    assert killed.returncode == -9
    recovery = recover(tmp_path)
    assert [n for _, n in recovery.runs] == [None] and not recovery.left
    store = Store(tmp_path)
    assert list(store.runs().status) == ["done"] and len(store.requests()) == 2 and len(store.measured()) == 1


def test_a_spool_that_is_still_written_is_left_alone(tmp_path: Path) -> None:
    """The sweep is dead, its load client is not yet: it holds its spool."""
    run_id = leftover(tmp_path, journals.spool(3))
    spool = tmp_path / ".incoming" / run_id / "spool.bin"
    with spool.open("ab") as client:
        fcntl.flock(client, fcntl.LOCK_EX)
        assert recover(tmp_path).runs == [] and not open_store(tmp_path).warnings
        assert spool.exists()
        client.write(journals.sent(40, 4000) + journals.answered(40, 4020))
    assert recover(tmp_path).runs == [(run_id, 4)]


def test_one_who_recovers_is_not_disturbed_by_another(tmp_path: Path) -> None:
    run_id = leftover(tmp_path, journals.spool(3))
    Store(tmp_path)  # sets it aside
    mine = RunDraft.take_over(tmp_path, run_id)
    assert mine is not None and RunDraft.take_over(tmp_path, run_id) is None
    assert recover(tmp_path).runs == []
    mine.leave()
    assert recover(tmp_path).runs == [(run_id, 3)]
    assert RunDraft.take_over(tmp_path, run_id) is None, "there is nothing left to take over"


def test_many_at_once_recover_each_draft_once(tmp_path: Path) -> None:
    ids = {leftover(tmp_path, journals.spool(n)) for n in range(3, 9)}
    code = "import sys; from pathlib import Path; from profiler.analyse.recover import recover\n"
    code += "print(*[i for i, _ in recover(Path(sys.argv[1])).runs])"
    several = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = [word for process in several for word in process.communicate(timeout=120)[0].split()]
    assert sorted(told) == sorted(ids) and {p.returncode for p in several} == {0}
    assert sorted(Store(tmp_path).runs().n_cohort) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda folder: (folder / "record.json").unlink(), "record.json"),
        (lambda folder: (folder / "record.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "prompts.json").write_text('{"requests": []}'), "damaged"),
        (lambda folder: (folder / "prompts.json").unlink(), "prompts.json"),
    ],
)
def test_a_journal_that_cannot_be_read_is_kept_and_named(tmp_path: Path, spoil: Any, word: str) -> None:
    bad, good = leftover(tmp_path, journals.spool(3)), leftover(tmp_path, journals.spool(2))
    spoil(next(tmp_path.glob(f".in*/{bad}")))  # the second leftover's Store has set the first aside
    recovery = recover(tmp_path)
    assert recovery.runs == [(good, 2)]
    ((path, why),) = recovery.left
    assert path == tmp_path / ".interrupted" / bad and word in why
    assert (path / "spool.bin").read_bytes() == journals.spool(3)


def test_a_run_of_the_same_id_is_never_overwritten(tmp_path: Path, make_document: Any, make_record: Any) -> None:
    run_id = new_run_id()
    folder = Store(tmp_path).draft(run_id).commit(make_document(cell_id="first"), [make_record(1)])
    before = (folder / "run.json").read_bytes()
    draft = Store(tmp_path).draft(run_id)
    journals.fill(draft.folder, journals.spool(3))
    draft.leave()
    ((path, why),) = recover(tmp_path).left
    assert "is there already" in why and (path / "spool.bin").exists() and (folder / "run.json").read_bytes() == before


def test_looking_costs_next_to_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    Store(tmp_path).draft().discard()
    code = f"""
import sys
from pathlib import Path
from profiler.analyse.recover import recover
recover(Path({str(tmp_path)!r}))
print([m for m in ("numpy", "pyarrow", "pandas", "duckdb", "profiler.run.decode") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_store_says_so_where_nobody_recovers(tmp_path: Path) -> None:
    run_id = leftover(tmp_path, journals.spool(3))
    (warning,) = Store(tmp_path).warnings
    assert "1 interrupted cell" in warning and "profile results verify" in warning
    assert (tmp_path / ".interrupted" / run_id).is_dir()
    assert json.loads((tmp_path / ".interrupted" / run_id / "record.json").read_text())["run"]["status"] == "failed"

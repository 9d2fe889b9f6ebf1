"""Traces: every format read exactly, every bad row named, and a replay that is what its factors say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler import catalog
from profiler.errors import SpecError
from profiler.spec import TraceSpec
from profiler.workload import prompts, replay, trace
from profiler.workload.reuse import prefix_reuse

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 18:15:46.6805900,374,44\r
2023-11-16 18:15:50.9951690,396,109\r
2023-11-16 18:16:46.6805900,879,55\r
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,230,1317,API log
118,ChatGPT,417,0,417,Conversation log
"""
OWN = """{"t_s": 0, "isl": 100, "osl": 10, "session": "a"}
{"t_s": 1.5, "isl": 50, "osl": 5, "prefix": {"id": "system", "tokens": 30}}
{"after_s": 2, "isl": 160, "osl": 12, "session": "a", "turn": 1}
{"t_s": 4, "isl": 60, "osl": 5, "prefix": {"id": "system", "tokens": 30}}
{"t_s": 9, "isl": 200, "osl": 7, "session": "a"}
"""


def mooncake(rows: list[tuple[int, int, int, list[int]]]) -> str:
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)


MOONCAKE = mooncake([(0, 1200, 40, [0, 1, 2]), (500, 1024, 8, [0, 1]), (3000, 1600, 16, [0, 1, 3, 4]), (3000, 20, 1, [9])])


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "trace.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def spec(path: Path, **more: Any) -> TraceSpec:
    return TraceSpec.model_validate({"file": str(path), **more})


def test_azure(write: Any) -> None:
    for text in (AZURE, "\ufeff" + AZURE, AZURE.replace("\r", "")):
        read = trace.read(write(text))
        assert read.kind == "azure"
        assert [(round(row.t_s or 0, 6), row.isl, row.osl) for row in read.rows] == [(0, 374, 44), (4.314579, 396, 109), (60, 879, 55)]


def test_azure_with_time_zones(write: Any) -> None:
    read = trace.read(write("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.5+00:00,3,4\n2024-05-10 00:00:01.75+00:00,3,4\n"))
    assert [row.t_s for row in read.rows] == [0, 1.25]


def test_burstgpt_leaves_out_what_failed_and_says_so(write: Any) -> None:
    read = trace.read(write(BURSTGPT))
    assert read.kind == "burstgpt" and read.skipped == 1
    assert [(row.t_s, row.isl, row.osl) for row in read.rows] == [(5, 472, 18), (45, 1087, 230)]
    more = BURSTGPT.replace("Timestamp,", "Timestamp,Session ID,").replace("\n5,", "\n5,7,").replace("\n45,", "\n45,7,")
    assert len(trace.read(write(more.rsplit("\n", 2)[0])).rows) == 2  # columns that later releases add


def test_mooncake(write: Any) -> None:
    read = trace.read(write(MOONCAKE))
    assert read.kind == "mooncake"
    assert [(row.t_s, row.isl, row.osl, row.blocks) for row in read.rows][1] == (0.5, 1024, 8, (0, 1))


def test_own(write: Any) -> None:
    read = trace.read(write(OWN))
    assert read.kind == "jsonl"
    assert [(row.session, row.turn, row.t_s, row.after_s) for row in read.rows if row.session] == [
        ("a", 0, 0.0, None),
        ("a", 1, None, 2.0),
        ("a", 2, 9.0, None),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an empty file"),
        ("when,what\n1,2\n", ":1: not a trace format"),
        (AZURE.replace("396", "39x"), ":3: ContextTokens: '39x' is not a number of tokens"),
        (AZURE.replace("396", "0"), ":3: ContextTokens: 0 is less than 1"),
        (AZURE.replace("2023-11-16 18:16:46.6805900", "yesterday"), ":4: TIMESTAMP: 'yesterday' is not a time"),
        (AZURE.replace("396,109", "396"), ":3: 2 cells, the header has 3"),
        (BURSTGPT.replace("45,", "-45,"), ":3: Timestamp: '-45' is negative"),
        (MOONCAKE.replace("[0, 1]", "[0]"), ":2: hash_ids: 1024 tokens need a list of 2 block ids"),
        (MOONCAKE.replace('"timestamp": 500', '"timestamp": null'), ":2: timestamp: None is not a time"),
        (MOONCAKE.replace("1024", "1024.5"), ":2: input_length: 1024.5 is not a number of tokens"),
        (OWN.replace('"isl": 50', '"ils": 50'), ":2: ils: unknown key"),
        (OWN.replace('"isl": 50, ', ""), ":2: isl: None is not a number of tokens"),
        (OWN.replace('"t_s": 1.5', '"t_s": 1.5, "after_s": 1'), ":2: give one of t_s and after_s"),
        (OWN.replace('"turn": 1', '"turn": 2'), ":3: turn: 2 of session 'a' comes before its turn 1"),
        (OWN.replace('{"t_s": 0,', '{"after_s": 0,'), ":1: after_s: the first turn of a session has nothing to wait for"),
        (OWN.replace('"tokens": 30}}', '"token": 30}}'), ":2: prefix: not of the form"),
        (OWN.replace('{"t_s": 4', "{t_s: 4"), ":4: not JSON: .* at character 2"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(text: str, says: str, write: Any) -> None:
    path = write(text)
    with pytest.raises(SpecError, match=says) as error:
        trace.read(path)
    assert error.value.message.startswith(str(path))


def test_a_missing_file_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        trace.read(tmp_path / "none.csv")
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8"):
        trace.read(tmp_path / "packed")


def test_a_named_format_is_held_to(write: Any) -> None:
    with pytest.raises(SpecError, match=":1: no column TIMESTAMP"):
        trace.read(write(BURSTGPT), "azure")


def long_azure(rows: int = 600) -> str:
    """One request every 2 s; input lengths count up, so that rows can be told apart."""
    lines = [f"2023-11-16 18:{i // 30:02d}:{i % 30 * 2:02d}.0000000,{1000 + i},{100 + i % 7}" for i in range(rows)]
    return "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n"


def test_slice_and_speed(write: Any) -> None:
    path = write(long_azure())
    made = replay.load(spec(path, start="1min", length="100s", speed=5))
    assert [call.isl for call in made.calls] == [1030 + i for i in range(50)]
    assert list(made.offsets_ns) == [i * 400_000_000 for i in range(50)]
    assert made.duration_s == 20 and made.rate == 2.5 and made.facts["rows_in_slice"] == 50
    # Without an end: one mean gap beyond the last request.
    whole = replay.load(spec(path))
    assert len(whole.calls) == 600 and whole.duration_s == pytest.approx(1200) and whole.rate == pytest.approx(0.5)


def test_thinning_keeps_about_its_share_and_is_seeded(write: Any) -> None:
    path = write(long_azure())
    some = replay.load(spec(path, thin=0.25))
    assert 110 < len(some.calls) < 190  # 150 expected, 4 standard deviations are 42
    assert some.calls == replay.load(spec(path, thin=0.25)).calls
    other = replay.load(spec(path, thin=0.25, thin_seed=2))
    assert [c.isl for c in other.calls] != [c.isl for c in some.calls]
    kept = {call.isl: t for call, t in zip(some.calls, some.offsets_ns, strict=True)}
    assert all(t == (isl - 1000) * 2 * 10**9 for isl, t in kept.items())  # each keeps its time


def test_divided_lengths_round_and_stay_above_0(write: Any) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"2023-11-16 18:15:4{i},{n},{n}\n" for i, n in enumerate((1, 23, 24, 400)))
    made = replay.load(spec(write(text), divide_lengths=16))
    assert [(call.isl, call.osl) for call in made.calls] == [(1, 1), (1, 1), (2, 2), (25, 25)]


def test_rows_are_sorted_by_time(write: Any) -> None:
    lines = long_azure(5).splitlines()
    made = replay.load(spec(write("\n".join([lines[0], lines[3], lines[1], lines[2]]))))
    assert [call.isl for call in made.calls] == [1000, 1001, 1002]
    assert made.offsets_ns[0] == 0


def test_mooncake_blocks_are_shared_token_prefixes(write: Any, tokenizer_json: Path) -> None:
    path = write(MOONCAKE, "moon.jsonl")
    (path.parent / "w.toml").write_text('version=1\nsummary="s"\nsource="t"\n[trace]\nfile="moon.jsonl"\ndivide_lengths=16\n')
    workload = catalog.workload(str(path.parent / "w.toml"))  # the trace lies beside its workload
    made = prompts.build(workload, tokenizer_json, 0, 1, None)
    ids = [prompt.token_ids for prompt in made.prompts]
    assert list(map(len, ids)) == [75, 64, 100, 1]  # 1200, 1024, 1600, 20 by 16, rounded
    assert ids[0][:64] == ids[1] == ids[2][:64] and ids[0][64:] != ids[2][64:75]
    blocks: set[tuple[int, ...]] = set()  # the oracle: a cache of 32-token blocks over the ids that are sent
    found = 0
    for row in ids:
        chain = [row[:end] for end in range(32, len(row) + 1, 32)]
        found += 32 * sum(block in blocks for block in chain)
        blocks.update(chain)
    assert prefix_reuse(made.calls) == found / 240 == 128 / 240


@pytest.mark.parametrize("divide", [3, 64])
def test_mooncake_blocks_must_stay_whole(divide: int, write: Any) -> None:
    with pytest.raises(SpecError, match="divide_lengths"):
        replay.load(spec(write(MOONCAKE), divide_lengths=divide))


def test_sessions_of_a_trace(write: Any) -> None:
    made = replay.load(spec(write(OWN), speed=2))
    # In order of time: a0 at 0, a1 after a0, system at 1.5, system at 4, a2 at 9; all at twice the speed.
    assert [call.isl for call in made.calls] == [100, 160, 50, 60, 200]
    assert [call.parents for call in made.calls] == [(), (0,), (), (), ()]
    assert made.calls[1].delay_ns == 10**9 and made.offsets_ns == (0, 750_000_000, 2 * 10**9, 4_500_000_000)
    first, second = made.calls[0], made.calls[1]
    assert second.pieces[0] == first.pieces[0] and second.pieces[1].space == "answer" and second.pieces[1].tokens == first.osl
    assert made.calls[2].pieces[0] == made.calls[3].pieces[0]
    assert made.calls[4].pieces[: len(second.pieces)] == second.pieces


def test_a_turn_whose_session_began_before_the_slice_is_left_out(write: Any) -> None:
    made = replay.load(spec(write(OWN), start="1s"))
    assert [call.isl for call in made.calls] == [50, 60, 200]


@pytest.mark.parametrize(
    ("more", "says"),
    [({"start": "2h"}, "no requests in the slice"), ({"length": "10s", "thin": 1e-9}, "5 requests in the slice, none kept")],
)
def test_an_empty_slice_is_an_error(more: dict[str, Any], says: str, write: Any) -> None:
    with pytest.raises(SpecError, match=says):
        replay.load(spec(write(long_azure()), **more))


def test_a_changed_file_is_read_again(write: Any) -> None:
    assert len(replay.load(spec(write(long_azure(5)))).calls) == 5
    assert len(replay.load(spec(write(long_azure(6)))).calls) == 6


def test_factors_in_words(write: Any) -> None:
    path = write(AZURE, "conv.csv")
    assert replay.describe(spec(path)) == "trace conv.csv x1"
    made = spec(path, start="5min", length="10min", speed=0.1, thin=0.05, divide_lengths=16)
    assert replay.describe(made) == "trace conv.csv x0.1 from 5min for 10min thin=0.05 lengths/16"

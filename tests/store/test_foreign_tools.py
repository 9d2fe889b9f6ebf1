"""Real files of other load generators (bench/one_server.py made them against one paced server): what is read of them against a few lines
of plain JSON reading, and one line for each kind of bad file."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse.beside import beside
from profiler.analyse.imported import between_sends_tps, own_columns
from profiler.cli.main import cli
from profiler.errors import StoreError, UsageError
from profiler.store.foreign import payload as payloads
from profiler.store.foreign.brought import bring_file, declared
from profiler.store.foreign.recognise import recognise
from profiler.store.store import Store

FILES = Path(__file__).with_name("foreign")
GUIDELLM = FILES / "guidellm" / "out.json"
AIPERF = FILES / "aiperf" / "profile_export.jsonl"
VLLM = FILES / "vllm" / "out.json"
INFERENCE_PERF = FILES / "inference-perf" / "per_request_lifecycle_metrics.json"
LLMD = FILES / "inference-perf" / "inference-perf.partial.stage_0.yaml"
ROLE_FIRST = FILES / "vllm-role-first" / "out.json"
MLPERF = FILES / "mlperf" / "mlperf_log_summary.txt"
WITH_REQUESTS = (GUIDELLM, AIPERF, VLLM, INFERENCE_PERF)
USERS, REQUESTS, TOKENS = 4, 40, 32


def bring(path: Path, folder: Path, **said: Any) -> dict[str, Any]:
    """The only run of a file, in a new store: its row."""
    bring_file(Store(folder), recognise(path), own_columns, said)
    (row,) = Store(folder).rows()
    return row


def middle(values: list[float]) -> float:
    return sorted(values)[(len(values) + 1) // 2 - 1]


# Each reads its file as plainly as can be: (TTFTs, TPOTs) in s, in any order.
def guidellm_times() -> tuple[list[float], list[float]]:
    rows = [r["info"]["timings"] for r in json.loads(GUIDELLM.read_text())["benchmarks"][0]["requests"]["successful"]]
    first = [r["first_token_iteration"] for r in rows]
    ttfts = [f - r["request_start"] for f, r in zip(first, rows, strict=True)]
    return ttfts, [(r["last_token_iteration"] - f) / (TOKENS - 1) for f, r in zip(first, rows, strict=True)]


def aiperf_times() -> tuple[list[float], list[float]]:
    rows = [json.loads(line)["metrics"] for line in AIPERF.read_text().splitlines()]
    gaps = [r["inter_chunk_latency"]["value"] for r in rows]
    return [r["time_to_first_token"]["value"] / 1e3 for r in rows], [sum(g) / 1e3 / (TOKENS - 1) for g in gaps]


def vllm_times() -> tuple[list[float], list[float]]:
    """The first chunk of a chat is the role's: the first token is the second chunk."""
    whole = json.loads(VLLM.read_text())
    assert {len(gaps) for gaps in whole["itls"]} == {TOKENS}  # one more chunk than tokens
    ttfts = [ttft + gaps[0] for ttft, gaps in zip(whole["ttfts"], whole["itls"], strict=True)]
    return ttfts, [sum(gaps[1:]) / (TOKENS - 1) for gaps in whole["itls"]]


def inference_perf_times() -> tuple[list[float], list[float]]:
    rows = json.loads(INFERENCE_PERF.read_text())
    times = [r["info"]["response_metrics"]["output_token_times"] for r in rows]
    return [t[0] - r["start_time"] for t, r in zip(times, rows, strict=True)], [(t[-1] - t[0]) / (TOKENS - 1) for t in times]


ORACLES: dict[Path, Callable[[], tuple[list[float], list[float]]]] = {
    GUIDELLM: guidellm_times,
    AIPERF: aiperf_times,
    VLLM: vllm_times,
    INFERENCE_PERF: inference_perf_times,
}


@pytest.mark.parametrize(("path", "tool"), [(GUIDELLM, "GuideLLM 0.8.1"), (AIPERF, "AIPerf 0.13.0"), (VLLM, "vllm bench serve"),
                                            (INFERENCE_PERF, "inference-perf"), (LLMD, "llm-d Benchmark Report")])  # fmt: skip
def test_each_tool_is_known_by_what_is_in_its_file(path: Path, tool: str, tmp_path: Path) -> None:
    row = bring(path, tmp_path / "r")
    assert (row["import_tool"], row["model"], row["load_kind"], row["load"]) == (tool, "paced", "concurrency", USERS)
    assert (row["provenance_class"], row["validity"], row["n_requests"]) == ("imported", "suspect", REQUESTS)


@pytest.mark.parametrize("path", WITH_REQUESTS, ids=lambda p: p.parent.name)
def test_requests_are_counted_by_our_definitions(path: Path, tmp_path: Path) -> None:
    row = bring(path, tmp_path / "r")
    ttfts, tpots = ORACLES[path]()
    assert len(ttfts) == REQUESTS
    assert row["ttft_p50_s"] == pytest.approx(middle(ttfts), abs=1e-6)
    assert row["tpot_p50_s"] == pytest.approx(middle(tpots), abs=1e-6)
    assert row["ttft_p95_s"] == pytest.approx(sorted(ttfts)[math.ceil(0.95 * REQUESTS) - 1], abs=1e-6)
    assert row["ttft_p50_s_lo"] < row["ttft_p50_s"] < row["ttft_p50_s_hi"]
    assert row["output_tps"] == pytest.approx(REQUESTS * TOKENS / row["window_s"])
    frame = Store(tmp_path / "r").requests()
    assert len(frame) == REQUESTS and frame["in_window"].all()
    assert frame["output_tokens"].tolist() == [TOKENS] * REQUESTS


@pytest.mark.parametrize("path", (AIPERF, VLLM, INFERENCE_PERF), ids=lambda p: p.parent.name)
def test_token_stamps_are_kept_where_the_file_has_them(path: Path, tmp_path: Path) -> None:
    bring(path, tmp_path / "r")
    tokens = Store(tmp_path / "r").sql("select count(*) as n, sum(tokens) as tokens from tokens")
    assert (tokens["n"][0], tokens["tokens"][0]) == (REQUESTS * TOKENS, REQUESTS * TOKENS)


def test_a_tools_figures_stay_apart_with_their_formulas(tmp_path: Path) -> None:
    row = bring(GUIDELLM, tmp_path / "r")
    figures = {f["column"]: f for f in Store(tmp_path / "r").run(row["run_id"])["imported"]["figures"]}
    theirs = json.loads(GUIDELLM.read_text())["benchmarks"][0]["metrics"]
    itl, tpot = (figures[f"metrics.{name}.successful.mean"] for name in ("inter_token_latency_ms", "time_per_output_token_ms"))
    assert (itl["is"], itl["value"]) == ("tpot_mean_s", theirs["inter_token_latency_ms"]["successful"]["mean"])
    assert (tpot["is"], tpot["foreign"]) == (None, "tpot_mean")  # its TPOT has the first token's wait in it
    assert tpot["value"] > 1.05 * itl["value"]
    assert "tpot_mean_s = guidellm-itl" in row["import_formulas"] and "foreign tpot_mean = guidellm-tpot" in row["import_formulas"]


def test_figures_alone_fill_columns_but_get_no_bounds(tmp_path: Path) -> None:
    report = bring(LLMD, tmp_path / "r")
    summary = json.loads((FILES / "inference-perf" / "summary_lifecycle_metrics.json").read_text())["successes"]["latency"]
    assert report["ttft_p99_s"] == pytest.approx(summary["time_to_first_token"]["p99"])
    assert [report[f"ttft_p99_s_{end}"] for end in ("lo", "hi")] == [None, None]
    assert not len(Store(tmp_path / "r").requests())


def test_the_plain_vllm_file_is_the_detailed_one_without_its_lists(tmp_path: Path) -> None:
    """Without --save-detailed vLLM leaves them out (vllm/benchmarks/serve.py)."""
    whole = json.loads(VLLM.read_text())
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({k: v for k, v in whole.items() if not isinstance(v, list)}))
    row = bring(plain, tmp_path / "r")
    assert (row["ttft_p50_s"], row["ttft_p50_s_lo"], row["load"]) == (pytest.approx(whole["median_ttft_ms"] / 1e3), None, USERS)


@pytest.mark.parametrize("path", [*WITH_REQUESTS, LLMD], ids=lambda p: p.parent.name + p.suffix)
def test_nothing_imported_ever_fits(path: Path, tmp_path: Path) -> None:
    """Of means because a mean proves nothing, of requests because nobody can check their client."""
    bring(path, tmp_path / "r", device="a machine")
    done = CliRunner().invoke(cli, ["fit", "--results", str(tmp_path / "r"), "--qos", "tpot_p95<=10s", "--json"])
    assert done.exit_code in (0, 3), done.output
    assert '"FITS"' not in done.output


def test_twice_the_same_adds_nothing_whichever_file_is_named(tmp_path: Path) -> None:
    runner, results = CliRunner(), ["--results", str(tmp_path / "r")]
    for path, added in ((AIPERF, 1), (AIPERF, 0), (AIPERF.with_name("profile_export_aiperf.json"), 0), (VLLM, 1), (VLLM, 0)):
        done = runner.invoke(cli, ["results", "import", str(path), *results])
        assert done.exit_code == 0, done.output
        assert f"added {added} imported run" in done.output
    assert len(Store(tmp_path / "r").rows()) == 2


def test_a_file_without_its_neighbours_says_what_must_be_declared(tmp_path: Path) -> None:
    alone = Path(shutil.copy(AIPERF, tmp_path / "x.jsonl"))
    with pytest.raises(StoreError, match="does not say its model and load_kind and load") as raised:
        bring(alone, tmp_path / "r")
    assert raised.value.hint == "--declare model=… --declare load_kind=concurrency --declare load=…"
    row = bring(alone, tmp_path / "r", **declared(("model=m", "load_kind=concurrency", "load=4", "device=a box")))
    assert (row["model"], row["device"], row["device_source"]) == ("m", "a box", "declared")


@pytest.mark.parametrize("text", ["load=none", "lod=4", "load=-1", "load", "load_kind=loop", "load=inf"])
def test_what_cannot_be_declared_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--declare"):
        declared((text,))


@pytest.mark.parametrize("path", [*WITH_REQUESTS, VLLM], ids=lambda p: p.parent.name)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_off_file_is_named_and_nothing_is_written(path: Path, share: float, tmp_path: Path) -> None:
    whole = path.read_bytes()
    cut = tmp_path / path.name
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StoreError) as raised:
        bring(cut, tmp_path / "r", model="m", load=4.0, load_kind="concurrency")
    assert str(cut) in raised.value.message and "\n" not in raised.value.message
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metadata": {"guidellm_version": "9.9", "version": 3}}, r"GuideLLM, of an unknown version \(3\); known: 2"),
        ({"benchmarks": None}, "not as its known versions write it"),
        ({"metadata": {}}, "of no load generator that is known"),
    ],
)
def test_another_version_or_shape_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(json.loads(GUIDELLM.read_text()) | change))
    with pytest.raises(StoreError, match=said):
        bring(changed, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '{"version": "7"}', "null", "hello", "a,b\n1,2\n", "\ufeff{}"])
def test_a_foreign_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"x\.json"):
        recognise(path)


def test_neighbours_of_another_run_are_refused(tmp_path: Path) -> None:
    shutil.copy(AIPERF.with_name("profile_export_aiperf.json"), tmp_path)
    (tmp_path / AIPERF.name).write_text("".join(AIPERF.read_text().splitlines(keepends=True)[:30]))
    with pytest.raises(StoreError, match=r"40 answered requests, profile_export\.jsonl of 30"):
        recognise(tmp_path / AIPERF.name)


def test_nan_and_infinity_are_named_and_missing(tmp_path: Path) -> None:
    whole = json.loads(VLLM.read_text())
    whole["p99_ttft_ms"], whole["ttfts"][3], whole["itls"][5][2] = math.nan, math.inf, math.nan
    path = tmp_path / "nan.json"
    path.write_text(json.dumps(whole))
    row = bring(path, tmp_path / "r")
    assert any("3 values are NaN or infinite" in reason and "ttfts.3" in reason for reason in row["validity_reasons"])
    assert (row["n_requests"], row["n_errors"]) == (REQUESTS - 1, 1)
    kept = next((tmp_path / "r").rglob("run.json")).read_text()
    json.loads(kept, parse_constant=lambda name: pytest.fail(f"run.json holds {name}"))


def test_units_that_look_wrong_are_flagged(tmp_path: Path) -> None:
    whole = {k: v for k, v in json.loads(VLLM.read_text()).items() if not isinstance(v, list)}
    whole["output_throughput"] = whole["request_throughput"]  # samples/s under the name of tokens/s
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(whole))
    assert any("samples/s?" in reason for reason in bring(path, tmp_path / "r")["validity_reasons"])


def test_one_server_one_answer(tmp_path: Path) -> None:
    """The same quantity agrees between the tools, and the formulas' differences are visible."""
    store = Store(tmp_path / "r")
    for path in (*WITH_REQUESTS, LLMD):
        bring_file(store, recognise(path), own_columns, {})
    (group,) = beside(Store(tmp_path / "r"))
    assert len(group.same) == len(WITH_REQUESTS)
    tpots = [one.tpot_p50_s or 0.0 for one in group.same]
    assert max(tpots) < 1.05 * min(tpots)
    of_formula = {(p.formula, p.name): p for p in group.printed}
    assert of_formula["guidellm-tpot", "TPOT mean"].is_ is None  # the name is ours, the quantity is not
    same = of_formula["guidellm-itl", "ITL mean"]
    assert same.is_ == "tpot" and same.ours == pytest.approx(same.value, rel=0.001)
    assert of_formula["inference-perf-tpot", "TPOT mean"].ours == pytest.approx(
        of_formula["inference-perf-tpot", "TPOT mean"].value, rel=0.001
    )
    done = CliRunner().invoke(cli, ["results", "tools", "--markdown", "--results", str(tmp_path / "r")])
    assert done.exit_code == 0 and "| guidellm-tpot |" in done.output and "none of ours" in done.output


def test_a_role_only_chunk_is_no_token(tmp_path: Path) -> None:
    """The paced server sent the role at once (role_first): vLLM's bench takes that for the first token, some 60 ms before there was one."""
    row = bring(ROLE_FIRST, tmp_path / "r")
    whole = json.loads(ROLE_FIRST.read_text())
    assert whole["median_ttft_ms"] < 5
    ttfts = [ttft + gaps[0] for ttft, gaps in zip(whole["ttfts"], whole["itls"], strict=True)]
    assert row["ttft_p50_s"] == pytest.approx(middle(ttfts), abs=1e-6) and row["ttft_p50_s"] > 0.05
    assert row["tpot_p50_s"] == pytest.approx(0.010, rel=0.05)  # as the server was told; the tool says 12 ms
    assert whole["median_tpot_ms"] > 11
    assert any("role-only chunk" in reason for reason in row["validity_reasons"])
    (group,) = beside(Store(tmp_path / "r"))
    told = next(p for p in group.printed if p.name == "TTFT p50")
    assert told.ours is not None and told.value < 0.1 * told.ours


def test_mlperf_says_what_it_counts(tmp_path: Path) -> None:
    """Times from the schedule, samples for requests; the model and the engine are not in it."""
    with pytest.raises(StoreError, match="does not say its model"):
        bring(MLPERF, tmp_path / "none")
    row = bring(MLPERF, tmp_path / "r", model="m")
    lines = dict(line.split(":", 1) for line in MLPERF.read_text().splitlines() if line.count(":") == 1)
    said = {name.strip(): value.strip() for name, value in lines.items()}
    assert (row["load_kind"], row["load"], row["arrivals"]) == ("rate", float(said["target_qps"]), "poisson")
    assert row["tpot_p99_s"] == pytest.approx(int(said["99.00 percentile time to output token (ns)"]) / 1e9)
    assert (row["ttft_p99_s"], row["ttft_p99_s_hi"]) == (None, None)  # its first token latency is not from the send
    assert "foreign ttft_sched_p99 = mlperf-first-token-latency" in row["import_formulas"]
    assert any("INVALID" in reason for reason in row["validity_reasons"])


def test_without_the_drain_stamps_and_even_tokens_say_about_the_same() -> None:
    (run,) = recognise(VLLM).runs
    even = [replace(r, arrival_offsets_us=(), arrival_tokens=()) for r in run.requests]
    assert between_sends_tps(even) == pytest.approx(between_sends_tps(run.requests), rel=0.02)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_no_payload_holds_nan(whole: dict[str, Any]) -> None:
    places: list[str] = []
    text = json.dumps(payloads._finite(whole, "", places), allow_nan=False)
    assert len(places) == sum(json.dumps(whole).count(word) for word in ("NaN", "Infinity")) or any(w in text for w in ("NaN", "Infinity"))

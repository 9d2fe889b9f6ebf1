"""The calibration compares right, picks the right error bar, and survives on disk."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.engines.paced.record import SentChunk, SentRequest
from profiler.errors import LoadError, StoreError
from profiler.records import DriveResult, RequestRecord
from profiler.run import calibrate, oracle

MS = 1_000_000
TIMES = {"started_ns": 0, "window_open_ns": 1000 * MS, "window_close_ns": 3000 * MS, "ended_ns": 4000 * MS, "client_cpu_s": 0.004}
DRIVE = DriveResult(**{field.name: TIMES.get(field.name) for field in fields(DriveResult)})  # type: ignore[arg-type]


def served(key: str, start_ms: int, tokens: int = 11, first_ms: int = 50, gap_ms: int = 10) -> SentRequest:
    times = [(start_ms + first_ms + k * gap_ms) * MS for k in range(tokens)]
    chunks = tuple(SentChunk(t, t + 5000, 1) for t in times)
    return SentRequest(0, 0, 0, key, None, start_ms * MS, 0, 4, tokens, tokens, 0, "none", "done", chunks)


def reported(sent: SentRequest, late_first_ms: float = 0.0, late_last_ms: float = 0.0) -> RequestRecord:
    """What a client would say that saw every chunk as it left, but the first and last so much later; it sent 1 ms before."""
    sent_ns = sent.received_ns - MS
    arrivals = [c.before_ns for c in sent.chunks]
    arrivals[0] += int(late_first_ms * MS)
    arrivals[-1] += int(late_last_ms * MS)
    return RequestRecord(
        request_id=sent.body_fnv1a, session_id=None, turn=0, intended_ns=sent_ns - 2 * MS, sent_ns=sent_ns, first_token_ns=arrivals[0],
        last_token_ns=arrivals[-1], done_ns=arrivals[-1], ttft_s=None, ttft_sched_s=None,
        tpot_s=(arrivals[-1] - arrivals[0]) / 1e9 / (len(arrivals) - 1), e2e_s=None, e2e_sched_s=None, max_icl_s=None, prompt_tokens=4,
        output_tokens=sent.tokens, asked_output_tokens=sent.tokens, finish_reason="length", error_kind=None, error=None, http_status=200,
        warmup=False, in_window=True, connection_reused=True, token_count_source="token_ids",
        arrival_offsets_us=tuple((a - sent_ns) // 1000 for a in arrivals), arrival_tokens=(1,) * len(arrivals),
    )  # fmt: skip


def checked(sent: list[SentRequest], requests: list[RequestRecord]) -> oracle.Checked:
    return oracle.compare(2, 100.0, sent, requests, DRIVE, (None, None))


def test_a_prompt_client_has_no_error() -> None:
    sent = [served(str(i), 1100 + 20 * i) for i in range(5)]
    found = checked(sent, [reported(s) for s in sent])
    assert found.n == 5 and found.wrong_counts == 0 and found.errors == 0
    assert found.ttft_error_p50_s == found.ttft_error_p99_s == found.itl_error_p99_s == 0
    assert found.server_ttft_p50_s == pytest.approx(0.050) and found.server_itl_s == pytest.approx(0.010)
    assert found.request_delay_p50_s == pytest.approx(0.001) and found.send_lag_p99_s == pytest.approx(0.002)
    assert found.tokens_per_s == found.reported_tokens_per_s == 55 / 2
    assert found.kept == pytest.approx(0.275) and found.client_cpu_us_per_token == pytest.approx(4000 / 55)


def test_the_errors_are_those_of_the_client() -> None:
    sent = [served(str(i), 1100) for i in range(100)]
    late = [reported(s, late_first_ms=7.0 if i < 2 else 0.5, late_last_ms=1.5) for i, s in enumerate(sent)]
    found = checked(sent, late)
    assert found.ttft_error_p50_s == pytest.approx(0.0005) and found.ttft_error_p99_s == pytest.approx(0.007)
    assert found.itl_error_p50_s == pytest.approx(0.0001)  # 1 ms over ten gaps
    assert found.itl_error_share == pytest.approx((98 * 0.0001 - 2 * 0.00055) / 100 / 0.010)


def test_what_the_server_sent_outside_the_window_does_not_count() -> None:
    sent = [served("a", 900, tokens=21)]  # from 950 to 1150 ms; the window opens at 1000
    assert checked(sent, [reported(s) for s in sent]).tokens_per_s == 16 / 2


def test_a_miscount_is_counted() -> None:
    sent = [served("a", 1100), served("b", 1100)]
    requests = [reported(sent[0]), replace(reported(sent[1]), output_tokens=12)]
    assert checked(sent, requests).wrong_counts == 1


def test_nothing_to_pair_is_an_error() -> None:
    with pytest.raises(LoadError):
        checked([served("a", 1100)], [reported(served("b", 1100))])


def point(beside: str, rate: float, error_s: float, kept: float = 1.0) -> calibrate.Point:
    base = checked([served("a", 1100)], [reported(served("a", 1100))])
    return calibrate.Point(beside, replace(base, tokens_per_s=rate, ttft_error_p99_s=error_s, itl_error_p99_s=error_s / 10, kept=kept))  # type: ignore[arg-type]


def curve(*points: calibrate.Point) -> calibrate.Curve:
    return calibrate.Curve("m", "2026-01-01T00:00:00+00:00", "0", oracle.Pace(), points)


def test_the_error_bar_is_the_worst_around_the_rate() -> None:
    measured = curve(
        point("idle", 100, 1e-5), point("idle", 1000, 3e-5), point("idle", 10_000, 9e-5),
        point("busy", 95, 5e-5), point("busy", 900, 2e-5), point("busy", 4000, 8e-5, kept=0.4),
    )  # fmt: skip
    bar = calibrate.error_bar(measured, 500)
    assert (bar.ttft_s, bar.beside, bar.tokens_per_s, bar.kept, bar.beyond) == (5e-5, "busy", 95, 1.0, False)
    assert calibrate.error_bar(measured, 2000).ttft_s == 9e-5
    assert calibrate.error_bar(measured, 2000).kept == 0.4
    assert not calibrate.error_bar(measured, 9000).beyond  # idle cores reached it; the busy curve lends its highest load
    assert calibrate.error_bar(measured, 20_000).beyond and calibrate.error_bar(measured, 20_000).ttft_s == 9e-5
    assert calibrate.error_bar(measured, 1).ttft_s == 5e-5


@given(
    st.lists(st.tuples(st.sampled_from(["idle", "busy"]), st.floats(1, 1e5), st.floats(0, 1)), min_size=1, max_size=12),
    st.floats(0.5, 2e5),
)
def test_an_error_bar_is_never_below_the_nearest_measured_loads(loads: list[tuple[str, float, float]], rate: float) -> None:
    bar = calibrate.error_bar(curve(*(point(*load) for load in loads)), rate)
    for beside in ("idle", "busy"):
        mine = [(r, e) for b, r, e in loads if b == beside]
        above = min((r for r, _ in mine if r > rate), default=None)
        below = max((r for r, _ in mine if r <= rate), default=None)
        for near in (above, below):
            if near is not None:
                assert bar.ttft_s >= min(e for r, e in mine if r == near)
    assert bar.beyond == (rate > max(r for _, r, _ in loads))


def test_a_curve_survives_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path))
    assert calibrate.load_curve("m") is None
    measured = curve(point("idle", 100, 1e-5), point("busy", 95, 5e-5))
    calibrate.save(measured, calibrate.curve_path("m"))
    assert calibrate.load_curve("m") == measured
    raw = json.loads(calibrate.curve_path("m").read_text())
    calibrate.curve_path("m").write_text(json.dumps({**raw, "version": 0}))
    assert calibrate.load_curve("m") is None  # another version's figures are not ours
    calibrate.curve_path("m").write_text("{")
    assert calibrate.load_curve("m") is None
    with pytest.raises(StoreError):
        calibrate.save(measured, tmp_path / "calibration" / "m.json" / "x")


def test_it_measures_with_idle_and_with_busy_cores() -> None:
    seen: list[calibrate.Point] = []
    measured = calibrate.calibrate("m", streams=(2,), window_s=1.0, on_point=seen.append)
    assert [p.beside for p in measured.points] == ["idle", "busy"] and list(measured.points) == seen
    for p in measured.points:
        assert p.checked.n > 0 and p.checked.errors == 0 and p.checked.wrong_counts == 0
        assert p.checked.tokens_per_s == pytest.approx(p.checked.reported_tokens_per_s, rel=0.05)

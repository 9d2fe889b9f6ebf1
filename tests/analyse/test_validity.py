from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiler.analyse.assess import error_bar_of
from profiler.analyse.latency import summarise
from profiler.analyse.steady import Steadiness
from profiler.analyse.validity import Quality, certify
from profiler.records import DriveResult, RequestRecord
from profiler.run.calibrate import Curve, Point
from profiler.run.system import SystemUse

MakeRecord = Callable[..., RequestRecord]
MakeDrive = Callable[..., DriveResult]


def certified(requests: list[RequestRecord], drive: DriveResult, **options: Any) -> Quality:
    columns = options.pop("columns", {})
    return certify(requests, drive, summarise(requests, drive) | columns, **options)


def use(**changes: Any) -> SystemUse:
    """A machine of two cores on which nothing but the run happens."""
    values: dict[str, Any] = {
        "engine_cpu_cores": 1.8,
        "ours_cpu_cores": 0.05,
        "other_cpu_cores": 0.01,
        "steal_cpu_cores": 0.0,
        "cores": 2,
        "throttled_s": 0.0,
        "clock_resolution_s": 1e-7,
        "clock_source": "tsc",
        "sampler_cpu_cores": 0.001,
        "samples": 5,
        "reasons": {},
    }
    return SystemUse(**values | changes)


@pytest.fixture
def sound(make_record: MakeRecord) -> list[RequestRecord]:
    return [make_record(i, intended_ms=10 * i) for i in range(60)]


def test_a_sound_run_is_valid(sound: list[RequestRecord], make_drive: MakeDrive) -> None:
    quality = certified(sound, make_drive())
    assert (quality.validity, quality.reasons) == ("valid", ())
    block = json.loads(json.dumps(quality.to_dict(), allow_nan=False))
    assert block["reasons"] == [] and block["send_lag_p99_s"] == 0.001 and block["stamps"] == "kernel"


@pytest.mark.parametrize(
    ("changes", "validity", "reason"),
    [
        ({"clock_step_s": -0.5}, "invalid", "wall clock moved by -500.0 ms"),
        ({"stop_reason": "interrupted"}, "invalid", "interrupted"),
        ({"stop_reason": "server gone"}, "suspect", "server gone"),
        ({"stop_reason": "requests ran out"}, "suspect", "requests ran out"),
        ({"stop_reason": "window budget spent"}, "valid", ""),
        ({"client_cpu_s": 0.9}, "suspect", "used 90% of a core"),
        ({"repeated_prompts": 3}, "suspect", "3 prompts were sent twice"),
    ],
)
def test_what_the_client_says_of_itself(
    sound: list[RequestRecord], make_drive: MakeDrive, changes: dict[str, Any], validity: str, reason: str
) -> None:
    quality = certified(sound, make_drive(**changes))
    assert quality.validity == validity and reason in "; ".join(quality.reasons)


def test_late_sends(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    requests = [make_record(i, intended_ms=0, sent_ns=20_000_000) for i in range(60)]
    quality = certified(requests, make_drive())
    assert quality.validity == "suspect" and "p99 20.0 ms" in quality.reasons[0]


def test_few_requests(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    assert "only 5 requests" in certified([make_record(i) for i in range(5)], make_drive()).reasons[0]


def test_nothing_answered(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    quality = certified([make_record(i, error_kind="reset", done_ns=None) for i in range(60)], make_drive())
    assert quality.validity == "invalid" and "no request" in quality.reasons[0]


def test_some_failed(sound: list[RequestRecord], make_record: MakeRecord, make_drive: MakeDrive) -> None:
    broken = [make_record(100 + i, error_kind="reset", done_ns=None) for i in range(6)]
    assert "6 of 66 requests failed" in certified(sound + broken, make_drive()).reasons[0]
    assert certified(sound + broken[:3], make_drive()).validity == "valid"


def test_output_length(make_record: MakeRecord, make_drive: MakeDrive) -> None:
    short = [make_record(i, asked_output_tokens=8) for i in range(60)]
    assert "4.0 output tokens per request came, 8.0 were asked for" in certified(short, make_drive()).reasons[0]
    assert certified(short, make_drive(), pinned_output=False).validity == "valid"


@pytest.mark.parametrize(
    ("code", "options", "reason"),
    [
        ("other-load", {"system": use(other_cpu_cores=0.3)}, "other programs used 0.30 of 2 cores (at most 0.10)"),
        ("stolen-cpu", {"system": use(steal_cpu_cores=0.3)}, "the hypervisor took 0.30 of 2 cores away"),
        ("throttled", {"system": use(throttled_s=0.05)}, "a CPU quota held processes up for 0.05 s of 1.0 s"),
        ("coarse-clock", {"system": use(clock_resolution_s=0.004, clock_source="jiffies")}, "steps of 4 ms (jiffies)"),
        ("late-reads", {"drive": {"read_delay_p99_s": 0.03}}, "p99 30.0 ms after arrival, where a token comes every 20.0 ms"),
        ("prefix-hits", {"columns": {"prefix_hit_rate": 0.3}, "prefix_expected": 0.2}, "the prefix cache knew 30% of the input"),
        ("prefix-misses", {"columns": {"prefix_hit_rate": 0.3}, "prefix_least": 0.5}, "30% of the input, the workload declares 50%"),
        ("unsteady", {"steadiness": Steadiness("unsteady", "never became steady: it went")}, "never became steady: it went"),
        ("busy-client", {"drive": {"client_cpu_s": 1.7, "client_processes": 2}}, "for each of its 2 processes"),
        ("closed-early", {"drive": {"stop_reason": "no request was answered"}}, "no request was answered"),
    ],
)
def test_what_the_machine_and_the_server_say(
    sound: list[RequestRecord], make_drive: MakeDrive, code: str, options: dict[str, Any], reason: str
) -> None:
    quality = certified(sound, make_drive(**options.pop("drive", {})), **options)
    (finding,) = quality.findings
    assert (quality.validity, finding.code) == ("suspect", code) and reason in finding.reason
    assert quality.advice == (finding.advice,) and finding.advice
    json.dumps(quality.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "options",
    [
        {"system": use()},
        {"system": use(other_cpu_cores=None, engine_cpu_cores=None, throttled_s=None, reasons={"other_cpu_cores": "not ours"})},
        {"columns": {"prefix_hit_rate": 0.3}, "prefix_expected": None},
        {"columns": {"prefix_hit_rate": 0.24}, "prefix_expected": 0.2},
        {"columns": {"prefix_hit_rate": None}, "prefix_expected": 0.0, "prefix_least": 0.5},
        {"columns": {"prefix_hit_rate": 0.46}, "prefix_expected": 0.6, "prefix_least": 0.5},
        {"steadiness": Steadiness("unstable", "the backlog grows")},  # a sound measurement of an overload
        {"steadiness": Steadiness("not judged", "a trace")},
    ],
)
def test_what_is_no_finding(sound: list[RequestRecord], make_drive: MakeDrive, options: dict[str, Any]) -> None:
    assert certified(sound, make_drive(), **options).validity == "valid"


def test_invalid_findings_come_first_and_decide(sound: list[RequestRecord], make_drive: MakeDrive) -> None:
    quality = certified(sound, make_drive(repeated_prompts=2, clock_step_s=1.0), system=use(other_cpu_cores=1.0))
    assert quality.validity == "invalid"
    assert [finding.severity for finding in quality.findings] == ["invalid", "suspect", "suspect"]
    assert len(quality.advice) == len(quality.reasons) == 3


def test_every_finding_is_documented() -> None:
    root = Path(__file__).resolve().parents[2]
    source = (root / "profiler" / "analyse" / "validity.py").read_text()
    codes = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    table = (root / "docs" / "validity.md").read_text()
    assert len(codes) >= 16 and codes == set(re.findall(r"^\| `([a-z-]+)` \|", table, re.M))


def curve_of(*points: tuple[str, float, float, float]) -> Curve:
    """(idle or busy, tokens/s, TTFT error, gap error)."""
    from profiler.run import oracle

    names = {field.name for field in dataclasses.fields(oracle.Checked)}
    made = []
    for beside, rate, ttft, gap in points:
        values = {
            **dict.fromkeys(names, 0),
            "tokens_per_s": rate,
            "ttft_error_p50_s": 0.0,
            "ttft_error_p99_s": ttft,
            "itl_error_p99_s": gap,
            "kept": 1.0,
        }
        made.append(Point(beside, oracle.Checked(**values)))  # type: ignore[arg-type]
    return Curve("m", "2026-11-24", "0", oracle.Pace(), tuple(made))


CURVE = [("idle", 100, 0.0001, 0.00001), ("idle", 1000, 0.0002, 0.00001), ("busy", 100, 0.003, 0.0001), ("busy", 1000, 0.008, 0.0002)]


def test_the_error_bar_is_the_worst_around_the_rate_and_at_least_what_the_run_saw(make_drive: MakeDrive) -> None:
    curve = curve_of(*CURVE)
    assert error_bar_of(make_drive(), 50, curve) == {
        "ttft_error_bar_s": 0.003,
        "tpot_error_bar_s": 0.0001,
        "error_bar_source": "calibrated",
    }
    assert error_bar_of(make_drive(), 500, curve)["ttft_error_bar_s"] == 0.008
    assert error_bar_of(make_drive(read_delay_p99_s=0.02), 500, curve)["ttft_error_bar_s"] == 0.02
    assert error_bar_of(make_drive(), 5000, curve)["error_bar_source"] == "beyond calibration"
    assert error_bar_of(make_drive(), 500, None) == {"ttft_error_bar_s": 0.0001, "tpot_error_bar_s": None, "error_bar_source": "this run"}


@pytest.mark.parametrize(("ttft_p50_s", "found"), [(0.1, True), (0.2, False)])
def test_an_error_bar_that_would_be_seen_is_a_finding(
    sound: list[RequestRecord], make_drive: MakeDrive, ttft_p50_s: float, found: bool
) -> None:
    run = summarise(sound, make_drive()) | error_bar_of(make_drive(), 500, curve_of(*CURVE)) | {"ttft_p50_s": ttft_p50_s}
    quality = certify(sound, make_drive(), run)
    assert ("client-error" in quality.to_dict()["codes"]) == found and (quality.validity == "suspect") == found

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from profiler.analyse.latency import summarise
from profiler.analyse.validity import Quality, certify
from profiler.records import DriveResult, RequestRecord

MakeRecord = Callable[..., RequestRecord]
MakeDrive = Callable[..., DriveResult]


def certified(requests: list[RequestRecord], drive: DriveResult, **options: Any) -> Quality:
    return certify(requests, drive, summarise(requests, drive), **options)


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

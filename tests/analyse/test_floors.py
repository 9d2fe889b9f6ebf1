"""Conditions on whole runs: by requests whose rates are known by construction, one start and several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import synthetic

from profiler.analyse.qos import parse
from profiler.analyse.together import judge_together
from profiler.analyse.verdict import judge
from profiler.records import RequestRecord

NS = 10**9
WINDOW_S = 100


def served(per_s: float, tokens: int = 10, seed: int = 1) -> list[RequestRecord]:
    """Answers that end at a Poisson process of `per_s`, each with `tokens` tokens at its end."""
    draw = np.random.default_rng(seed)
    ends = np.cumsum(draw.exponential(1 / per_s, int(per_s * WINDOW_S * 1.2)))
    made = []
    for k, end in enumerate(t for t in ends if t < WINDOW_S):
        done = int(end * NS)
        times = {
            "intended_ns": done - NS // 100,
            "sent_ns": done - NS // 100,
            "first_token_ns": done,
            "last_token_ns": done,
            "done_ns": done,
        }
        made.append(
            synthetic.record(k, **times, arrival_offsets_us=(10_000,), arrival_tokens=(tokens,), prompt_tokens=5, output_tokens=tokens)
        )
    return made


def verdict(text: str, requests: list[RequestRecord]) -> Any:
    return judge(parse(text), requests, "concurrency", 4.0, synthetic.drive(window_open_ns=0, window_close_ns=WINDOW_S * NS))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("request_rate>=8", "FITS"),
        ("request_rate>=12", "FAILS"),
        ("request_rate>=10", "UNDECIDED"),
        ("output_tps>=80", "FITS"),
        ("output_tps>=120", "FAILS"),
        ("total_tps>=130", "FITS"),
        ("total_tps>=190", "FAILS"),
        ("makespan<=125s for 1000 requests", "FITS"),
        ("makespan<=80s for 1000 requests", "FAILS"),
        ("makespan<=1000s", "FITS"),
        ("makespan<=50s", "FAILS"),
    ],
)
def test_a_rate_that_is_known_decides(text: str, result: str) -> None:
    found = verdict(text, served(10.0))
    assert found.result == result, found
    (c,) = found.constraints
    assert (c.score >= 1) == (result == "FITS") or result == "UNDECIDED"
    assert c.score_lo <= c.score <= c.score_hi


def test_a_true_floor_is_seldom_called_failed_and_a_missed_one_seldom_fits() -> None:
    wrong = [verdict("request_rate>=10", served(10.0 * true, seed=seed)).result for true, seed in [(1.0, s) for s in range(200)]]
    assert wrong.count("FITS") <= 20 and wrong.count("FAILS") <= 20  # 5 % of 200 each; the 99.9 % binomial limit is 20


def test_an_unanswered_request_ends_no_job() -> None:
    own = [*served(10.0), synthetic.record(9999, error_kind="timeout", done_ns=None)]
    assert verdict("makespan<=1000s", own).result == "FAILS"
    assert "did not end" in verdict("makespan<=1000s", own).reason


def test_several_starts_decide_by_their_rates() -> None:
    documents = [
        {
            "run": {
                "status": "done",
                "validity": "valid",
                "start_id": str(s),
                "qos_result": (v := verdict(text, served(rate, seed=s))).result,
            },
            "verdicts": [v.to_dict()],
        }
        for text, rate in (("request_rate>=8", 10.0),)
        for s in range(3)
    ]
    assert judge_together(documents).result == "FITS"
    slow = [verdict("request_rate>=20", served(10.0, seed=s)) for s in range(3)]
    failing = [{**d, "verdicts": [v.to_dict()]} for d, v in zip(documents, slow, strict=True)]
    assert judge_together(failing).result == "FAILS"


def test_both_attainments_are_printed_and_the_target_says_which_decides() -> None:
    own = [synthetic.record(k, ttft_sched_s=0.1 if k % 2 else 3.0, tpot_s=0.5 if k % 2 else 0.01) for k in range(100)]
    drive = synthetic.drive(window_open_ns=0, window_close_ns=100 * NS)
    marginal, joint = (
        judge(parse(t), own, "concurrency", 1.0, drive) for t in ("ttft_p40<=1s, tpot_p40<=100ms", "40% of requests: ttft<=1s, tpot<=100ms")
    )
    for found, words in ((marginal, "each limit of its own"), (joint, "by the same request")):
        (note,) = [n for n in found.notes if n.startswith("kept by")]
        assert "ttft<=1s 50.0%" in note and "tpot<=100ms 50.0%" in note and "all of them by the same request 0.0%" in note
        assert note.endswith(words)
    assert (marginal.result, joint.result) == ("FITS", "FAILS")

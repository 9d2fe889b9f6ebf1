from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse.qos import FLOORS, PRESETS, Constraint, Floor, Limit, QosTarget, load, of_table, parse, to_table
from profiler.errors import QosError
from profiler.records import RequestRecord

LIMITS = st.builds(
    Limit,
    metric=st.sampled_from(["ttft", "tpot", "icl", "e2e"]),
    op=st.sampled_from(["<", "<="]),
    limit_s=st.floats(1e-9, 1e6, allow_subnormal=False),
)
GROWING = st.builds(
    Limit,
    metric=st.sampled_from(["ttft", "e2e"]),
    op=st.sampled_from(["<", "<="]),
    limit_s=st.floats(1e-9, 1e6, allow_subnormal=False),
    per_token_s=st.floats(1e-9, 10.0, allow_subnormal=False),
)
LIMITS = st.one_of(LIMITS, GROWING)
POSITIVE = st.floats(1e-6, 1e9, allow_subnormal=False)
FLOOR = st.one_of(
    st.builds(lambda m, x: Constraint("floor", 0.0, floor=Floor(m, least=x)), st.sampled_from(sorted(FLOORS)), POSITIVE),
    st.builds(
        lambda s, n: Constraint("makespan", 0.0, floor=Floor("makespan", within_s=s, requests=n)),
        POSITIVE,
        st.none() | st.integers(1, 10**9),
    ),
)
PERCENTS = st.integers(1, 99_999).map(lambda n: n / 1000)
CONSTRAINTS = st.one_of(
    st.builds(lambda p, limit: Constraint("percentile", p, (limit,)), PERCENTS, LIMITS),
    st.builds(lambda p, strict: Constraint("error_rate", p, (), strict), PERCENTS, st.booleans()),
    st.builds(lambda p, limits: Constraint("joint", p, tuple(limits)), PERCENTS, st.lists(LIMITS, min_size=1, max_size=4)),
    FLOOR,
)


@given(st.lists(CONSTRAINTS, min_size=1, max_size=5))
def test_round_trip(constraints: list[Constraint]) -> None:
    target = QosTarget(tuple(constraints))
    assert parse(str(target)) == target
    assert str(parse(str(target))) == str(target)


@given(st.lists(CONSTRAINTS, min_size=1, max_size=5))
def test_round_trip_by_toml(constraints: list[Constraint]) -> None:
    joint = [c for c in constraints if c.kind == "joint"]
    target = QosTarget((*(c for c in constraints if c.kind != "joint"), *joint))  # a table's joint conditions stand last
    try:
        table = to_table(target)
    except QosError as error:
        assert "twice" in error.message
    else:
        assert of_table(table) == target


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ttft_p95<=200ms+0.5ms*isl", "ttft_p95<=200ms+0.5ms*isl"),
        ("90% of requests have e2e<4s + 2 ms * ISL and tpot<=50ms", "90% of requests: e2e<4s+2ms*isl, tpot<=50ms"),
        ("99% of requests have ttft<=500ms and tpot<=50ms", "99% of requests: ttft<=500ms, tpot<=50ms"),
        ("ttft_p95<=1s and tpot_p95<=80ms and error_rate<=1%", "ttft_p95<=1s, tpot_p95<=80ms, error_rate<=1%"),
        ("makespan<=4h", "makespan<=14400s"),
        ("makespan ≤ 30min for 500 requests, output_tps>=100 tokens/s", "makespan<=1800s for 500 requests, output_tps>=100"),
        ("request_rate>=0.5", "request_rate>=0.5"),
        ("ttft_p95<=500ms, tpot_p95<=80ms, error_rate<=1%", "ttft_p95<=500ms, tpot_p95<=80ms, error_rate<=1%"),
        (" TTFT_P95  ≤ 0.5 s,e2e_p99.9<2min ", "ttft_p95<=500ms, e2e_p99.9<120s"),
        ("99% of requests: ttft<=500ms, tpot<=50ms", "99% of requests: ttft<=500ms, tpot<=50ms"),
        ("icl_p99<=200ms; 99.5% OF  requests : e2e<=10s; error_rate<0.1%", "icl_p99<=200ms; 99.5% of requests: e2e<=10s; error_rate<0.1%"),
        ("tpot_p50<=250us", "tpot_p50<=0.25ms"),
        ("mlperf-server-8b", "ttft_p99<=2s, tpot_p99<=100ms"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(text).text == text.strip()


def test_every_preset_parses_and_names_its_source() -> None:
    for name, preset in PRESETS.items():
        assert parse(name.upper()) == parse(preset.text)
        assert any(character.isdigit() for character in preset.source)


@pytest.mark.parametrize(
    ("text", "character", "message", "hint"),
    [
        ("", 1, "empty", "ttft_p95<=500ms"),
        ("   ", 1, "empty", "ttft_p95<=500ms"),
        ("tfft_p95<=1s", 1, "no metric called 'tfft_p95'", "did you mean 'ttft'"),
        ("ttft_p95<=1s, eror_rate<=1%", 15, "no metric called 'eror_rate'", "did you mean 'error_rate'"),
        ("chatt", 1, "no preset called 'chatt'", "did you mean 'chat'"),
        ("itl_p95<=50ms", 1, "different things", "icl"),
        ("ttft<=500ms", 1, "which share", "ttft_p95"),
        ("ttft_mean<=500ms", 1, "'mean' is not a percentile", "ttft_p95"),
        ("ttft_p100<=500ms", 1, "p100", "ttft_p99.9"),
        ("ttft_p95", 9, "expected < or <=, the target ends", "<="),
        ("ttft_p95>=1s", 9, "expected < or <=, found '>'", "<="),
        ("ttft_p95=1s", 9, "expected < or <=, found '='", "<="),
        ("ttft_p95<=", 11, "expected a number", "500ms"),
        ("ttft_p95<=500", 14, "unit of time is missing", "500ms"),
        ("ttft_p95<=500 parsec", 15, "'parsec' is not a unit", "500ms"),
        ("ttft_p95<=0s", 11, "limit of 0", "500ms"),
        ("ttft_p95<=1s tpot_p95<=2s", 14, "expected ','", "commas"),
        ("ttft_p95<=1s,", 14, "expected a metric, the target ends", "tpot_p95"),
        ("error_rate<=1", 14, "expected %", "error_rate<=1%"),
        ("error_rate<=0%", 13, "cannot be proven", "error_rate<=1%"),
        ("100% of requests: ttft<=1s", 1, "cannot be proven", "99%"),
        ("99% of request: ttft<=1s", 5, "expected 'of requests:'", "99% of requests"),
        ("99% of requests: ttft_p95<=1s", 18, "cannot stand", "in front"),
        ("ttft_p95<=1s+2ms", 17, "expected '*isl', the target ends", "0.5ms*isl"),
        ("tpot_p95<=1s+2ms*isl", 14, "does not grow with the prompt", "ttft"),
        ("ttft_p95<=1s+2ms*osl", 17, "expected '*isl', found '*'", "0.5ms*isl"),
        ("output_tps<=100", 11, "expected >=, found '<'", "floor"),
        ("output_tps>=0", 13, "floor of 0", "output_tps>=100"),
        ("makespan<=4h for requests", 18, "expected a number of requests", "10000 requests"),
        ("makespan>=4h", 9, "expected <=", "makespan<=4h"),
        ("99% of requests have makespan<=4h", 22, "makespan cannot stand", "in front"),
        ("99% of requests:", 17, "expected a metric", "ttft"),
    ],
)
def test_errors_point_at_the_character(text: str, character: int, message: str, hint: str) -> None:
    with pytest.raises(QosError) as caught:
        parse(text)
    error = caught.value
    assert f"character {character}:" in error.message and message in error.message
    assert error.hint is not None and hint in error.hint
    assert error.detail is not None
    line, caret = error.detail.split("\n")
    assert line == text and caret == " " * (character - 1) + "^"
    assert error.exit_code == 2


@given(st.text(alphabet="tfpoicle2_%<=0159. ,;:msofrequ", max_size=40))
def test_any_text_parses_or_says_why(text: str) -> None:
    try:
        target = parse(text)
    except QosError as error:
        assert error.hint and "\n" not in error.message
    else:
        assert parse(str(target)) == target


def test_a_request_meets_a_target(make_record: Callable[..., RequestRecord]) -> None:
    target = parse("ttft_p95<=101ms, tpot_p95<=20ms")
    assert target.met_by(make_record(1, ttft_ms=100))  # 101 ms from the intended send
    assert not target.met_by(make_record(1, ttft_ms=101))
    assert not parse("ttft_p95<101ms").met_by(make_record(1, ttft_ms=100))
    assert not target.met_by(make_record(1, error_kind="timeout"))
    assert not target.met_by(make_record(1, done_ns=None))
    assert not target.met_by(make_record(1, ttft_sched_s=None))  # answered without a token


def test_a_single_token_keeps_a_limit_on_tpot_vacuously(make_record: Callable[..., RequestRecord]) -> None:
    single = make_record(1, gaps_ms=())
    assert single.tpot_s is None
    assert parse("99% of requests: tpot<=1us, icl<=1us").met_by(single)


def test_shares_are_decimal() -> None:
    assert parse("ttft_p99.9<=1s").constraints[0].allowed_misses == 0.001
    assert parse("error_rate<=0.1%").constraints[0].allowed_misses == 0.001
    assert parse("ttft_p95<=1s").constraints[0].share == 0.95


def test_ttft_and_e2e_count_from_the_intended_send() -> None:
    late = SimpleNamespace(
        error_kind=None, done_ns=1, ttft_s=0.1, ttft_sched_s=9.0, tpot_s=0.01, max_icl_s=0.01, e2e_s=0.2, e2e_sched_s=9.1
    )
    assert not parse("ttft_p95<=1s").met_by(late)
    assert not parse("e2e_p95<=1s").met_by(late)


@pytest.mark.parametrize(("isl", "kept"), [(0, False), (100, True), (99, False), (None, False)])
def test_a_limit_that_grows_with_the_prompt(make_record: Callable[..., RequestRecord], isl: int | None, kept: bool) -> None:
    request = make_record(1, ttft_ms=299, prompt_tokens=isl)  # 300 ms from the intended send
    assert parse("ttft_p95<=200ms+1ms*isl").met_by(request) is kept


def test_a_floor_is_about_no_request(make_record: Callable[..., RequestRecord]) -> None:
    target = parse("output_tps>=100, makespan<=4h, ttft_p95<=1s")
    assert target.met_by(make_record(1, ttft_ms=10)) and not target.met_by(make_record(1, error_kind="timeout"))
    assert str(target.of_requests) == "ttft_p95<=1s"


def test_a_target_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[qos]\nttft_p95 = "<=500ms+1ms*isl"\noutput_tps = ">=100"\n[[qos.joint]]\npercent = 99\nttft = "<=1s"\ntpot = "<=50ms"\n'
    )
    assert str(load(str(path))) == "ttft_p95<=500ms+1ms*isl; output_tps>=100; 99% of requests: ttft<=1s, tpot<=50ms"
    path.write_text('qos = "chat"\n')
    assert load(str(path)) == parse("chat")
    path.write_text('[qos]\npreset = "chat"\nicl_p95 = "<=300ms"\n')
    assert str(load(str(path))) == "ttft_p95<=1s, tpot_p95<=100ms, error_rate<=1%, icl_p95<=300ms"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "no condition"),
        ({"ttft_p95": 0.5}, "qos: ttft_p95: must be a text with its sign"),
        ({"ttft_p95": "<=500"}, "qos: ttft_p95: QoS target, character 14: a unit of time is missing"),
        ({"ttft_p95": "<=1s, tpot_p95<=1s"}, "one condition for each key"),
        ({"joint": [{"ttft": "<=1s"}]}, "joint 1: needs percent"),
        ({"joint": {"percent": 9}}, "joint: must be tables"),
        ({"preset": "chatt"}, "qos: preset: "),
    ],
)
def test_a_wrong_table_is_named_by_its_key(table: dict[str, object], message: str) -> None:
    with pytest.raises(QosError) as caught:
        of_table(table)
    assert message in caught.value.message and caught.value.hint

"""Rules of a comparison: the metrics of QoS targets, a direction, a limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analyse.compare_rules import DEFAULT_RULES, NAMES, RUN_METRICS, parse, percent
from profiler.analyse.qos import METRICS
from profiler.errors import QosError
from profiler.store import schema


@pytest.mark.parametrize(
    ("text", "name", "op", "limit"),
    [
        ("ttft_p99 > +5%", "ttft_p99", ">", 1.05),
        ("tpot_p99.9>2.5%", "tpot_p99.9", ">", 1.025),
        ("e2e_mean > -10%", "e2e_mean", ">", 0.9),
        ("output_tps < -3%", "output_tps", "<", 0.97),
        ("TPOT_P50 > 0", "tpot_p50", ">", 1.0),
        ("icl_p95 >= +5 %", "icl_p95", ">", 1.05),
        ("error_rate > +0.5pp", "error_rate", ">", 0.005),
    ],
)
def test_rules(text: str, name: str, op: str, limit: float) -> None:
    rule = parse(text)
    assert (rule.name, rule.op) == (name, op) and rule.limit == pytest.approx(limit)
    assert parse(str(rule)).limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("", 1, "it is empty"),
        ("itl_p50 > 5%", 1, "means different things"),
        ("tfft_p99 > 5%", 1, "no metric called 'tfft_p99'"),
        ("ttft > 5%", 1, "which share"),
        ("ttft_p0 > 5%", 1, "not between 0 and 100"),
        ("ttft_p99 < -5%", 10, "a rise of ttft_p99 is what is worse"),
        ("output_tps > +5%", 12, "a fall of output_tps is what is worse"),
        ("ttft_p99 > +5", 14, "in % of the base"),
        ("ttft_p99 > +5ms", 14, "in % of the base"),
        ("ttft_p99 > +5pp", 14, "in % of the base"),
        ("error_rate > 1%", 15, "percentage points"),
        ("ttft_p99 > -100%", 12, "nothing can fall"),
        ("ttft_p99 > +5% and more", 16, "expected the end"),
        ("ttft_p99 5%", 10, "expected > or <"),
        ("ttft_p99 >", 11, "expected a change"),
    ],
)
def test_a_broken_rule_points_at_the_character(text: str, at: int, says: str) -> None:
    with pytest.raises(QosError) as caught:
        parse(text)
    assert caught.value.message.startswith(f"rule, character {at}: ") and says in caught.value.message and caught.value.hint


def test_the_metrics_are_those_of_targets_and_columns_that_exist() -> None:
    assert all(f"{name}_p95" in NAMES and parse(f"{name}_p95 > 5%").metric == name for name in METRICS)
    known = {column.name: column.unit for column in schema.RUNS}
    assert all(known[metric.column] == metric.unit for metric in RUN_METRICS.values())
    assert [str(parse(rule)) for rule in DEFAULT_RULES] == list(DEFAULT_RULES)


@given(st.floats(-99, 900).map(lambda x: round(x, 2)))
def test_a_limit_reads_as_it_was_written(change: float) -> None:
    rule = parse(f"ttft_p99 > {change:+}%")
    assert rule.limit == pytest.approx(1 + change / 100)
    assert parse(str(rule)).limit == pytest.approx(rule.limit)


def test_a_change_in_words() -> None:
    assert [percent(x) for x in (1.05, 0.968, 1.0, 12.0)] == ["+5%", "-3.2%", "+0%", "×12"]

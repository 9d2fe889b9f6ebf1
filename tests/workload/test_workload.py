"""Lengths, arrivals and prompts: exact, seeded, and distributed as they say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from profiler import catalog
from profiler.errors import SpecError
from profiler.spec import FixedLengths, QuantileLengths, WorkloadSpec
from profiler.workload import arrivals, lengths, prompts

TABLE = {"0": 10, "0.5": 100, "1": 1000}


def workload(isl: int, osl: int, **more: object) -> WorkloadSpec:
    raw = {"name": "w", "version": 1, "summary": "s", "source": "t", "lengths": {"kind": "fixed", "isl": isl, "osl": osl}, **more}
    return WorkloadSpec.model_validate(raw)


@given(isl=st.integers(1, 700), n=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_prompts_have_exactly_the_asked_tokens(tokenizer_json: Path, isl: int, n: int, seed: int) -> None:
    made = prompts.build(workload(isl, 8), tokenizer_json, n, seed, None)
    assert [len(p.token_ids) for p in made.prompts] == [isl] * n
    assert [p.max_tokens for p in made.prompts] == [8] * n


def test_prompts_differ_from_their_first_tokens_on(tokenizer_json: Path) -> None:
    made = prompts.build(workload(64, 8), tokenizer_json, 500, 3, None)
    assert len({p.token_ids[:16] for p in made.prompts}) == 500  # 16 tokens: the smallest KV block in use


def test_prompts_are_text_without_special_tokens(tokenizer_json: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    ids = prompts.build(workload(200, 8), tokenizer_json, 1, 3, None).prompts[0].token_ids
    text = tokenizer.decode(list(ids))
    assert 0 not in ids and " the " in text and text.isascii()


@given(n=st.integers(1, 20), more=st.integers(0, 20), seed=st.integers(0, 1000))
def test_same_arguments_same_ids_and_more_prompts_keep_the_first(tokenizer_json: Path, n: int, more: int, seed: int) -> None:
    few = prompts.build(workload(32, 8), tokenizer_json, n, seed, None)
    assert few == prompts.build(workload(32, 8), tokenizer_json, n, seed, None)
    assert prompts.build(workload(32, 8), tokenizer_json, n + more, seed, None).prompts[:n] == few.prompts
    assert prompts.build(workload(32, 8), tokenizer_json, n, seed + 1, None).sha256 != few.sha256


@given(isl=st.integers(1, 4000), osl=st.integers(1, 4000), context=st.integers(2, 3000))
def test_lengths_are_cut_to_the_context_and_the_share_is_told(isl: int, osl: int, context: int) -> None:
    made = prompts.build(workload(isl, osl), None, 3, 1, context)
    assert all(len(p.token_ids) >= 1 and p.max_tokens >= 1 and len(p.token_ids) + p.max_tokens <= context for p in made.prompts)
    assert made.cut_share == (1.0 if isl + osl > context else 0.0)


def test_quantile_lengths_hit_their_quantiles() -> None:
    spec = QuantileLengths(kind="quantiles", isl=TABLE, osl=TABLE, correlation=0.6)
    pairs = lengths.draw(spec, 20_000, 7)
    isl = sorted(a for a, _ in pairs)
    assert isl[0] >= 10 and isl[-1] <= 1000
    below = sum(a <= 100 for a in isl)
    assert stats.binomtest(below, len(isl), 0.5).pvalue > 1e-4 or abs(below / len(isl) - 0.5) < 0.01
    rho = stats.spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic
    assert rho == pytest.approx(0.6, abs=0.03)


@given(n=st.integers(0, 50), more=st.integers(0, 50), seed=st.integers(0, 99))
def test_a_longer_draw_begins_with_the_shorter(n: int, more: int, seed: int) -> None:
    spec = QuantileLengths(kind="quantiles", isl=TABLE, osl=TABLE)
    assert lengths.draw(spec, n + more, seed)[:n] == lengths.draw(spec, n, seed)
    assert lengths.draw(FixedLengths(kind="fixed", isl=3, osl=4), n, seed) == [(3, 4)] * n


@pytest.mark.parametrize("bad", [{"0": 5, "0.5": 3, "1": 9}, {"0.1": 5, "1": 9}, {"0": 5}, {"0": 0, "1": 5}, {"low": 5, "1": 9}])
def test_bad_quantile_tables_are_named(bad: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"lengths\.isl"):
        lengths.draw(QuantileLengths(kind="quantiles", isl=bad, osl=TABLE), 1, 1)


@given(rate=st.floats(0.01, 500), duration=st.floats(0, 20), seed=st.integers(0, 2**31))
def test_poisson_offsets_rise_and_stay_inside(rate: float, duration: float, seed: int) -> None:
    offsets = arrivals.poisson_offsets_ns(rate, duration, seed)
    assert list(offsets) == sorted(offsets) and all(0 <= t < duration * 1e9 for t in offsets)
    assert offsets == arrivals.poisson_offsets_ns(rate, duration, seed)


def test_poisson_gaps_are_exponential_and_counts_are_poisson() -> None:
    offsets = arrivals.poisson_offsets_ns(5.0, 4000, 11)
    gaps = [(b - a) / 1e9 for a, b in pairwise(offsets)]
    assert stats.kstest(gaps, "expon", args=(0, 0.2)).pvalue > 0.001
    assert stats.poisson(20_000).cdf(len(offsets)) == pytest.approx(0.5, abs=0.4999)


@given(rate=st.floats(0.1, 1000), duration=st.floats(0.1, 5))
def test_constant_offsets_are_evenly_spaced(rate: float, duration: float) -> None:
    offsets = arrivals.constant_offsets_ns(rate, duration)
    assert offsets[0] == 0 and all(abs((b - a) - 1e9 / rate) <= 1 for a, b in pairwise(offsets))
    assert len(offsets) == pytest.approx(rate * duration, abs=1)


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_must_be_positive_and_finite(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        arrivals.poisson_offsets_ns(rate, 1, 1)


@pytest.mark.parametrize("name", catalog.workload_names())
def test_every_shipped_workload_makes_prompts(name: str, tokenizer_json: Path) -> None:
    spec = catalog.workload(name)
    made = prompts.build(spec, tokenizer_json, 5, 1, 8192)
    assert 5 <= len(made.prompts) < 20 and spec.source and spec.name == name
    if spec.qos:
        from profiler.analyse import qos

        qos.parse(spec.qos)

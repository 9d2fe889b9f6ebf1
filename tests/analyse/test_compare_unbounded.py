"""Two starts per arm that differ much, and many tests or a high confidence: nothing is bounded, and that is said in words and in valid JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from test_compare import run, starts

from profiler.analyse import compare_effect as effects
from profiler.analyse.compare import Compared, Comparison, compare
from profiler.analyse.compare_arms import Arm
from profiler.report import compare as words
from profiler.report.compare_html import drawn, render


def arms(base: tuple[float, float], new: tuple[float, float], loads: int) -> list[Arm]:
    return [
        Arm(name, tuple(run(f"{name}{k}-{load}", np.full(20, c), row={"load": float(load)}) for load in range(1, loads + 1) for k, c in enumerate(centres)))
        for name, centres in (("base", base), ("new", new))
    ]  # fmt: skip


def said(found: Comparison) -> list[str]:
    """The same on a terminal, as Markdown, as a page and as JSON; the last has no NaN and no infinity."""
    console = Console(width=300)
    with console.capture() as shown:
        for part in words.render(found):
            console.print(part)
    return [shown.get(), words.markdown(found), render(found), json.dumps(words.plain(found), allow_nan=False)]


@pytest.mark.parametrize(
    ("base", "new", "loads", "confidence"),
    [
        ((0.1, 2.0), (0.1, 0.11), 4, 1 - 0.05 / 15),  # the level of 60 tests at 95 %
        ((0.1, 0.2), (0.1, 0.1), 4, 1 - 0.05 / 75),  # of 300
        ((0.1, 2.0), (0.1, 0.11), 1, 0.9999),
        ((0.1, 2.0), (0.1, 0.11), 1, 1 - 1e-16),
    ],
)
def test_what_has_no_bound_is_inconclusive(base: tuple[float, float], new: tuple[float, float], loads: int, confidence: float) -> None:
    found = compare(*arms(base, new, loads), ["tpot_p50 > +5%"], confidence)
    assert found.outcome == "inconclusive"
    assert not any(math.isnan(x) for one in found.compared for x in (one.lo, one.hi, one.detectable) if x is not None)
    for text in said(found):
        assert not re.search(r"\b(inf|infinity|nan)(?![a-z])|∞", text, flags=re.I), text


def test_it_is_said_in_words() -> None:
    found = compare(*arms((0.1, 2.0), (0.1, 0.11), 1), ["tpot_p50 > +5%", "output_tps < -5%"], 0.9999)
    terminal, markdown, page, plain = said(found)
    for text in (terminal, markdown, page):
        assert "no bound" in text and "no bound to" not in text
    assert "<svg" not in page
    for one, row in zip(found.compared, json.loads(plain)["compared"], strict=True):
        assert (one.lo, one.hi) == (0.0, math.inf) and (row["lo"], row["hi"]) == (0.0, None)
        assert words.cells(one)[words.HEADINGS.index("detectable")] == "none"
    assert [one.detectable for one in found.compared] == [math.inf, 0.0]


def test_one_end_alone_and_shares() -> None:
    ratio = Compared("c", "tpot_p50 > +5%", "tpot_p50", "s", 1.05, "inconclusive", "", ratio=1.1, lo=0.0, hi=1.2, detectable=1.3)
    assert words.interval(ratio, ratio.lo, ratio.hi) == "no bound to +20%" and drawn(ratio) is None
    assert drawn(replace(ratio, lo=1.0)) is not None and words.interval(ratio, 1.0, math.inf) == "+0% to no bound"
    share = replace(ratio, metric="error_rate", ratio=0.0, lo=0.0, hi=0.01, limit=0.005)
    assert words.interval(share, share.lo, share.hi) == "+0pp to +1pp" and drawn(share) is not None
    assert drawn(replace(share, hi=math.inf)) is None


def test_the_detectable_effect_grows_with_the_tests_until_there_is_none() -> None:
    effect = effects.log_effect(starts([0.1, 0.2]), starts([0.1, 0.1]), 1.05, 0.05)
    seen = [effects.detectable(effect, 1.05, ">", 0.05 / tests) for tests in (1, 10, 100, 300, 1000, 10**6)]
    assert seen == sorted(seen) and 1.05 < seen[0] < seen[1] < math.inf == seen[3]
    near = effects.log_effect(starts([1, 1 + 1e-6]), starts([1, 1]), 1.05, 0.05)
    steps = [effects.detectable(near, 1.05, ">", 0.1**digits) for digits in range(2, 9)]
    assert steps == sorted(set(steps)) and steps[-1] < math.inf


@pytest.mark.parametrize("freedom", [1.0, 1.5, 3.0])
def test_far_out_the_noncentral_t_is_its_limit(freedom: float) -> None:
    """On both sides of where the one takes over from the other the ratio to the critical value is the same."""
    levels = [stats.t.sf(critical, freedom) for critical in (9_900, 10_100)]
    below, above = (effects._noncentrality(freedom, level) / stats.t.isf(level, freedom) for level in levels)
    assert below == pytest.approx(above, rel=1e-4)

"""Which model each request asks for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import catalog, plan
from profiler.errors import LoadError, SpecError
from profiler.records import Endpoint, Prompt
from profiler.run.adapters import asked_models
from profiler.spec import SweepSpec, WorkloadSpec, validate_spec

SERVER = Endpoint("127.0.0.1", 1, "base", adapters=("a", "b"))


def prompts(sessions: list[str | None]) -> list[Prompt]:
    return [Prompt(f"r{i}", (1, 2), 4, session_id=session) for i, session in enumerate(sessions)]


@given(st.lists(st.one_of(st.none(), st.sampled_from("xyz")), max_size=40), st.integers(0, 99))
def test_a_draw_is_seeded_and_a_session_stays_with_its_model(sessions: list[str | None], seed: int) -> None:
    asked = prompts(sessions)
    models = asked_models(SERVER, asked, "mixed", seed)
    assert models == asked_models(SERVER, asked, "mixed", seed) and set(models) <= {"base", "a", "b"}
    for name in {s for s in sessions if s}:
        assert len({model for model, session in zip(models, sessions, strict=True) if session == name}) == 1
    # Longer is the same and more: how many prompts were prepared does not decide what the first ones ask for.
    assert asked_models(SERVER, asked + prompts([None]), "mixed", seed)[: len(models)] == models


def test_all_are_equally_likely() -> None:
    counts = Counter(asked_models(SERVER, prompts([None] * 3000), "mixed", 1))
    assert all(900 < counts[name] < 1100 for name in ("base", "a", "b"))  # 3.9 standard deviations of a binomial around 1000


def test_without_mixing_all_ask_for_the_base() -> None:
    assert asked_models(SERVER, prompts([None] * 5), None, 1) == ["base"] * 5


def test_a_server_without_adapters_is_named() -> None:
    with pytest.raises(LoadError, match="the server has none") as caught:
        asked_models(Endpoint("127.0.0.1", 1, "base"), prompts([None]), "mixed", 1)
    assert "options.adapters" in str(caught.value.hint)


def test_ids_of_cells_from_before_stay_and_mixing_is_another_cell() -> None:
    spec = SweepSpec(backends=("openvino-xeon-int8",))
    backend, chat = catalog.backend("openvino-xeon-int8"), catalog.workload("chat")

    def cell_id(workload: WorkloadSpec) -> str:
        return plan.make_cell(spec, backend, workload, "concurrency", 4.0, None).cell_id

    assert cell_id(chat) == "ac5439898b58f41e"  # as before workloads had adapters and variants had methods
    assert cell_id(chat.model_copy(update={"adapters": "mixed"})) != cell_id(chat)


def test_other_words_are_refused() -> None:
    raw: dict[str, Any] = {"name": "w", "version": 1, "summary": "s", "source": "s", "lengths": {"kind": "fixed", "isl": 1, "osl": 1}}
    with pytest.raises(SpecError, match="adapters"):
        validate_spec(raw | {"adapters": "all"}, WorkloadSpec, "here")

"""Adapters and speculation together on one vLLM server, measured by the product's own client; a second family on two engines; 8-bit weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_model import export_python

from profiler import catalog, plan
from profiler.engines import http_client, registry
from profiler.engines.protocol import RunningEngine
from profiler.errors import ModelError
from profiler.models import resolve
from profiler.models.synthetic_adapter import write_adapter
from profiler.records import LocalModel
from profiler.run.cell import Measured, measure
from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec, validate_spec

pytestmark = pytest.mark.engine
PROMPT = list(range(300, 332))


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def qwen3() -> LocalModel:
    """A family of its own; random weights, so its answers mean nothing and can be compared."""
    return resolve("synthetic:qwen3-tiny", quiet, convert_python=export_python)


@pytest.fixture(scope="module")
def backend(qwen3: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> BackendSpec:
    folder = tmp_path_factory.mktemp("adapters")
    adapters = {name: str(write_adapter(qwen3.folder, folder / name, seed=n)) for n, name in enumerate(("left", "right"))}
    speculative = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 1}
    spec = catalog.backend("vllm-cpu-bf16")
    more = {"max_model_len": 1024, "adapters": adapters, "speculative": speculative}
    return validate_spec(spec.model_dump() | {"options": {**spec.options, **more}}, BackendSpec, "here")


@pytest.fixture(scope="module")
def server(qwen3: LocalModel, backend: BackendSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    engine = registry.get("vllm")
    variant = engine.prepare(qwen3, backend, quiet)
    with engine.start(variant, backend, tmp_path_factory.mktemp("vllm-options") / "engine.log", quiet) as running:
        yield running


@pytest.fixture(scope="module")
def mixed(qwen3: LocalModel, backend: BackendSpec, server: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    raw = {
        "name": "w",
        "version": 1,
        "summary": "s",
        "source": "s",
        "lengths": {"kind": "fixed", "isl": 32, "osl": 24},
        "adapters": "mixed",
    }
    workload = validate_spec(raw, WorkloadSpec, "here")
    spec = SweepSpec(requests=24, window_min_s=1, window_max_s=60, warmup_s=0)
    cell = plan.make_cell(spec, backend, workload, "concurrency", 4.0, None)
    folder = tmp_path_factory.mktemp("cell")
    return measure(cell, server.endpoint, qwen3.folder / "tokenizer.json", qwen3.max_context_tokens, folder, engine_pid=server.pid)


def ask(running: RunningEngine, model: str, tokens: int = 16, **more: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "return_token_ids": True, **more}
    status, answer = http_client.request(running.endpoint, "POST", "/completions", json.dumps(body).encode(), prefix=True, timeout_s=120)
    assert status == 200, answer
    found: dict[str, Any] = json.loads(answer)["choices"][0]
    return found


def test_adapters_answer_by_their_names_and_otherwise_than_the_base(server: RunningEngine) -> None:
    assert server.endpoint.adapters == ("left", "right")
    answers = {tuple(ask(server, name)["token_ids"]) for name in (server.endpoint.model, "left", "right")}
    assert len(answers) == 3


def test_a_mixed_workload_asks_all_of_them_and_gets_what_it_asked_for(server: RunningEngine, mixed: Measured) -> None:
    good = [r for r in mixed.requests if r.in_window]
    assert len(good) >= 12 and all(r.error_kind is None for r in good)
    assert {r.asked_model for r in good} == {server.endpoint.model, "left", "right"}


def test_tokens_are_counted_where_a_read_brings_several(mixed: Measured) -> None:
    good = [r for r in mixed.requests if r.error_kind is None]
    assert {r.token_count_source for r in good} == {"token_ids"}
    assert all(sum(r.arrival_tokens) == r.output_tokens == 24 for r in good)
    assert any(count > 1 for r in good for count in r.arrival_tokens)  # the guesses of some n-gram were right


def test_qwen3_says_the_same_on_both_engines(qwen3: LocalModel, server: RunningEngine, tmp_path: Path) -> None:
    backend = catalog.backend("openvino-xeon-bf16")
    engine = registry.get(backend.engine)
    with engine.start(engine.prepare(qwen3, backend, quiet), backend, tmp_path / "openvino.log", quiet) as running:
        theirs = ask(running, running.endpoint.model, ignore_eos=True)["token_ids"]
    ours = ask(server, server.endpoint.model, ignore_eos=True)["token_ids"]
    # Arithmetic differs (bf16 against f32 on a CPU without bf16), and random weights make near-ties: a beginning, not all.
    assert ours[:4] == theirs[:4]


@pytest.mark.xfail(strict=True, raises=ModelError, reason="optimum-intel 2.2.0 exports DeepSeek with transformers up to 4.53.3 only")
def test_deepseek_exports_to_openvino() -> None:
    model = resolve("synthetic:deepseek_v3-tiny", quiet, convert_python=export_python)
    registry.get("openvino").prepare(model, catalog.backend("openvino-xeon-bf16"), quiet)


def test_eight_bit_weights_write_english(smollm2: LocalModel, tmp_path: Path) -> None:
    """The Llama family, quantized by llm-compressor and served by vLLM."""
    backend = catalog.backend("vllm-cpu-w8a8-int8")
    engine = registry.get("vllm")
    variant = engine.prepare(smollm2, backend, quiet)
    assert variant.details["weight_bytes_by_type"]["i8"] == 30 * (2 * 576**2 + 2 * 192 * 576 + 3 * 1536 * 576)
    assert variant.details["kept_in_higher_precision"] == ["model.embed_tokens.weight: bf16"]
    body: dict[str, Any] = {"max_tokens": 24, "temperature": 0, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    with engine.start(variant, backend, tmp_path / "engine.log", quiet) as running:
        asked = json.dumps(body | {"model": running.endpoint.model}).encode()
        status, answer = http_client.request(running.endpoint, "POST", "/chat/completions", asked, prefix=True, timeout_s=120)
    assert status == 200 and "Paris" in json.loads(answer)["choices"][0]["message"]["content"]

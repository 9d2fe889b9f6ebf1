"""One real server for all engine tests, and the null server beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from specs import backend
from wire_client import Wire

from profiler import catalog
from profiler.engines import registry
from profiler.engines.protocol import RunningEngine
from profiler.records import LocalModel


@pytest.fixture(scope="session")
def openvino_server(smollm2: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """int8, with a cache small enough to be outgrown by a prompt that the context allows."""
    spec = catalog.backend("openvino-xeon-int8")
    engine = registry.get("openvino")
    variant = engine.prepare(smollm2, spec, lambda line: None)
    with engine.start(variant, spec, tmp_path_factory.mktemp("openvino") / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def vllm_server(smollm2: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """vLLM's build for CPUs, in full precision and with its prefix cache on."""
    spec = catalog.backend("vllm-cpu-bf16")
    spec = spec.model_copy(update={"options": {**spec.options, "prefix_caching": True}})
    engine = registry.get("vllm")
    variant = engine.prepare(smollm2, spec, lambda line: None)
    with engine.start(variant, spec, tmp_path_factory.mktemp("vllm") / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def null_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    folder = tmp_path_factory.mktemp("null")
    engine, spec = registry.get("null"), backend("null", ttft_ms=5.0, itl_ms=1.0, record=str(folder / "sent.jsonl"))
    with engine.start(engine.prepare(None, spec, lambda line: None), spec, folder / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def paced_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    engine, spec = registry.get("paced"), backend("paced", ttft_ms=5.0, itl_ms=1.0)
    variant = engine.prepare(None, spec, lambda line: None)
    with engine.start(variant, spec, tmp_path_factory.mktemp("paced") / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def attached(null_server: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    engine, spec = registry.get("openai"), backend("openai", url=null_server.endpoint.url, device="a test")
    with engine.start(
        engine.prepare(None, spec, lambda line: None), spec, tmp_path_factory.mktemp("openai") / "x", lambda line: None
    ) as running:
        yield running


@pytest.fixture(
    params=[
        "null_server",
        "paced_server",
        "attached",
        pytest.param("openvino_server", marks=pytest.mark.engine),
        pytest.param("vllm_server", marks=pytest.mark.engine),
    ],
    ids=["null", "paced", "openai", "openvino", "vllm"],
)
def wire(request: pytest.FixtureRequest) -> Wire:
    return Wire(request.getfixturevalue(request.param))
